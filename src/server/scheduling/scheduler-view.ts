/** What the API sees of scheduling. */

import type { PlanInput, PlannedJob } from "../../core/plan.ts";
import type { QueueConfig } from "../../core/pool.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import type { Worker } from "../../core/worker.ts";

/** Everything that a plan is made from, but for the jobs. Workers include those that take none now. */
export type SchedulingSnapshot = Omit<PlanInput, "jobs">;

export interface QueueState {
  config: QueueConfig;
  isConfigured: boolean;
  running: number;
  /** Since the server started. */
  starts: number;
}

/** The attempt, or why there is none, for people. */
export type HandAssignment = { attemptId: string } | { refusal: string };

export interface SchedulerView {
  /** With these queues. */
  snapshot(queues: Iterable<string>): SchedulingSnapshot;
  /** Queues that are configured or have jobs at work, and `also`; by name. */
  queues(also: readonly string[]): QueueState[];
  /** Stores it, and acts on it from the next round on. */
  configureQueues(change: { set: readonly QueueConfig[]; reset: readonly string[] }): Promise<void>;
  /** The last decision on a job that this server made and still knows. */
  latestDecision(jobId: string): SchedulingDecision | null;
  /** Calls `listener` for each decision until the returned function is called. */
  onDecision(listener: (decision: SchedulingDecision) => void): () => void;
  /** Gives a waiting job to a worker, if it fits there when those who gave jobs away before are done. */
  assignByHand(job: PlannedJob, worker: Pick<Worker, "id" | "state">): Promise<HandAssignment>;
}
