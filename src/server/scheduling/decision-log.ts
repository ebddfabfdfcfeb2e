/** The newest decision on each of the jobs that were decided on last, and who wants to hear of them. */

import { AppError } from "../../base/errors.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";

/** Jobs whose last decision is remembered; of an older one the database still tells where it went. */
const MAX_REMEMBERED = 20_000;
const MAX_LISTENERS = 1_000;

type Listener = (decision: SchedulingDecision) => void;

export class DecisionLog {
  readonly #latest = new Map<string, SchedulingDecision>();
  readonly #listeners = new Set<Listener>();

  latest(jobId: string): SchedulingDecision | null {
    return this.#latest.get(jobId) ?? null;
  }

  /** Told once as long as it stays the same, however often it is made. */
  add(decision: SchedulingDecision): void {
    const before = this.#latest.get(decision.jobId);
    const isNew = before?.kind !== decision.kind || before.reason !== decision.reason;
    // The place in the map is the age.
    this.#latest.delete(decision.jobId);
    this.#latest.set(decision.jobId, isNew ? decision : before);
    const [oldest] = this.#latest.keys();
    if (this.#latest.size > MAX_REMEMBERED && oldest !== undefined) this.#latest.delete(oldest);
    if (!isNew) return;
    // A copy: a listener may call itself off.
    for (const listener of [...this.#listeners]) listener(decision);
  }

  /**
   * Calls `listener`, which must be quick and must not throw, until the returned function is called.
   *
   * @throws AppError `resource_exhausted` if there are too many.
   */
  subscribe(listener: Listener): () => void {
    if (this.#listeners.size >= MAX_LISTENERS) {
      throw new AppError(
        "resource_exhausted",
        `watch scheduling decisions: ${MAX_LISTENERS} watchers are there already`,
      );
    }
    const own: Listener = (decision) => listener(decision);
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }
}
