/** A child process that runs the seeds it is given and says what came out. */

import { runSeed } from "./cluster.ts";
import type { Violation } from "./rules.ts";

/** Asks for `count` seeds from `from` on; with `stopAtFirst`, for no more after a violation. */
export interface BatchOrder {
  from: number;
  count: number;
  stopAtFirst: boolean;
}

export interface FailedSeed {
  seed: number;
  violation: Violation;
  lastLines: readonly string[];
}

export interface BatchResult {
  seeds: number;
  events: number;
  virtualMs: number;
  jobs: number;
  failures: FailedSeed[];
}

export async function runBatch({ from, count, stopAtFirst }: BatchOrder): Promise<BatchResult> {
  // Errors are normal here, and their stacks take a tenth of the time.
  Error.stackTraceLimit = 0;
  const result: BatchResult = { seeds: 0, events: 0, virtualMs: 0, jobs: 0, failures: [] };
  for (let seed = from; seed < from + count; seed += 1) {
    const run = await runSeed(seed);
    result.seeds += 1;
    result.events += run.events;
    result.virtualMs += run.virtualMs;
    result.jobs += run.jobs;
    if (run.violation === null) continue;
    result.failures.push({ seed, violation: run.violation, lastLines: run.lastLines });
    if (stopAtFirst) break;
  }
  return result;
}

if (process.send) {
  process.on("message", (order: BatchOrder) => {
    runBatch(order).then(
      (result) => process.send?.(result),
      (error: unknown) => {
        process.stderr.write(`seeds from ${order.from}: ${String((error as Error)?.stack ?? error)}\n`);
        process.exit(1);
      },
    );
  });
}
