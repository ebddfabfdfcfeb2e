/** What a row of the bench is, and how a number is taken that can be trusted. */

import { systemClock } from "../src/base/clock.ts";

/**
 * One line of the table. To add one, write an object like this and put it into `rows` of main.ts:
 *
 *     export const queueJob: BenchRow = {
 *       name: "unary QueueJob, 64 callers",
 *       rawName: "Connect echo",
 *       target: "≥ 0.7 ×",
 *       async run() {
 *         const raw = await echoCallsPerSecond({ callers: 64 });
 *         return { value: await queueJobsPerSecond({ callers: 64 }), raw, unit: "calls/s" };
 *       },
 *     };
 *
 * The raw limit is measured within `run`, right beside the value, since a machine is never the
 * same for long.
 */
export interface BenchRow {
  name: string;
  /** What to reach; for people. */
  target: string;
  /** What the raw limit is that of. */
  rawName: string;
  run(): Promise<Measured>;
}

/** `value` is null in a row that shows only a raw limit; `raw` where there is none to compare with. */
export interface Measured {
  value: number | null;
  raw: number | null;
  unit: string;
}

/** The median of several short runs: one disturbance does not move it. */
export async function medianOf(repetitions: number, measure: () => Promise<number>): Promise<number> {
  const values: number[] = [];
  for (let run = 0; run < repetitions; run += 1) values.push(await measure());
  return percentile(values, 0.5);
}

/** The value below which this part of the values lies; NaN of none. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

/** How often `call` comes back in a second, with `callers` of it always under way. */
export async function callsPerSecond(options: {
  callers: number;
  durationMs: number;
  call: () => Promise<unknown>;
}): Promise<number> {
  const { callers, durationMs, call } = options;
  const startMs = systemClock.monotonicMs();
  let calls = 0;
  const keepCalling = async (): Promise<void> => {
    while (systemClock.monotonicMs() - startMs < durationMs) {
      await call();
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: callers }, keepCalling));
  return calls / ((systemClock.monotonicMs() - startMs) / 1_000);
}

/** How long `run` takes. */
export async function durationMs(run: () => Promise<unknown>): Promise<number> {
  const startMs = systemClock.monotonicMs();
  await run();
  return systemClock.monotonicMs() - startMs;
}
