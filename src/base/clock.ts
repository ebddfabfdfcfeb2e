/**
 * Time as a thing that is passed in, so that the simulation and tests can turn it. Nothing else in
 * the program reads a clock or sets a timer.
 */

import { setTimeout as wait } from "node:timers/promises";

export interface Clock {
  /** Milliseconds since the Unix epoch; may jump. For what people see and what is stored. */
  nowMs(): number;
  /** Milliseconds from an unknown zero; never goes back. For measuring durations. */
  monotonicMs(): number;
  /** Calls `run` once after `delayMs`. The function that is returned calls it off. */
  schedule(delayMs: number, run: () => void): () => void;
  /** Resolves after `delayMs`, or at once when `signal` aborts; never rejects. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Longer delays would overflow Node's timer (2^31 - 1 ms) and fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  schedule(delayMs, run) {
    const timer = setTimeout(run, Math.min(Math.max(0, delayMs), MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  async sleep(delayMs, signal) {
    try {
      await wait(Math.min(Math.max(0, delayMs), MAX_TIMER_MS), undefined, signal ? { signal } : {});
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
  },
};
