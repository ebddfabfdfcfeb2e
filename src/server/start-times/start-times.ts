/**
 * Measures how long jobs take to their first output, part by part, as this server sees it.
 *
 * It hears of every job, so it costs a few map operations for each, and one read for each worker. All
 * times are of the server's clock: that of a worker may be wrong. What an earlier server has begun is
 * left out, because not all of it was seen.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { Histogram } from "../../core/histogram.ts";
import { isFinal, type Job } from "../../core/job.ts";
import {
  outputDurations,
  START_PARTS,
  startDurations,
  type StartDurations,
  type StartPart,
  type WorkerTimes,
} from "../../core/start-times.ts";
import type { Store } from "../../storage/store.ts";

export interface StartTimesDependencies {
  store: Pick<Store, "getWorker">;
  clock: Clock;
  log: Logger;
}

export interface StartTimePart {
  name: StartPart;
  count: number;
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
}

/** Attempts that are followed at the same time; of more, the oldest are not measured to their end. */
const MAX_ATTEMPTS = 20_000;
/** Workers that are known to have had a job; one that is forgotten is read again. */
const MAX_WORKERS = 10_000;

interface Followed {
  queuedAtMs: number;
  scheduledAtMs: number;
  startedAtMs: number | null;
  firstByteAtMs: number | null;
  /** It is the first one of its worker. */
  isFirst: boolean;
}

export class StartTimes {
  readonly #deps: StartTimesDependencies;
  readonly #sinceMs: number;
  /** By attempt id. */
  readonly #attempts = new Map<string, Followed>();
  readonly #workers = new Set<string>();
  readonly #histograms = new Map<StartPart, Histogram>(START_PARTS.map((part) => [part, new Histogram()]));

  constructor(deps: StartTimesDependencies) {
    this.#deps = deps;
    this.#sinceMs = deps.clock.nowMs();
  }

  /** To be called after each change of a job that this server made; repetitions do no harm. */
  onJobChanged(job: Job): void {
    const { attemptId, workerId } = job;
    if (attemptId === null || workerId === null) return;
    if (isFinal(job.state) || job.state === "pending") {
      this.#attempts.delete(attemptId);
    } else if (job.state === "scheduled") {
      this.#follow({ ...job, attemptId, workerId });
    } else if (job.startedAtMs !== null) {
      this.#onStarted(attemptId, workerId);
    }
  }

  /** To be called when the log of an attempt has its first bytes. */
  onFirstByte(attemptId: string): void {
    const attempt = this.#attempts.get(attemptId);
    if (!attempt || attempt.firstByteAtMs !== null) return;
    attempt.firstByteAtMs = this.#deps.clock.nowMs();
    this.#recordOutput(attempt);
  }

  /** In the order in which they happen; those without a measurement have a count of 0. */
  parts(): StartTimePart[] {
    return START_PARTS.map((name) => {
      const histogram = this.histogram(name);
      const at = (fraction: number): number => histogram.quantile(fraction) ?? 0;
      return { name, count: histogram.count, p50Ms: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99) };
    });
  }

  histogram(part: StartPart): Histogram {
    return this.#histograms.get(part) as Histogram;
  }

  #follow(job: Pick<Job, "pendingSinceMs" | "notBeforeMs"> & { attemptId: string; workerId: string }): void {
    if (this.#attempts.has(job.attemptId)) return;
    this.#attempts.set(job.attemptId, {
      // The pause before a retry is wanted.
      queuedAtMs: Math.max(job.pendingSinceMs, job.notBeforeMs),
      scheduledAtMs: this.#deps.clock.nowMs(),
      startedAtMs: null,
      firstByteAtMs: null,
      isFirst: !this.#workers.has(job.workerId),
    });
    this.#workers.add(job.workerId);
    dropOldest(this.#attempts, MAX_ATTEMPTS);
    dropOldest(this.#workers, MAX_WORKERS);
  }

  #onStarted(attemptId: string, workerId: string): void {
    const attempt = this.#attempts.get(attemptId);
    if (!attempt || attempt.startedAtMs !== null) return;
    const startedAtMs = this.#deps.clock.nowMs();
    attempt.startedAtMs = startedAtMs;
    this.#recordOutput(attempt);
    const start = { queuedAtMs: attempt.queuedAtMs, scheduledAtMs: attempt.scheduledAtMs, startedAtMs };
    if (attempt.isFirst) {
      void this.#newWorker(workerId).then((worker) => this.#record(startDurations({ ...start, worker })));
    } else {
      this.#record(startDurations({ ...start, worker: null }));
    }
  }

  #recordOutput({ queuedAtMs, startedAtMs, firstByteAtMs }: Followed): void {
    if (startedAtMs === null || firstByteAtMs === null) return;
    this.#record(outputDurations({ queuedAtMs, startedAtMs }, firstByteAtMs));
  }

  /** Null if it was there before this server, or cannot be read: then it counts as there already. */
  async #newWorker(workerId: string): Promise<WorkerTimes | null> {
    const { store, log } = this.#deps;
    try {
      const worker = await store.getWorker(workerId);
      return worker !== null && (worker.registeredAtMs ?? 0) >= this.#sinceMs ? worker : null;
    } catch (error) {
      log.warn({ err: error, workerId }, "could not read how long a worker took to start");
      return null;
    }
  }

  #record(durations: StartDurations): void {
    for (const part of START_PARTS) {
      const durationMs = durations[part];
      if (durationMs !== undefined) this.histogram(part).record(durationMs);
    }
  }
}

/** Maps and sets keep the order in which their keys came. */
function dropOldest(keys: Map<string, unknown> | Set<string>, limit: number): void {
  if (keys.size <= limit) return;
  const [oldest] = keys.keys();
  if (oldest !== undefined) keys.delete(oldest);
}
