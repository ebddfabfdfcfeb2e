/**
 * Jobs between the wire and the core. Generated types stop here.
 *
 * From the wire, defaults are filled in, so that the rest of the program never asks "is it set?".
 * Requests have passed the constraints of the proto files before they come here.
 */

import { create } from "@bufbuild/protobuf";
import {
  durationFromMs,
  durationMs,
  timestampFromMs,
  timestampMs,
  type Duration,
  type Timestamp,
} from "@bufbuild/protobuf/wkt";
import {
  JOB_DEFAULTS,
  type Attempt,
  type AttemptResult,
  type Cause,
  type CommandSpec,
  type FinalJobState,
  type Job,
  type JobDefinition,
  type JobEventRecord,
  type JobState,
  type Progress,
  type ResourceUsage,
  type Resources,
  type RetryPolicy,
  type Step,
  type StepCondition,
  type StepOutcome,
  type StepResult,
} from "../core/job.ts";
import * as pb from "./gen/hodei/v1/jobs_pb.ts";
import type { AttemptResult as PbAttemptResult } from "./gen/hodei/v1/workers_pb.ts";

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
};

const STEP_CONDITION_NUMBER: Record<StepCondition, pb.StepCondition> = {
  success: pb.StepCondition.SUCCESS,
  failure: pb.StepCondition.FAILURE,
  always: pb.StepCondition.ALWAYS,
};

const STEP_OUTCOME_NUMBER: Record<StepOutcome, pb.StepOutcome> = {
  succeeded: pb.StepOutcome.SUCCEEDED,
  failed: pb.StepOutcome.FAILED,
  skipped: pb.StepOutcome.SKIPPED,
  timed_out: pb.StepOutcome.TIMED_OUT,
  cancelled: pb.StepOutcome.CANCELLED,
};

/** The other direction of a table; null for a number that this version does not know. */
export function inverse<Name extends string>(table: Record<Name, number>): (value: number) => Name | null {
  const names = new Map(Object.entries(table).map(([name, value]) => [value as number, name as Name]));
  return (value) => names.get(value) ?? null;
}

const jobStateName = inverse(JOB_STATE_NUMBER);
const causeName = inverse(CAUSE_NUMBER);
const stepConditionName = inverse(STEP_CONDITION_NUMBER);
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

function durationOr(duration: Duration | undefined, fallbackMs: number): number {
  return duration ? Math.round(durationMs(duration)) : fallbackMs;
}

// ── Definitions ────────────────────────────────────────────────────────────────────────────────

export function definitionFromWire(message: pb.JobDefinition): JobDefinition {
  return {
    name: message.name,
    command: message.command ? commandFromWire(message.command) : null,
    steps: message.steps.map(stepFromWire),
    env: message.env,
    workingDirectory: message.workingDirectory,
    resources: resourcesFromWire(message.resources),
    selector: message.selector,
    timeoutMs: durationOr(message.timeout, JOB_DEFAULTS.timeoutMs),
    queueTimeoutMs: durationOr(message.queueTimeout, JOB_DEFAULTS.queueTimeoutMs),
    graceMs: durationOr(message.grace, JOB_DEFAULTS.graceMs),
    leaseMs: durationOr(message.lease, JOB_DEFAULTS.leaseMs),
    retry: retryFromWire(message.retry),
    priority: message.priority,
    queue: message.queue || JOB_DEFAULTS.queue,
    labels: message.labels,
  };
}

export function definitionToWire(definition: JobDefinition): pb.JobDefinition {
  return create(pb.JobDefinitionSchema, {
    name: definition.name,
    ...(definition.command ? { command: commandToWire(definition.command) } : {}),
    steps: definition.steps.map(stepToWire),
    env: definition.env,
    workingDirectory: definition.workingDirectory,
    resources: resourcesToWire(definition.resources),
    selector: definition.selector,
    timeout: durationFromMs(definition.timeoutMs),
    queueTimeout: durationFromMs(definition.queueTimeoutMs),
    grace: durationFromMs(definition.graceMs),
    lease: durationFromMs(definition.leaseMs),
    retry: retryToWire(definition.retry),
    priority: definition.priority,
    queue: definition.queue,
    labels: definition.labels,
  });
}

