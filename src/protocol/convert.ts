/**
 * Jobs between the wire and the core. Generated types stop here.
 *
 * From the wire, defaults are filled in, so that the rest of the program never asks "is it set?".
 * Requests have passed the constraints of the proto files before they come here.
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type {
  Attempt,
  AttemptResult,
  Cause,
  FinalJobState,
  Job,
  JobEventRecord,
  JobState,
  Progress,
  ResourceUsage,
  StepOutcome,
  StepResult,
} from "../core/job.ts";
import { definitionFromWire, definitionToWire } from "./convert-definition.ts";
import * as pb from "./gen/hodei/v1/jobs_pb.ts";
import type { AttemptResult as PbAttemptResult } from "./gen/hodei/v1/workers_pb.ts";
import { inverse } from "./inverse.ts";

const JOB_STATE_NUMBER: Record<JobState, pb.JobState> = {
  pending: pb.JobState.PENDING,
  scheduled: pb.JobState.SCHEDULED,
  running: pb.JobState.RUNNING,
  paused: pb.JobState.PAUSED,
  unreachable: pb.JobState.UNREACHABLE,
  cancelling: pb.JobState.CANCELLING,
  succeeded: pb.JobState.SUCCEEDED,
  failed: pb.JobState.FAILED,
  cancelled: pb.JobState.CANCELLED,
  timed_out: pb.JobState.TIMED_OUT,
};

const CAUSE_NUMBER: Record<Cause, pb.Cause> = {
  exit_code: pb.Cause.EXIT_CODE,
  signal: pb.Cause.SIGNAL,
  out_of_memory: pb.Cause.OUT_OF_MEMORY,
  start_failed: pb.Cause.START_FAILED,
  timeout: pb.Cause.TIMEOUT,
  cancelled: pb.Cause.CANCELLED,
  artifact_failed: pb.Cause.ARTIFACT_FAILED,
  log_quota: pb.Cause.LOG_QUOTA,
  invalid: pb.Cause.INVALID,
  worker_lost: pb.Cause.WORKER_LOST,
  provision_failed: pb.Cause.PROVISION_FAILED,
  queue_timeout: pb.Cause.QUEUE_TIMEOUT,
  server_error: pb.Cause.SERVER_ERROR,
  preempted: pb.Cause.PREEMPTED,
};

const STEP_OUTCOME_NUMBER: Record<StepOutcome, pb.StepOutcome> = {
  succeeded: pb.StepOutcome.SUCCEEDED,
  failed: pb.StepOutcome.FAILED,
  skipped: pb.StepOutcome.SKIPPED,
  timed_out: pb.StepOutcome.TIMED_OUT,
  cancelled: pb.StepOutcome.CANCELLED,
};

const jobStateName = inverse(JOB_STATE_NUMBER);
const causeName = inverse(CAUSE_NUMBER);
const stepOutcomeName = inverse(STEP_OUTCOME_NUMBER);

export const jobStateToWire = (state: JobState): pb.JobState => JOB_STATE_NUMBER[state];
export const jobStateFromWire = (state: pb.JobState): JobState => jobStateName(state) ?? "pending";
export const causeToWire = (cause: Cause | null): pb.Cause =>
  cause === null ? pb.Cause.UNSPECIFIED : CAUSE_NUMBER[cause];
export const causeFromWire = (cause: pb.Cause): Cause | null => causeName(cause);

export function timeToWire(timeMs: number | null): Timestamp | undefined {
  return timeMs === null ? undefined : timestampFromMs(timeMs);
}

export function timeFromWire(time: Timestamp | undefined): number | null {
  return time ? timestampMs(time) : null;
}

// ── Jobs and attempts ──────────────────────────────────────────────────────────────────────────

export function jobToWire(job: Job, attempts: readonly Attempt[]): pb.Job {
  return create(pb.JobSchema, {
    id: job.id,
    definition: definitionToWire(job.definition),
    state: jobStateToWire(job.state),
    cause: causeToWire(job.cause),
    message: job.message,
    signal: job.signal ?? "",
    workerId: job.workerId ?? "",
    outputs: job.outputs,
    summary: job.summary,
    attempts: attempts.map(attemptToWire),
    attemptCount: job.attemptCount,
    version: BigInt(job.version),
    pauseWanted: job.pauseWanted,
    createdAt: timestampFromMs(job.createdAtMs),
    ...definedTimes({ startedAt: job.startedAtMs, finishedAt: job.finishedAtMs }),
    ...(job.exitCode === null ? {} : { exitCode: job.exitCode }),
    ...(job.progress ? { progress: progressToWire(job.progress) } : {}),
  });
}

/** What a client knows of an attempt. */
export type AttemptView = Omit<Attempt, "jobId" | "runnerId" | "queuedAtMs">;

