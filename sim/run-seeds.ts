/** Runs many seeds in child processes, with a line of progress. */

import { systemClock } from "../src/base/clock.ts";
import { BatchProcess } from "./batch-process.ts";
import { RULES } from "./rules.ts";
import type { BatchResult, FailedSeed } from "./seed-batch.ts";

const BATCH_SEEDS = 50;
const BATCH_TIMEOUT_MS = 10 * 60_000;
/** Enough to see what is wrong. */
const MAX_FAILURES = 5;
const PROGRESS_MS = 2_000;

export interface SeedsRun {
  directory: string;
  from: number;
  count: number;
  processes: number;
}

/** Returns whether all seeds passed. */
export async function runSeeds(run: SeedsRun): Promise<boolean> {
  const total: BatchResult = { seeds: 0, events: 0, virtualMs: 0, jobs: 0, failures: [] };
  const startMs = systemClock.monotonicMs();
  let next = run.from;
  let shownMs = startMs;
  const work = async (): Promise<void> => {
    const batch = new BatchProcess(run.directory);
    try {
      while (next < run.from + run.count && total.failures.length < MAX_FAILURES) {
        const from = next;
        const count = Math.min(BATCH_SEEDS, run.from + run.count - from);
        next += count;
        const result = await batch.run({ from, count, stopAtFirst: false }, BATCH_TIMEOUT_MS);
        for (const failure of result.failures) report(failure);
        add(total, result);
        const nowMs = systemClock.monotonicMs();
        if (nowMs - shownMs < PROGRESS_MS) continue;
        shownMs = nowMs;
        process.stderr.write(`${progress(total, run.count, nowMs - startMs)}\n`);
      }
    } finally {
      batch.close();
    }
  };
  await Promise.all(Array.from({ length: run.processes }, work));
  const seconds = (systemClock.monotonicMs() - startMs) / 1_000;
  const hours = total.virtualMs / 3_600_000;
  console.log(
    `${total.seeds} seeds, ${total.jobs} jobs, ${hours.toFixed(0)} hours of cluster time, ` +
      `${total.events} events in ${seconds.toFixed(0)} s: ${total.failures.length} failed`,
  );
  return total.failures.length === 0;
}

function add(total: BatchResult, result: BatchResult): void {
  total.seeds += result.seeds;
  total.events += result.events;
  total.virtualMs += result.virtualMs;
  total.jobs += result.jobs;
  total.failures.push(...result.failures);
}

function progress({ seeds, failures }: BatchResult, count: number, elapsedMs: number): string {
  const rate = seeds / (elapsedMs / 1_000);
  const leftSeconds = Math.round((count - seeds) / rate);
  return `${seeds} of ${count} seeds, ${rate.toFixed(0)}/s, ${leftSeconds} s left, ${failures.length} failed`;
}

export function report({ seed, violation, lastLines }: FailedSeed): void {
  console.log(`\nseed ${seed} at ${(violation.atMs / 1_000).toFixed(3)} s violates:`);
  console.log(`  ${RULES[violation.rule]}\n  ${violation.details}`);
  for (const line of lastLines) console.log(`    ${line}`);
  console.log(`  again, with all of its trace: npm run sim -- --seed ${seed}\n`);
}
