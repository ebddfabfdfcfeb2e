/** The decisions that one reader has not taken yet. */

import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import type { SchedulerView } from "../scheduling/scheduler-view.ts";

/** A reader that is further behind loses the oldest. */
const MAX_BUFFERED = 256;

export interface DecisionFilter {
  /** Only of this queue; all if empty. */
  queue: string;
  /** Only of this job; all if empty. */
  jobId: string;
}

export class DecisionFeed {
  readonly #unsubscribe: () => void;
  #buffered: SchedulingDecision[] = [];
  #lost = 0;
  #wake: () => void = () => {};

  /** @throws AppError `resource_exhausted` if there are too many readers. */
  constructor(scheduler: Pick<SchedulerView, "onDecision">, filter: DecisionFilter) {
    this.#unsubscribe = scheduler.onDecision((decision) => {
      if (filter.queue !== "" && decision.queue !== filter.queue) return;
      if (filter.jobId !== "" && decision.jobId !== filter.jobId) return;
      this.#buffered.push(decision);
      if (this.#buffered.length > MAX_BUFFERED) {
        this.#buffered.shift();
        this.#lost += 1;
      }
      this.#wake();
    });
  }

  /** What has come since the last call, and how many were left out before it; empty after an abort. */
  async next(signal: AbortSignal): Promise<{ lost: number; decisions: SchedulingDecision[] }> {
    const onAbort = (): void => this.#wake();
    signal.addEventListener("abort", onAbort);
    while (this.#buffered.length === 0 && !signal.aborted) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    signal.removeEventListener("abort", onAbort);
    const taken = { lost: this.#lost, decisions: this.#buffered };
    this.#buffered = [];
    this.#lost = 0;
    return taken;
  }

  close(): void {
    this.#unsubscribe();
    this.#wake();
  }
}
