/**
 * Tells the watchers of a job, within this process, that it changed.
 *
 * A hint and no more: a change that another replica made is not heard here, so whoever waits also
 * looks at the database from time to time. Nothing queues up: a watcher that is slow finds the
 * newest state, not every one in between.
 */

import type { Clock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import type { Job } from "../core/job.ts";

/** Of all jobs together: each is a stream that somebody holds open. */
const MAX_SUBSCRIBERS = 20_000;

export class JobBus {
  readonly #listeners = new Map<string, Set<(job: Job) => void>>();
  #count = 0;

  /** Called after the change is stored. */
  publish(job: Job): void {
    const listeners = this.#listeners.get(job.id);
    if (!listeners) return;
    // A copy: a listener may call itself off, or another one.
    for (const listener of [...listeners]) listener(job);
  }

  /**
   * Calls `listener`, which must be quick and must not throw, until the returned function is called.
   *
   * @throws AppError `resource_exhausted` if there are too many.
   */
  subscribe(jobId: string, listener: (job: Job) => void): () => void {
    if (this.#count >= MAX_SUBSCRIBERS) {
      throw new AppError(
        "resource_exhausted",
        `watch job ${jobId}: ${MAX_SUBSCRIBERS} watchers are there already`,
      );
    }
    const listeners = this.#listeners.get(jobId) ?? new Set();
    this.#listeners.set(jobId, listeners.add(listener));
    this.#count += 1;
    return () => {
      if (!listeners.delete(listener)) return;
      this.#count -= 1;
      if (listeners.size === 0) this.#listeners.delete(jobId);
    };
  }

  /** How many are subscribed, to all jobs together. */
  get subscribers(): number {
    return this.#count;
  }
}

/** The newest state of one job that was heard of since it was last asked for. */
export class JobWatch {
  readonly #clock: Clock;
  readonly #unsubscribe: () => void;
  #newest: Job | null = null;
  #wake: () => void = () => {};

  constructor(deps: { bus: JobBus; clock: Clock }, jobId: string) {
    this.#clock = deps.clock;
    this.#unsubscribe = deps.bus.subscribe(jobId, (job) => {
      // Two writers may publish in another order than they wrote in.
      if (this.#newest === null || job.version > this.#newest.version) this.#newest = job;
      this.#wake();
    });
  }

  /** Null if nothing was heard within `timeoutMs`, or the signal aborted. */
  async next(timeoutMs: number, signal: AbortSignal): Promise<Job | null> {
    if (this.#newest === null && !signal.aborted) {
      const waiting = new AbortController();
      this.#wake = () => waiting.abort();
      signal.addEventListener("abort", this.#wake, { once: true });
      await this.#clock.sleep(timeoutMs, waiting.signal);
      signal.removeEventListener("abort", this.#wake);
      this.#wake = () => {};
    }
    const job = this.#newest;
    this.#newest = null;
    return job;
  }

  close(): void {
    this.#unsubscribe();
  }
}
