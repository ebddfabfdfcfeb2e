/** Entry of `hodei agent`: settings to a running agent, signals to its end. */

import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { readSettings, type Flags } from "../base/settings.ts";
import { listenForSignals } from "../base/signals.ts";
import { Agent } from "./agent.ts";
import { claimDirectory } from "./claim-directory.ts";
import { agentSettings } from "./settings.ts";
import { describeWorker } from "./worker-info.ts";

/** `hodei agent` as people call it: the agent itself, or what makes a service of it. */
export async function agentCommand(options: {
  flags: Flags;
  version: string;
  workerProgram: string;
  action: string | undefined;
}): Promise<number> {
  const { flags, action } = options;
  if (action === undefined) {
    for (const name of ["user", "unit", "print"]) {
      if (flags[name] === undefined) continue;
      throw new AppError("invalid_argument", `--${name} is an option of hodei agent install`);
    }
    const onSentAway = (message: string): void => void process.stderr.write(`hodei: ${message}\n`);
    return await agentMain({ ...options, onSentAway });
  }
  if (action !== "install" && action !== "uninstall") {
    throw new AppError("invalid_argument", `hodei agent does not know ${JSON.stringify(action)}`);
  }
  const { installService, isSystemdRunning, SYSTEM_UNITS, uninstallService } = await import("./install.ts");
  await (action === "install" ? installService : uninstallService)({
    flags,
    script: process.argv[1] ?? "",
    unitDirectory: SYSTEM_UNITS,
    hasSystemd: isSystemdRunning(),
    write: (text) => void process.stdout.write(text),
  });
  return 0;
}

/** Runs until the agent leaves; resolves with the exit code of the process. */
export async function agentMain(options: {
  flags: Flags;
  version: string;
  workerProgram: string;
  /** Told why it has left, in words for people, if nobody here asked for it. */
  onSentAway?: (message: string) => void;
}): Promise<number> {
  const settings = readSettings(agentSettings, { env: process.env, flags: options.flags });
  const log = createLogger({ level: settings.logLevel, fields: { process: "agent" } });
  const directory = resolve(settings.directory);
  await claimDirectory(directory);
  const agent = new Agent({
    serverUrl: settings.server,
    token: settings.token,
    tokenFile: settings.tokenFile,
    directory,
    workerProgram: options.workerProgram,
    environment: process.env,
    offlineExitMs: settings.offlineExit,
    // Providers choose the ids of their workers.
    isStatic: settings.workerId === "",
    describe: (capabilities) =>
      describeWorker({
        workerId: settings.workerId,
        name: settings.name,
        version: options.version,
        directory,
        jobs: settings.jobs,
        cpuMillis: settings.cpuMillis,
        memoryBytes: settings.memory,
        diskBytes: settings.disk,
        gpu: settings.gpu,
        labels: settings.labels,
        taints: settings.taints,
        capabilities,
      }),
    clock: systemClock,
    random: systemRandom,
    log,
  });
  let isStopping = false;
  obeySignals(agent, { drainTimeoutMs: settings.drainTimeout, onStop: () => (isStopping = true) });
  const end = await agent.done;
  log.info({ reason: end.message, exitCode: end.exitCode }, "agent left");
  if (!isStopping) options.onSentAway?.(end.message);
  return end.exitCode;
}

/**
 * SIGTERM and SIGINT drain, the second one ends what runs, the third one the process. SIGHUP hands the
 * runner and its jobs over to the next agent, which an upgrade starts.
 */
function obeySignals(
  agent: Agent,
  { drainTimeoutMs, onStop }: { drainTimeoutMs: number; onStop: () => void },
): void {
  let count = 0;
  listenForSignals(systemClock, (signal) => {
    count += 1;
    onStop();
    if (count > 2) process.exit(signal === "SIGINT" ? 130 : 143);
    agent.drain(drainTimeoutMs);
  });
  process.on("SIGHUP", () => {
    onStop();
    void agent.handOver();
  });
}
