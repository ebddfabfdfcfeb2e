/** The process `hodei runner`, started by the agent in a session of its own. */

import { setFlagsFromString } from "node:v8";
import { systemClock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import { createLogger, LOG_LEVELS, type LogLevel } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { startRunner } from "./runner.ts";
import { CGROUP_MODES, type CgroupMode } from "./tree/process-tree.ts";

export interface RunnerMainOptions {
  environment: Readonly<Record<string, string | undefined>>;
  version: string;
}

/**
 * Runs until the runner is done, and returns the exit code of the process.
 *
 * Environment: `HODEI_WORKER_DIR` (required), `HODEI_CGROUP` (auto, v1, v2, none),
 * `HODEI_SPOOL_LIMIT_BYTES`, `HODEI_LOG_LEVEL`. SIGTERM: ends with its agent; without
 * one, or when it comes again, kills what runs and exits. SIGINT and SIGHUP, which a terminal sends to
 * everything below it, are ignored.
 */
export async function runnerMain(options: RunnerMainOptions): Promise<number> {
  // Each fork copies the page tables of this process, so its memory is the price of a start: with a
  // young generation that does not grow, a start takes a third of the time it takes otherwise.
  setFlagsFromString("--semi-space-growth-factor=1");
  const { environment, version } = options;
  const log = createLogger({
    level: readLogLevel(environment["HODEI_LOG_LEVEL"]),
    fields: { process: "runner" },
  });
  try {
    const settings = readSettings(environment);
    const program = { clock: systemClock, random: systemRandom, log, version, environment };
    const runner = await startRunner({ ...settings, ...program });
    process.on("SIGINT", ignoreSignal);
    process.on("SIGHUP", ignoreSignal);
    process.on("SIGTERM", () => runner.terminate());
    await runner.done;
    return 0;
  } catch (error) {
    log.error({ err: error }, "runner cannot run");
    process.stderr.write(`hodei runner: ${errorMessage(error)}\n`);
    return 1;
  }
}

function ignoreSignal(): void {
  // A handler that does nothing: jobs must survive a Ctrl-C meant for the agent.
}

function readSettings(environment: RunnerMainOptions["environment"]): {
  directory: string;
  cgroup: CgroupMode | "auto";
  spoolLimitBytes?: number;
} {
  const directory = environment["HODEI_WORKER_DIR"];
  if (directory === undefined || directory === "")
    throw new Error("HODEI_WORKER_DIR is not set: the worker's directory");
  const cgroup = environment["HODEI_CGROUP"] || "auto";
  const mode = (["auto", ...CGROUP_MODES] as const).find((name) => name === cgroup);
  if (mode === undefined) throw new Error(`HODEI_CGROUP is ${cgroup}: it must be auto, v1, v2 or none`);
  const limit = environment["HODEI_SPOOL_LIMIT_BYTES"];
  if (limit === undefined || limit === "") return { directory, cgroup: mode };
  const spoolLimitBytes = Number(limit);
  if (!Number.isSafeInteger(spoolLimitBytes) || spoolLimitBytes < 1) {
    throw new Error(`HODEI_SPOOL_LIMIT_BYTES is ${limit}: it must be a whole number of bytes`);
  }
  return { directory, cgroup: mode, spoolLimitBytes };
}

function readLogLevel(text: string | undefined): LogLevel {
  return LOG_LEVELS.find((level) => level === text) ?? "info";
}