/** What a client knows of a job: the parts of `Job` that are on the wire. */
export interface JobView extends Pick<
  Job,
  | "id"
  | "definition"
  | "state"
  | "cause"
  | "message"
  | "exitCode"
  | "signal"
  | "createdAtMs"
  | "startedAtMs"
  | "finishedAtMs"
  | "workerId"
  | "progress"
  | "outputs"
  | "summary"
  | "attemptCount"
  | "version"
  | "pauseWanted"
> {
  attempts: AttemptView[];
}

export function jobFromWire(message: pb.Job): JobView {
  return {
    id: message.id,
    definition: definitionFromWire(message.definition ?? create(pb.JobDefinitionSchema)),
    state: jobStateFromWire(message.state),
    cause: causeFromWire(message.cause),
    message: message.message,
    exitCode: message.exitCode ?? null,
    signal: message.signal || null,
    createdAtMs: timeFromWire(message.createdAt) ?? 0,
    startedAtMs: timeFromWire(message.startedAt),
    finishedAtMs: timeFromWire(message.finishedAt),
    workerId: message.workerId || null,
    progress: message.progress ? progressFromWire(message.progress) : null,
    outputs: message.outputs,
    summary: message.summary,
    attemptCount: message.attemptCount,
    version: Number(message.version),
    pauseWanted: message.pauseWanted,
    attempts: message.attempts.map(attemptFromWire),
  };
}

function attemptToWire(attempt: Attempt): pb.Attempt {
  return create(pb.AttemptSchema, {
    id: attempt.id,
    number: attempt.number,
    workerId: attempt.workerId,
    state: jobStateToWire(attempt.state),
    cause: causeToWire(attempt.cause),
    signal: attempt.signal ?? "",
    message: attempt.message,
    scheduledAt: timestampFromMs(attempt.scheduledAtMs),
    ...definedTimes({ startedAt: attempt.startedAtMs, finishedAt: attempt.finishedAtMs }),
    ...(attempt.exitCode === null ? {} : { exitCode: attempt.exitCode }),
    ...(attempt.usage ? { usage: usageToWire(attempt.usage) } : {}),
    steps: attempt.steps.map(stepResultToWire),
    logBytes: BigInt(attempt.logBytes),
  });
}

function attemptFromWire(message: pb.Attempt): AttemptView {
  return {
    id: message.id,
    number: message.number,
    workerId: message.workerId,
    state: jobStateFromWire(message.state),
    cause: causeFromWire(message.cause),
    exitCode: message.exitCode ?? null,
    signal: message.signal || null,
    message: message.message,
    scheduledAtMs: timeFromWire(message.scheduledAt) ?? 0,
    startedAtMs: timeFromWire(message.startedAt),
    finishedAtMs: timeFromWire(message.finishedAt),
    usage: message.usage ? usageFromWire(message.usage) : null,
    steps: message.steps.map(stepResultFromWire),
    logBytes: Number(message.logBytes),
  };
}

function definedTimes(times: { startedAt: number | null; finishedAt: number | null }): {
  startedAt?: Timestamp;
  finishedAt?: Timestamp;
} {
  return {
    ...(times.startedAt === null ? {} : { startedAt: timestampFromMs(times.startedAt) }),
    ...(times.finishedAt === null ? {} : { finishedAt: timestampFromMs(times.finishedAt) }),
  };
}

export function progressToWire(progress: Progress): pb.JobProgress {
  return create(pb.JobProgressSchema, progress);
}

