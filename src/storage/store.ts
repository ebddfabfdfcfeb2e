/**
 * The only door to the database.
 *
 * `postgres` is the real one; `memory` serves the simulation and tests. Both pass the conformance
 * suite, which is the full statement of what is promised here. Calls that arrive together share a
 * statement where that helps (submissions, inputs, heartbeats); each call still succeeds or fails
 * by itself unless it says otherwise.
 *
 * Every method rejects with `AppError("unavailable")` while the database cannot be reached, and
 * has then either taken effect as a whole or not at all.
 */

import type { ChangeRefusal } from "../core/job-change-step.ts";
import type { JobInput } from "../core/job-input.ts";
import type {
  Attempt,
  Cause,
  ConcurrencyLimit,
  Job,
  JobDefinition,
  JobEventRecord,
  JobState,
} from "../core/job.ts";
import type { Placement } from "../core/placement.ts";
import type { PoolDefinition, QueueConfig, StoredPool } from "../core/pool.ts";
import type { Worker, WorkerInfo, WorkerState, WorkerUsage } from "../core/worker.ts";

export interface NewJob {
  id: string;
  definition: JobDefinition;
  idempotencyKey: string | null;
  nowMs: number;
}

/** `created` is false if the idempotency key was known: then `jobId` is the older job's. */
export interface InsertedJob {
  jobId: string;
  created: boolean;
}

/** One input to one job. */
export interface JobInputRecord {
  jobId: string;
  input: JobInput;
  nowMs: number;
}

export type AppliedInput =
  | { ok: true; job: Job; event: JobEventRecord }
  | { ok: false; refusal: ChangeRefusal | "not_found"; job: Job | null };

export interface JobFilter {
  states?: readonly JobState[];
  causes?: readonly Cause[];
  queue?: string;
  name?: string;
  labels?: Record<string, string>;
  createdAfterMs?: number;
  createdBeforeMs?: number;
}

/** A page, newest first. `cursor` is the id of the last item of the page before. */
export interface PageRequest {
  limit: number;
  cursor: string | null;
}

export interface Page<T> {
  items: T[];
  /** Null on the last page. */
  nextCursor: string | null;
}

export type ResolvedId =
  | { found: "one"; id: string }
  | { found: "none" }
  /** At most five of the ids that begin like this. */
  | { found: "many"; examples: string[] };

/** What the scheduler needs to know of a job that waits. */
export interface PendingJob {
  id: string;
  queue: string;
  priority: number;
  pendingSinceMs: number;
  placementKey: string;
  placement: Placement;
  concurrency: ConcurrencyLimit | null;
}

/** Which waiting jobs are read: of each queue its first ones, without those that are known to be held up. */
export interface PendingQuery {
  nowMs: number;
  /** Jobs of one queue. */
  perQueue: number;
  withoutKeys: readonly string[];
  withoutQueues: readonly string[];
  withoutConcurrencyKeys: readonly string[];
}

/** A job that is at work: not waiting and not ended. */
export interface ActiveJob {
  jobId: string;
  queue: string;
  concurrencyKey: string | null;
  /** The job's version when it was read. */
  version: number;
}

export interface QueueBacklog {
  queue: string;
  pending: number;
  oldestPendingSinceMs: number;
}

/** A job whose state has outlived its deadline. */
export interface DueJob {
  jobId: string;
  state: JobState;
  attemptId: string | null;
  workerId: string | null;
  deadlineAtMs: number;
}

/** An attempt that has not ended, with the job it belongs to. */
export interface LiveAttempt {
  attempt: Attempt;
  job: Job;
}

export interface NewWorker {
  id: string;
  name: string;
  provider: string;
  pool: string;
  nowMs: number;
  /** False if left out. */
  takesOneJob?: boolean;
  /** Null for a worker that needs no token. */
  token: { hash: string; expiresAtMs: number } | null;
}

export interface WorkerFilter {
  includeTerminated: boolean;
  /** Only workers that were last heard before this time; those never heard are left out. */
  heardBeforeMs?: number;
}

export interface Registration {
  tokenHash: string;
  /** The worker's own key: the same token may be used again with the same key. */
  registrationKey: string;
  sessionTokenHash: string;
  info: WorkerInfo;
  nowMs: number;
}

export type RegisterOutcome =
  | { ok: true; worker: Worker }
  | { ok: false; refusal: "unknown_token" | "used_token" | "expired_token" | "wrong_worker" };

export interface WorkerChange {
  workerId: string;
  state?: WorkerState;
  message?: string;
  info?: WorkerInfo;
  usage?: WorkerUsage | null;
  lastHeartbeatAtMs?: number;
  madeAtMs?: number;
  cordoned?: boolean;
}

/** Where the finished log of an attempt lies. */
export interface SealedLog {
  attemptId: string;
  /** Length of the log, uncompressed. */
  logBytes: number;
  /** Key in the blob store; null if the log is empty. */
  blobKey: string | null;
  /** SHA-256 of the blob, hex. */
  digest: string | null;
}

