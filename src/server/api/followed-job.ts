/** A job as a long call needs it: its newest known state, and a wait for the next one. */

import type { Clock } from "../../base/clock.ts";
import type { Job } from "../../core/job.ts";
import type { Store } from "../../storage/store.ts";
import { JobWatch, type JobBus } from "../job-bus.ts";

/** How often the row is read in case that a hint was lost. */
const REREAD_MS = 5_000;

export class FollowedJob {
  readonly #store: Store;
  readonly #watch: JobWatch;
  readonly #onChange: () => void;
  readonly #closed = new AbortController();
  #job: Job;
  #wake: () => void = () => {};

  /** Begins to listen at once. `onChange` is called after each change, and must not throw. */
  private constructor(deps: { store: Store; watch: JobWatch; onChange: () => void }, job: Job) {
    this.#store = deps.store;
    this.#watch = deps.watch;
    this.#onChange = deps.onChange;
    this.#job = job;
    void this.#listen();
  }

  /** Subscribes before it reads, so that no change falls in between. Null if there is no such job. */
  static async open(
    deps: { store: Store; events: JobBus; clock: Clock },
    options: { jobId: string; onChange?: () => void },
  ): Promise<FollowedJob | null> {
    const { store, events: bus, clock } = deps;
    const watch = new JobWatch({ bus, clock }, options.jobId);
    try {
      const job = await store.getJob(options.jobId);
      if (job) return new FollowedJob({ store, watch, onChange: options.onChange ?? (() => {}) }, job);
    } catch (error) {
      watch.close();
      throw error;
    }
    watch.close();
    return null;
  }

  get job(): Job {
    return this.#job;
  }

  /**
   * Resolves when the job is newer than `version`, or the signal aborts, or after `close`. Only one
   * caller may wait at a time.
   */
  async newerThan(version: number, signal: AbortSignal): Promise<void> {
    const onAbort = (): void => this.#wake();
    signal.addEventListener("abort", onAbort);
    while (this.#job.version <= version && !signal.aborted && !this.#closed.signal.aborted) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    signal.removeEventListener("abort", onAbort);
  }

  close(): void {
    this.#closed.abort();
    this.#watch.close();
    this.#wake();
  }

  async #listen(): Promise<void> {
    const { signal } = this.#closed;
    while (!signal.aborted) {
      const heard = await this.#watch.next(REREAD_MS, signal);
      if (signal.aborted) return;
      const job = heard ?? (await this.#reread());
      if (job === null || job.version <= this.#job.version) continue;
      this.#job = job;
      this.#onChange();
      this.#wake();
    }
  }

  async #reread(): Promise<Job | null> {
    try {
      return await this.#store.getJob(this.#job.id);
    } catch {
      // The database does not answer now; the next round asks again.
      return null;
    }
  }
}