function commandFromWire(message: pb.CommandSpec): CommandSpec {
  const { commandType } = message;
  switch (commandType.case) {
    case "shell":
      return { kind: "shell", cmd: commandType.value.cmd, args: commandType.value.args };
    case "script":
      return {
        kind: "script",
        interpreter: commandType.value.interpreter || JOB_DEFAULTS.interpreter,
        content: commandType.value.content,
        safetyHeaders: !commandType.value.noSafetyHeaders,
      };
    case undefined:
      // Unreachable behind the constraints; an empty command then fails at its start.
      return { kind: "shell", cmd: "", args: [] };
  }
}

function commandToWire(command: CommandSpec): pb.CommandSpec {
  if (command.kind === "shell") {
    return create(pb.CommandSpecSchema, {
      commandType: {
        case: "shell",
        value: create(pb.ShellCommandSchema, { cmd: command.cmd, args: command.args }),
      },
    });
  }
  return create(pb.CommandSpecSchema, {
    commandType: {
      case: "script",
      value: create(pb.ScriptCommandSchema, {
        interpreter: command.interpreter,
        content: command.content,
        noSafetyHeaders: !command.safetyHeaders,
      }),
    },
  });
}

function stepFromWire(message: pb.Step): Step {
  return {
    name: message.name,
    command: message.command ? commandFromWire(message.command) : { kind: "shell", cmd: "", args: [] },
    env: message.env,
    workingDirectory: message.workingDirectory,
    condition: stepConditionName(message.condition) ?? "success",
    timeoutMs: message.timeout ? Math.round(durationMs(message.timeout)) : null,
    continueOnError: message.continueOnError,
  };
}

function stepToWire(step: Step): pb.Step {
  return create(pb.StepSchema, {
    name: step.name,
    command: commandToWire(step.command),
    env: step.env,
    workingDirectory: step.workingDirectory,
    condition: STEP_CONDITION_NUMBER[step.condition],
    ...(step.timeoutMs === null ? {} : { timeout: durationFromMs(step.timeoutMs) }),
    continueOnError: step.continueOnError,
  });
}

function resourcesFromWire(message: pb.ResourceRequirements | undefined): Resources {
  return {
    cpuMillis: message?.cpuMillis ?? 0,
    memoryBytes: Number(message?.memoryBytes ?? 0n),
    diskBytes: Number(message?.diskBytes ?? 0n),
    gpu: message?.gpu ?? 0,
  };
}

function resourcesToWire(resources: Resources): pb.ResourceRequirements {
  return create(pb.ResourceRequirementsSchema, {
    cpuMillis: resources.cpuMillis,
    memoryBytes: BigInt(resources.memoryBytes),
    diskBytes: BigInt(resources.diskBytes),
    gpu: resources.gpu,
  });
}

function retryFromWire(message: pb.RetryPolicy | undefined): RetryPolicy {
  return {
    maxRetries: message?.maxRetries ?? JOB_DEFAULTS.maxRetries,
    maxInfrastructureRetries: message?.maxInfrastructureRetries ?? JOB_DEFAULTS.maxInfrastructureRetries,
    backoffMs: durationOr(message?.backoff, JOB_DEFAULTS.backoffMs),
    maxBackoffMs: durationOr(message?.maxBackoff, JOB_DEFAULTS.maxBackoffMs),
    exitCodes: message?.exitCodes ?? [],
  };
}

function retryToWire(retry: RetryPolicy): pb.RetryPolicy {
  return create(pb.RetryPolicySchema, {
    maxRetries: retry.maxRetries,
    maxInfrastructureRetries: retry.maxInfrastructureRetries,
    backoff: durationFromMs(retry.backoffMs),
    maxBackoff: durationFromMs(retry.maxBackoffMs),
    exitCodes: retry.exitCodes,
  });
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
    createdAt: timestampFromMs(job.createdAtMs),
    ...definedTimes({ startedAt: job.startedAtMs, finishedAt: job.finishedAtMs }),
    ...(job.exitCode === null ? {} : { exitCode: job.exitCode }),
    ...(job.progress ? { progress: progressToWire(job.progress) } : {}),
  });
}

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
> {
  attempts: Omit<Attempt, "jobId">[];
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

function attemptFromWire(message: pb.Attempt): Omit<Attempt, "jobId"> {
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
