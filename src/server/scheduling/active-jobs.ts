/**
 * How many jobs are at work, by queue and by concurrency key.
 *
 * Counted in memory from what this server stores, so that a round of scheduling costs no query.
 * `reload` reads the database and puts right whatever a change that nobody told of has left wrong.
 */

import { isFinal, type Job } from "../../core/job.ts";
import type { ActiveJob, Store } from "../../storage/store.ts";

export class ActiveJobs {
  readonly #store: Pick<Store, "listActive">;
  readonly #jobs = new Map<string, ActiveJob>();
  readonly #byQueue = new Map<string, number>();
  readonly #byKey = new Map<string, number>();
  /** Version with which jobs stopped counting since the last reload: what comes late of them is older. */
  readonly #stopped = new Map<string, number>();
  /** Jobs that changed while the database is being read: what was read of them is older. */
  #changed: Set<string> | null = null;

  constructor(store: Pick<Store, "listActive">) {
    this.#store = store;
  }

  /** By concurrency key; what has none at work is missing. */
  get byConcurrencyKey(): ReadonlyMap<string, number> {
    return this.#byKey;
  }

  get queues(): Iterable<string> {
    return this.#byQueue.keys();
  }

  running(queue: string): number {
    return this.#byQueue.get(queue) ?? 0;
  }

  /** A job has changed, and that is stored. */
  noteJob(job: Job): void {
    const known = this.#jobs.get(job.id);
    const knownVersion = known?.version ?? this.#stopped.get(job.id) ?? 0;
    if (knownVersion >= job.version) return;
    this.#changed?.add(job.id);
    if (known) this.#remove(known);
    if (job.state === "pending" || isFinal(job.state)) {
      if (known) this.#stopped.set(job.id, job.version);
      return;
    }
    this.#stopped.delete(job.id);
    const { queue, concurrency } = job.definition;
    this.#add({ jobId: job.id, queue, concurrencyKey: concurrency?.key ?? null, version: job.version });
  }

  async reload(): Promise<void> {
    this.#changed = new Set();
    const before = [...this.#stopped.keys()];
    try {
      const active = new Map((await this.#store.listActive()).map((job) => [job.jobId, job]));
      const isOld = (jobId: string): boolean => this.#changed?.has(jobId) ?? false;
      for (const known of [...this.#jobs.values()]) {
        if (!isOld(known.jobId) && !active.has(known.jobId)) this.#remove(known);
      }
      for (const job of active.values()) if (!isOld(job.jobId) && !this.#jobs.has(job.jobId)) this.#add(job);
      for (const jobId of before) if (!isOld(jobId)) this.#stopped.delete(jobId);
    } finally {
      this.#changed = null;
    }
  }

  #add(job: ActiveJob): void {
    this.#jobs.set(job.jobId, job);
    count(this.#byQueue, job.queue, 1);
    if (job.concurrencyKey !== null) count(this.#byKey, job.concurrencyKey, 1);
  }

  #remove(job: ActiveJob): void {
    this.#jobs.delete(job.jobId);
    count(this.#byQueue, job.queue, -1);
    if (job.concurrencyKey !== null) count(this.#byKey, job.concurrencyKey, -1);
  }
}

function count(counts: Map<string, number>, key: string, change: number): void {
  const next = (counts.get(key) ?? 0) + change;
  if (next > 0) counts.set(key, next);
  else counts.delete(key);
}
