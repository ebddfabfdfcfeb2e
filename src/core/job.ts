/**
 * The nouns of a job, as every part of Hodei sees them. Times are milliseconds since the Unix
 * epoch, durations milliseconds; `null` means "there is none", never "unknown".
 */

import type { LabelRequirement, Toleration } from "./labels.ts";

export const JOB_STATES = [
  "pending",
  "scheduled",
  "running",
  "paused",
  "unreachable",
  "cancelling",
  "succeeded",
  "failed",
  "cancelled",
  "timed_out",
] as const;
export type JobState = (typeof JOB_STATES)[number];

export const FINAL_JOB_STATES = ["succeeded", "failed", "cancelled", "timed_out"] as const;
export type FinalJobState = (typeof FINAL_JOB_STATES)[number];

export const USER_CAUSES = [
  "exit_code",
  "signal",
  "out_of_memory",
  "start_failed",
  "timeout",
  "cancelled",
  "artifact_failed",
  "log_quota",
  "invalid",
] as const;
export const INFRASTRUCTURE_CAUSES = [
  "worker_lost",
  "provision_failed",
  "queue_timeout",
  "server_error",
  "preempted",
] as const;
export const CAUSES = [...USER_CAUSES, ...INFRASTRUCTURE_CAUSES] as const;
/** Why a job or attempt ended other than well. Shown to users: append, never rename. */
export type Cause = (typeof CAUSES)[number];

export function isFinal(state: JobState): state is FinalJobState {
  return (FINAL_JOB_STATES as readonly JobState[]).includes(state);
}

export function isInfrastructureCause(cause: Cause): boolean {
  return (INFRASTRUCTURE_CAUSES as readonly Cause[]).includes(cause);
}

/** What to run. A shell command is passed on as it is: no shell looks at its arguments. */
export type CommandSpec =
  | { kind: "shell"; cmd: string; args: string[] }
  | { kind: "script"; interpreter: string; content: string; safetyHeaders: boolean };

export const STEP_CONDITIONS = ["success", "failure", "always"] as const;
export type StepCondition = (typeof STEP_CONDITIONS)[number];

export interface Step {
  name: string;
  command: CommandSpec;
  env: Record<string, string>;
  /** Empty: that of the job. */
  workingDirectory: string;
  condition: StepCondition;
  /** Null: only the time-out of the job applies. */
  timeoutMs: number | null;
  continueOnError: boolean;
}

/** 0 is "no claim". */
export interface Resources {
  cpuMillis: number;
  memoryBytes: number;
  diskBytes: number;
  gpu: number;
}

export interface RetryPolicy {
  maxRetries: number;
  maxInfrastructureRetries: number;
  backoffMs: number;
  maxBackoffMs: number;
  /** If not empty, only these exit codes are retried. */
  exitCodes: number[];
}

export const WORKER_LOST_POLICIES = ["retry", "fail", "wait"] as const;
/**
 * What becomes of a job whose worker is silent until the end of the lease: a new attempt, the end,
 * or no end of the lease at all: only a worker that is known to be gone ends the attempt then.
 */
export type WorkerLostPolicy = (typeof WORKER_LOST_POLICIES)[number];

export const LOG_QUOTA_POLICIES = ["fail", "truncate"] as const;
/** What becomes of a job whose log has reached its quota: it ends, or the rest is not recorded. */
export type LogQuotaPolicy = (typeof LOG_QUOTA_POLICIES)[number];

/**
 * A wish, not a condition: workers with more weight are taken first, those with less (below 0) last.
 * It is for workers with such labels or for workers that run jobs with such labels.
 */
export interface PlacementPreference {
  /** -100 to 100. */
  weight: number;
  /** Fulfilled by a worker whose labels fulfil all of these; empty if it is about jobs. */
  workerLabels: LabelRequirement[];
  /** Fulfilled by a worker that runs a job with all of these labels; empty if it is about workers. */
  jobLabels: Record<string, string>;
}

/** Of all jobs with one key, over all queues, no more than `limit` run at the same time. */
export interface ConcurrencyLimit {
  key: string;
  limit: number;
}

/** A job as it was submitted, with defaults filled in. Either `command` or `steps` is set. */
export interface JobDefinition {
  name: string;
  command: CommandSpec | null;
  steps: Step[];
  env: Record<string, string>;
  /** Relative to the workspace, or absolute; empty: the workspace itself. */
  workingDirectory: string;
  resources: Resources;
  /** Labels that the worker must have. Zone, provider and pool of a worker are labels too. */
  selector: Record<string, string>;
  /** More conditions on the labels of the worker. */
  selectorExpressions: LabelRequirement[];
  /** Which taints of a worker the job accepts. */
  tolerations: Toleration[];
  /** What the worker must be able to do, such as `pause`. */
  capabilities: string[];
  preferences: PlacementPreference[];
  concurrency: ConcurrencyLimit | null;
  /** The job may be ended and queued again for one with a higher priority. */
  preemptible: boolean;
  timeoutMs: number;
  queueTimeoutMs: number;
  graceMs: number;
  leaseMs: number;
  onWorkerLost: WorkerLostPolicy;
  retry: RetryPolicy;
  /** Of one attempt, in bytes of output. */
  logQuotaBytes: number;
  onLogQuota: LogQuotaPolicy;
  priority: number;
  queue: string;
  labels: Record<string, string>;
}