export function progressFromWire(message: pb.JobProgress): Progress {
  return { percent: message.percent, message: message.message };
}

function usageToWire(usage: ResourceUsage): pb.ResourceUsage {
  return create(pb.ResourceUsageSchema, {
    peakMemoryBytes: wholeNumber(usage.peakMemoryBytes),
    cpuMicros: wholeNumber(usage.cpuMicros),
    ioReadBytes: wholeNumber(usage.ioReadBytes),
    ioWriteBytes: wholeNumber(usage.ioWriteBytes),
    leftoverProcesses: usage.leftoverProcesses,
  });
}

function usageFromWire(message: pb.ResourceUsage): ResourceUsage {
  return {
    peakMemoryBytes: Number(message.peakMemoryBytes),
    cpuMicros: Number(message.cpuMicros),
    ioReadBytes: Number(message.ioReadBytes),
    ioWriteBytes: Number(message.ioWriteBytes),
    leftoverProcesses: message.leftoverProcesses,
  };
}

/** BigInt refuses fractions, and a measured number may have one. */
export function wholeNumber(value: number): bigint {
  return BigInt(Math.max(0, Math.round(value)));
}

function stepResultToWire(step: StepResult): pb.StepResult {
  return create(pb.StepResultSchema, {
    name: step.name,
    outcome: STEP_OUTCOME_NUMBER[step.outcome],
    signal: step.signal ?? "",
    message: step.message,
    ...(step.exitCode === null ? {} : { exitCode: step.exitCode }),
    ...definedTimes({ startedAt: step.startedAtMs, finishedAt: step.finishedAtMs }),
  });
}

function stepResultFromWire(message: pb.StepResult): StepResult {
  return {
    name: message.name,
    outcome: stepOutcomeName(message.outcome) ?? "failed",
    exitCode: message.exitCode ?? null,
    signal: message.signal || null,
    startedAtMs: timeFromWire(message.startedAt),
    finishedAtMs: timeFromWire(message.finishedAt),
    message: message.message,
  };
}

/** The fields of an AttemptResult message; the caller adds the attempt id. */
export function resultToWire(
  result: AttemptResult,
): Omit<PbAttemptResult, "$typeName" | "$unknown" | "attemptId"> {
  return {
    state: jobStateToWire(result.state),
    cause: causeToWire(result.cause),
    signal: result.signal ?? "",
    message: result.message,
    usage: usageToWire(result.usage),
    steps: result.steps.map(stepResultToWire),
    outputs: result.outputs,
    summary: result.summary,
    logEnd: wholeNumber(result.logEnd),
    ...(result.exitCode === null ? {} : { exitCode: result.exitCode }),
    ...definedTimes({ startedAt: result.startedAtMs, finishedAt: result.finishedAtMs }),
  };
}

export function resultFromWire(message: PbAttemptResult): AttemptResult {
  return {
    state: jobStateFromWire(message.state) as FinalJobState,
    cause: causeFromWire(message.cause),
    exitCode: message.exitCode ?? null,
    signal: message.signal || null,
    message: message.message,
    startedAtMs: timeFromWire(message.startedAt),
    finishedAtMs: timeFromWire(message.finishedAt) ?? 0,
    usage: usageFromWire(message.usage ?? create(pb.ResourceUsageSchema)),
    steps: message.steps.map(stepResultFromWire),
    outputs: message.outputs,
    summary: message.summary,
    logEnd: Number(message.logEnd),
  };
}

export function eventToWire(event: JobEventRecord): pb.JobEvent {
  return create(pb.JobEventSchema, {
    sequence: BigInt(event.sequence),
    time: timestampFromMs(event.atMs),
    type: event.type,
    state: jobStateToWire(event.state),
    attemptId: event.attemptId ?? "",
    workerId: event.workerId ?? "",
    message: event.message,
  });
}

export function eventFromWire(message: pb.JobEvent): Omit<JobEventRecord, "jobId"> {
  return {
    sequence: Number(message.sequence),
    atMs: timeFromWire(message.time) ?? 0,
    type: message.type,
    state: jobStateFromWire(message.state),
    attemptId: message.attemptId || null,
    workerId: message.workerId || null,
    message: message.message,
  };
}
