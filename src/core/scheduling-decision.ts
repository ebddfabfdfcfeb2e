/** What the scheduler decides on jobs, as people see it. */

export type DecisionKind =
  | "assigned"
  | "provisioning"
  | "preempting"
  | "waiting"
  | "impossible"
  | "failed"
  | "ended";

/** What was decided on one job, and why. */
export interface SchedulingDecision {
  /** Empty for a dry run. */
  jobId: string;
  queue: string;
  kind: DecisionKind;
  reason: string;
  atMs: number;
  workerId: string | null;
  pool: string | null;
}
