/**
 * What a plan is made from and what it says: which job goes to which worker, how many workers are
 * missing, which jobs must make room, and why the rest waits. It is made in planner.ts.
 *
 * The caller reads jobs, workers, pools and queues, and carries out what the plan says. Jobs come
 * queue by queue, within a queue in the order in which they should start. Between the queues the
 * higher priority goes first, then the queue whose share is due (fair-share.ts). A job that fits
 * nowhere never holds up the ones behind it, and alike jobs (same `placementKey`) are looked at once
 * when there is no room for them.
 */

import type { ConcurrencyLimit, Resources } from "./job.ts";
import type { Taint } from "./labels.ts";
import type { Placement } from "./placement.ts";
import type { PlacementStrategy, QueueConfig } from "./pool.ts";
import type { WorkerCapacity } from "./worker.ts";

export interface PlannedJob {
  id: string;
  queue: string;
  priority: number;
  pendingSinceMs: number;
  placementKey: string;
  placement: Placement;
  concurrency: ConcurrencyLimit | null;
  /** Its own labels, for preferences of other jobs of the same plan; none if left out. */
  labels?: Record<string, string>;
}

/** What a worker has that a job may ask for; also what a worker of a pool will have. */
export interface Place {
  labels: Record<string, string>;
  taints: readonly Taint[];
  /** Null: not known, because no worker of the pool has been there yet. */
  capabilities: readonly string[] | null;
  /** What it holds when it is empty. */
  capacity: WorkerCapacity;
}

/** An attempt that a worker holds. */
export interface PlacedJob {
  jobId: string;
  attemptId: string;
  priority: number;
  resources: Resources;
  labels: Record<string, string>;
  preemptible: boolean;
  placement: Placement;
  /** It is being ended already: what it takes will be free. */
  isLeaving: boolean;
}

/** A worker that is known, with what is still free on it. */
export interface PlannedWorker extends Place {
  id: string;
  name: string;
  pool: string;
  capabilities: readonly string[];
  free: WorkerCapacity;
  strategy: PlacementStrategy;
  running: readonly PlacedJob[];
  /** Grows with each job that any worker is given; 0 before the first. */
  lastAssigned: number;
  /** Why it takes no job now whatever is free: `it is cordoned`, …; else null. */
  unavailable: string | null;
  /** What has to happen before it takes jobs again, if more is known of it than that. */
  remedy?: string;
}

/** Where workers can be made. */
export interface PlannedPool extends Place {
  name: string;
  /** How many more workers may be made now. */
  room: number;
  /** Workers that were asked for and have not connected yet: jobs may wait for them. */
  arriving: number;
  /** What its provider is at before they can come, such as a download. */
  activity?: string | null;
  /** Its most workers at a time. */
  maxWorkers: number;
  /** Of two pools that fit, the one with the lower rank is taken: by health, cost and start-up time. */
  rank: number;
  /** Why no worker can be made now, if so. */
  problem: string | null;
  /** A problem that waiting does not mend: jobs that waited before `triedAtMs` for this pool alone fail. */
  permanentProblem: { message: string; triedAtMs: number } | null;
}

/** A queue with what it has at work. */
export interface PlannedQueue extends QueueConfig {
  running: number;
  /** How much of its share it has had, see fair-share.ts. */
  pass: number;
}

export interface PlanInput {
  jobs: readonly PlannedJob[];
  workers: readonly PlannedWorker[];
  pools: readonly PlannedPool[];
  /** Every queue that has a job in `jobs`. */
  queues: readonly PlannedQueue[];
  /** How many jobs are at work, by concurrency key; 0 for a key that is missing. */
  concurrency: ReadonlyMap<string, number>;
  /** The number of the last assignment, see `lastAssigned`. */
  assignments: number;
  /** Queues of which `jobs` has the first ones only: nothing is decided that may be due to the others. */
  queuesWithMore?: ReadonlySet<string>;
  /** Of the plan before this one, if it was made for other jobs of the same queues a moment ago. */
  promised?: Promised | null;
}

/** What jobs that wait count on: who plans for others right afterwards must not give it away. */
export interface Promised {
  /** Room on workers where somebody ends, or has ended, others. */
  kept: readonly { workerId: string; resources: Resources }[];
  /** What is left on each worker that is on its way, by pool. */
  machines: ReadonlyMap<string, readonly WorkerCapacity[]>;
  /** How many of them there are, by queue and by concurrency key: they are at work soon. */
  byQueue: ReadonlyMap<string, number>;
  byConcurrencyKey: ReadonlyMap<string, number>;
}

export interface Assignment {
  jobId: string;
  workerId: string;
  /** Why this worker, for people. */
  reason: string;
}

/** Ends attempts so that a job with a higher priority fits on their worker. */
export interface Preemption {
  jobId: string;
  workerId: string;
  victims: { jobId: string; attemptId: string }[];
}

export interface Plan {
  assign: Assignment[];
  /** How many workers to make, by pool, and for which jobs (at most one each). */
  provision: { pool: string; count: number; jobIds: string[] }[];
  preempt: Preemption[];
  /** Jobs that no pool can ever make a worker for. */
  fail: { jobId: string; message: string }[];
  /** Attempts that a NoExecute taint sends away. */
  evict: { jobId: string; attemptId: string; workerId: string; message: string }[];
  /** Why jobs wait, by wait key. */
  reasons: Map<string, WaitReason>;
  /** The shares of the queues after this plan, by queue. */
  passes: Map<string, number>;
  /** By this plan and those before it. */
  promised: Promised;
  /** Jobs that might start were left for the next plan, because those of `queuesWithMore` may go first. */
  isCutOff: boolean;
}

export interface WaitReason {
  /** No worker that is known and no pool could ever take them. */
  impossible: boolean;
  message: string;
}

/**
 * Under what a reason to wait is kept: the placement key, the concurrency key or the queue, because it
 * holds for all jobs that share it.
 */
export const waitKey = {
  placement: (job: Pick<PlannedJob, "placementKey">): string => job.placementKey,
  concurrency: (key: string): string => `concurrency ${key}`,
  queue: (name: string): string => `queue ${name}`,
};

export type WaitKeyKind = keyof typeof waitKey;

/** A placement key is JSON, so that it can be told from the others. */
export function keyKind(key: string): WaitKeyKind {
  if (key.startsWith(waitKey.queue(""))) return "queue";
  return key.startsWith(waitKey.concurrency("")) ? "concurrency" : "placement";
}

/** The queue, the concurrency key or the placement key that a wait key is of. */
export function nameInKey(key: string): string {
  const kind = keyKind(key);
  return kind === "placement" ? key : key.slice(waitKey[kind]("").length);
}
