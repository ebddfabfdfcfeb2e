/**
 * What this server has done since it started, in plain numbers: the hot paths count here, and nobody
 * pays for a metrics library until somebody scrapes.
 */

import { Histogram } from "../../core/histogram.ts";
import { isFinal, type FinalJobState, type Job } from "../../core/job.ts";

/** Jobs whose end is remembered, so that one that is told twice counts once. */
const MAX_REMEMBERED = 10_000;

export interface EndedCount {
  state: FinalJobState;
  /** Empty for a job that succeeded. */
  cause: string;
  count: number;
}

export class ServerCounts {
  readonly schedulingRounds = new Histogram();
  readonly #ended = new Map<string, EndedCount>();
  /** By job id, the version with which it ended. */
  readonly #remembered = new Map<string, number>();
  #jobsExamined = 0;
  #logBytes = 0;

  /** To be called after each change of a job that this server made; repetitions do no harm. */
  onJobChanged(job: Job): void {
    const { state } = job;
    if (!isFinal(state) || (this.#remembered.get(job.id) ?? 0) >= job.version) return;
    this.#remembered.set(job.id, job.version);
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size > MAX_REMEMBERED && oldest !== undefined) this.#remembered.delete(oldest);
    const cause = job.cause ?? "";
    const key = `${state} ${cause}`;
    const ended = this.#ended.get(key) ?? { state, cause, count: 0 };
    ended.count += 1;
    this.#ended.set(key, ended);
  }

  /** So many more bytes of log are on disk. */
  onLogStored(bytes: number): void {
    this.#logBytes += bytes;
  }

  /** A round of scheduling has looked at so many waiting jobs. */
  onSchedulingRound(round: { durationMs: number; jobsExamined: number }): void {
    this.schedulingRounds.record(round.durationMs);
    this.#jobsExamined += round.jobsExamined;
  }

  /** By state and cause; there are as many as there are causes. */
  get ended(): EndedCount[] {
    return [...this.#ended.values()];
  }

  get jobsExamined(): number {
    return this.#jobsExamined;
  }

  get logBytes(): number {
    return this.#logBytes;
  }
}