/** What a definition gets where its author said nothing. */
export const JOB_DEFAULTS = {
  timeoutMs: 60 * 60_000,
  queueTimeoutMs: 24 * 60 * 60_000,
  graceMs: 10_000,
  leaseMs: 15 * 60_000,
  onWorkerLost: "retry",
  logQuotaBytes: 4 * 1024 ** 3,
  onLogQuota: "fail",
  queue: "default",
  interpreter: "bash",
  maxRetries: 0,
  maxInfrastructureRetries: 2,
  backoffMs: 1_000,
  maxBackoffMs: 5 * 60_000,
} as const;

/** A definition with the default of everything that is left out. */
export function definitionWith(
  given: Partial<Omit<JobDefinition, "retry">> & { name: string; retry?: Partial<RetryPolicy> },
): JobDefinition {
  return {
    command: null,
    steps: [],
    env: {},
    workingDirectory: "",
    resources: { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 },
    selector: {},
    selectorExpressions: [],
    tolerations: [],
    capabilities: [],
    preferences: [],
    concurrency: null,
    preemptible: false,
    timeoutMs: JOB_DEFAULTS.timeoutMs,
    queueTimeoutMs: JOB_DEFAULTS.queueTimeoutMs,
    graceMs: JOB_DEFAULTS.graceMs,
    leaseMs: JOB_DEFAULTS.leaseMs,
    onWorkerLost: JOB_DEFAULTS.onWorkerLost,
    logQuotaBytes: JOB_DEFAULTS.logQuotaBytes,
    onLogQuota: JOB_DEFAULTS.onLogQuota,
    priority: 0,
    queue: JOB_DEFAULTS.queue,
    labels: {},
    ...given,
    retry: {
      maxRetries: JOB_DEFAULTS.maxRetries,
      maxInfrastructureRetries: JOB_DEFAULTS.maxInfrastructureRetries,
      backoffMs: JOB_DEFAULTS.backoffMs,
      maxBackoffMs: JOB_DEFAULTS.maxBackoffMs,
      exitCodes: [],
      ...given.retry,
    },
  };
}

/** What an attempt used; 0 where it could not be measured. */
export interface ResourceUsage {
  peakMemoryBytes: number;
  cpuMicros: number;
  ioReadBytes: number;
  ioWriteBytes: number;
  /** Processes that outlived the command and were killed. */
  leftoverProcesses: number;
}

export const STEP_OUTCOMES = ["succeeded", "failed", "skipped", "timed_out", "cancelled"] as const;
export type StepOutcome = (typeof STEP_OUTCOMES)[number];

export interface StepResult {
  name: string;
  outcome: StepOutcome;
  exitCode: number | null;
  signal: string | null;
  startedAtMs: number | null;
  finishedAtMs: number | null;
  message: string;
}

/** How an attempt ended, as its worker reports it. */
export interface AttemptResult {
  state: FinalJobState;
  cause: Cause | null;
  exitCode: number | null;
  signal: string | null;
  message: string;
  startedAtMs: number | null;
  finishedAtMs: number;
  usage: ResourceUsage;
  steps: StepResult[];
  outputs: Record<string, string>;
  summary: string;
  /** Length of the whole log, in bytes as stored. */
  logEnd: number;
}

export type CancelCause = Extract<Cause, "cancelled" | "timeout" | "preempted">;

export interface Progress {
  percent: number;
  message: string;
}

/** One try to run a job. */
export interface Attempt {
  id: string;
  jobId: string;
  number: number;
  workerId: string;
  /** The runner that it was sent to; empty if that is not known. */
  runnerId: string;
  state: JobState;
  cause: Cause | null;
  exitCode: number | null;
  signal: string | null;
  message: string;
  /** Since when the job waited for this attempt. */
  queuedAtMs: number;
  scheduledAtMs: number;
  startedAtMs: number | null;
  finishedAtMs: number | null;
  usage: ResourceUsage | null;
  steps: StepResult[];
  logBytes: number;
}

/** A job and what became of it. */
export interface Job {
  id: string;
  definition: JobDefinition;
  /** Equal for jobs that fit on the same workers; see `placementKey`. */
  placementKey: string;
  state: JobState;
  cause: Cause | null;
  /** What went wrong, or why it waits. */
  message: string;
  exitCode: number | null;
  signal: string | null;
  createdAtMs: number;
  /** Since when it waits: submission, or the end of the attempt before. */
  pendingSinceMs: number;
  /** Not before this time may the next attempt begin. */
  notBeforeMs: number;
  startedAtMs: number | null;
  finishedAtMs: number | null;
  /** When the present state must have ended; null only in final states. */
  deadlineAtMs: number | null;
  /** The newest attempt, and while the job has not ended the only valid one. */
  attemptId: string | null;
  attemptCount: number;
  workerId: string | null;
  userRetries: number;
  infrastructureRetries: number;
  progress: Progress | null;
  outputs: Record<string, string>;
  summary: string;
  cancelReason: string;
  /**
   * Why it is being ended: somebody asked for it, its time is over and its worker let it run, or a job
   * with a higher priority needs the place.
   */
  cancelCause: CancelCause | null;
  /** Somebody asked for a pause; the worker may not have done it yet. */
  pauseWanted: boolean;
  /** Grows by one with every change. */
  version: number;
}

/** One line of a job's history. */
export interface JobEventRecord {
  jobId: string;
  /** The job's version after the event, so 1 is "queued". */
  sequence: number;
  atMs: number;
  type: string;
  state: JobState;
  attemptId: string | null;
  workerId: string | null;
  message: string;
}
