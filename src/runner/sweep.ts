/**
 * The process `worker sweep`: ends what the dead runner of a directory has left, for whoever must
 * know that nothing of a worker runs any more.
 */

import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import { silentLogger } from "../base/log.ts";
import { runnerSocketPath } from "../protocol/spool-layout.ts";
import { AgentSocket } from "./agent-socket.ts";
import { endStrays } from "./tree/strays.ts";

const LIMIT_MS = 5_000;

/**
 * Exit code 0: nothing is left. 1: something is, or a runner lives there; stderr says what.
 * Arguments: `--dir DIRECTORY`, that of the worker.
 */
export async function sweepMain(args: readonly string[]): Promise<number> {
  const [flag, path] = args;
  if (flag !== "--dir" || path === undefined) {
    process.stderr.write("worker sweep: say --dir DIRECTORY, the worker's directory\n");
    return 2;
  }
  try {
    const left = await sweep(resolve(path));
    if (left === "") return 0;
    process.stderr.write(`processes of jobs could not be ended: ${left}\n`);
  } catch (error) {
    process.stderr.write(`${errorMessage(error)}\n`);
  }
  return 1;
}

/** Returns what could not be ended, or "". */
async function sweep(workerDirectory: string): Promise<string> {
  const clock = systemClock;
  const socket = await AgentSocket.listen({
    path: runnerSocketPath(workerDirectory),
    clock,
    log: silentLogger,
  });
  try {
    return (await endStrays({ workerDirectory, clock, limitMs: LIMIT_MS })).left;
  } finally {
    await socket.stop();
  }
}