export interface Store {
  /** In the order of the call; one statement for all, so all or none are stored. */
  insertJobs(jobs: readonly NewJob[]): Promise<InsertedJob[]>;
  /**
   * Applies an input to a job under its row lock with `changeJob` of core, writes job, attempt and
   * event in one transaction, and returns what became of it. Inputs of one job keep their order.
   */
  applyInput(record: JobInputRecord): Promise<AppliedInput>;

  /** The jobs that were submitted with these idempotency keys, by key; unknown keys are missing. */
  findByIdempotencyKeys(keys: readonly string[]): Promise<Map<string, string>>;
  getJob(jobId: string): Promise<Job | null>;
  /** `prefix` is lower case, 4 to 36 characters of `[0-9a-f-]`. */
  resolveJobId(prefix: string): Promise<ResolvedId>;
  /** Newest first, by id. */
  listJobs(filter: JobFilter, page: PageRequest): Promise<Page<Job>>;
  /** Oldest first. Empty for an unknown job. */
  listAttempts(jobId: string): Promise<Attempt[]>;
  /** The newest attempt of each of these jobs that has one, by job id. */
  latestAttempts(jobIds: readonly string[]): Promise<Map<string, Attempt>>;
  getAttempt(attemptId: string): Promise<Attempt | null>;
  /** Oldest first. */
  listEvents(jobId: string, afterSequence: number): Promise<JobEventRecord[]>;

  /**
   * Jobs that may start now. Within a queue highest priority first, then oldest; queues by name. The
   * cost grows with the number of queues that have waiting jobs, not with the number of jobs.
   */
  listPending(query: PendingQuery): Promise<PendingJob[]>;
  /** All jobs that are at work, in any order. */
  listActive(): Promise<ActiveJob[]>;
  /** Queues in which jobs wait, by name. */
  listBacklogs(): Promise<QueueBacklog[]>;
  /** How many waiting jobs of its queue go before a waiting job. */
  countAhead(job: Job): Promise<number>;
  /** The earliest `notBeforeMs` after `nowMs` among pending jobs: when to look again. */
  nextPendingAtMs(nowMs: number): Promise<number | null>;
  /**
   * Stores why jobs wait, by wait key (see `waitKey` in core/plan.ts), where it differs; an empty reason
   * removes it. A waiting job shows the reason of its queue if there is one, else that of its
   * concurrency key, else that of its placement key, after what its own message says.
   */
  setWaitReasons(reasons: ReadonlyMap<string, string>): Promise<void>;
  /** Jobs past their deadline, longest first. */
  listDue(options: { nowMs: number; limit: number }): Promise<DueJob[]>;
  /** Attempts of a worker that have not ended, oldest first. */
  listLiveAttempts(workerId: string): Promise<LiveAttempt[]>;

  insertWorker(worker: NewWorker): Promise<Worker>;
  /** Until when a worker's token is valid; it counts from the moment when its instance runs. */
  setTokenExpiry(workerId: string, expiresAtMs: number): Promise<void>;
  /** Uses up a one-time token. */
  registerWorker(registration: Registration): Promise<RegisterOutcome>;
  /** The worker that holds this session, unless it is terminated. */
  findWorkerBySession(sessionTokenHash: string): Promise<Worker | null>;
  /**
   * Applies to workers that exist and are not terminated; silently skips others. One that is broken
   * or draining keeps its state and message until its end, see `keepsWorkerState`.
   */
  changeWorker(change: WorkerChange): Promise<void>;
  getWorker(workerId: string): Promise<Worker | null>;
  resolveWorkerId(prefix: string): Promise<ResolvedId>;
  listWorkers(filter: WorkerFilter, page: PageRequest): Promise<Page<Worker>>;

  /** By name, with those that are being deleted. */
  listPools(): Promise<StoredPool[]>;
  /** Makes or replaces pools, all or none; one that was being deleted is there again. */
  putPools(pools: readonly PoolDefinition[], nowMs: number): Promise<void>;
  /** Marks pools as being deleted; unknown ones are skipped. */
  markPoolsDeleting(names: readonly string[], nowMs: number): Promise<void>;
  /** Forgets a pool that is being deleted. */
  removePool(name: string): Promise<void>;

  /** Queues that somebody configured, by name. */
  listQueues(): Promise<QueueConfig[]>;
  /** Sets the first and forgets the second, all or none. */
  configureQueues(change: { set: readonly QueueConfig[]; reset: readonly string[] }): Promise<void>;

  /** Remembers where the log of an attempt was sealed. */
  setSealedLog(log: SealedLog): Promise<void>;
  getSealedLog(attemptId: string): Promise<SealedLog | null>;
  /** Ended attempts whose log is not sealed yet, oldest first. */
  listUnsealed(limit: number): Promise<Attempt[]>;

  /** Such as `PostgreSQL 18.4` or `memory`. */
  version(): Promise<string>;
  /** Resolves if the database answers. */
  ping(): Promise<void>;
  /** Waits for calls under way, then lets go of the database. May be called twice. */
  close(): Promise<void>;
}
