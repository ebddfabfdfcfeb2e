/**
 * What an input does to a job: the pure half of the one function that writes job state.
 *
 * The storage calls `changeJob` under the job's row lock and writes what it returns. Whatever is
 * refused here has no effect at all, so a stale, late or repeated message from a worker is
 * harmless wherever it comes from.
 */

import type { JobInput } from "./job-input.ts";
import { nextJobState, type JobTransition } from "./job-state.ts";
import {
  isFinal,
  type Attempt,
  type AttemptResult,
  type Cause,
  type FinalJobState,
  type Job,
  type JobEventRecord,
} from "./job.ts";
import {
  CANCEL_VERIFY_MS,
  PAUSE_MAX_MS,
  START_CONFIRM_MS,
  TIMEOUT_SLACK_MS,
  attemptLeaseMs,
  serverGivesUpAtMs,
} from "./lease.ts";
import { decideRetry } from "./retry.ts";

export type ChangeRefusal = "stale_attempt" | "not_possible" | "already_final" | "succeeded";

export type JobChange =
  | { ok: true; job: Job; attempt: Attempt | null; event: JobEventRecord }
  | { ok: false; refusal: ChangeRefusal; job: Job };

export interface ChangeContext {
  nowMs: number;
  /** In [0, 1), for the backoff of a retry. */
  jitter: number;
  /** The newest attempt of the job, if there is one. */
  attempt: Attempt | null;
}

export function changeJob(job: Job, input: JobInput, context: ChangeContext): JobChange {
  if ("attemptId" in input && input.type !== "assign" && isStale(job, input.attemptId)) {
    return { ok: false, refusal: "stale_attempt", job };
  }
  switch (input.type) {
    case "assign":
      return assign(job, input, context);
    case "start":
      return start(job, input, context);
    case "request_pause":
      return requestPause(job, context);
    case "request_resume":
      return requestResume(job, context);
    case "pause":
    case "resume":
      return simple(job, input.type, context);
    case "refuse_pause":
      return refusePause(job, input.message, context);
    case "disconnect":
      return disconnect(job, input, context);
    case "progress":
      return progress(job, input, context);
    case "finish":
      return finish(job, input.result, context);
    case "lose":
      return lose(job, input, context);
    case "cancel":
      return cancel(job, input, context);
    case "reject":
      return reject(job, input, context);
    case "retry":
      return retryByHand(job, input.force, context);
  }
}

/** A job that waits still names its last attempt, but that one has ended and counts no more. */
function isStale(job: Job, attemptId: string): boolean {
  return attemptId !== job.attemptId || job.state === "pending";
}

function assign(job: Job, input: Extract<JobInput, { type: "assign" }>, context: ChangeContext): JobChange {
  const change = nextJobState(job.state, "assign");
  if (!change.ok || context.nowMs < job.notBeforeMs) return refuse(job);
  const attempt: Attempt = {
    id: input.attemptId,
    jobId: job.id,
    number: job.attemptCount + 1,
    workerId: input.workerId,
    runnerId: input.runnerId ?? "",
    state: "scheduled",
    cause: null,
    exitCode: null,
    signal: null,
    message: "",
    scheduledAtMs: context.nowMs,
    startedAtMs: null,
    finishedAtMs: null,
    usage: null,
    steps: [],
    logBytes: 0,
  };
  const next: Job = {
    ...job,
    state: change.state,
    attemptId: attempt.id,
    attemptCount: attempt.number,
    workerId: attempt.workerId,
    deadlineAtMs: context.nowMs + START_CONFIRM_MS,
    cause: null,
    exitCode: null,
    signal: null,
    message: "",
    startedAtMs: null,
    progress: null,
    cancelCause: null,
    pauseWanted: false,
  };
  return accept(next, attempt, { type: "assigned", nowMs: context.nowMs });
}

function start(job: Job, input: Extract<JobInput, { type: "start" }>, context: ChangeContext): JobChange {
  const change = nextJobState(job.state, "start");
  if (!change.ok) return refuse(job);
  const startedAtMs = job.startedAtMs ?? input.startedAtMs;
  const next: Job = {
    ...job,
    state: change.state,
    startedAtMs,
    deadlineAtMs: change.state === "cancelling" ? job.deadlineAtMs : runningDeadline(job, context.nowMs),
    message: "",
  };
  const type = job.state === "unreachable" ? "reachable" : "started";
  return accept(next, withAttempt(context, { state: change.state, startedAtMs }), {
    type,
    nowMs: context.nowMs,
  });
}

/**
 * The worker keeps the exact time-out, on a clock that stands still while paused; the server's
 * deadline is only for a worker that fails to. It counts from the last resume, which is later than
 * the start, so it never fires before the worker's.
 */
function runningDeadline(job: Job, nowMs: number): number {
  const { timeoutMs, graceMs } = job.definition;
  return nowMs + timeoutMs + graceMs + TIMEOUT_SLACK_MS;
}

/** Only what runs can be frozen; a second request is as good as the first. */
function requestPause(job: Job, context: ChangeContext): JobChange {
  if (job.state !== "running" && job.state !== "paused") return refuse(job);
  return accept({ ...job, pauseWanted: true }, null, { type: "pause_requested", nowMs: context.nowMs });
}

function requestResume(job: Job, context: ChangeContext): JobChange {
  const mayBePaused = job.state === "paused" || (job.pauseWanted && !isFinal(job.state));
  if (!mayBePaused) return refuse(job);
  return accept({ ...job, pauseWanted: false }, null, { type: "resume_requested", nowMs: context.nowMs });
}

function refusePause(job: Job, reason: string, context: ChangeContext): JobChange {
  if (!job.pauseWanted || job.state === "paused" || isFinal(job.state)) return refuse(job);
  const message = `could not be paused: ${reason}`;
  return accept({ ...job, pauseWanted: false, message }, null, {
    type: "pause_refused",
    nowMs: context.nowMs,
    message,
  });
}

function simple(job: Job, transition: "pause" | "resume", context: ChangeContext): JobChange {
  const change = nextJobState(job.state, transition);
  if (!change.ok) return refuse(job);
  const deadlineAtMs =
    change.state === "paused" ? context.nowMs + PAUSE_MAX_MS : runningDeadline(job, context.nowMs);
  const next: Job = { ...job, state: change.state, deadlineAtMs };
  return accept(next, withAttempt(context, { state: change.state }), {
    type: transition === "pause" ? "paused" : "resumed",
    nowMs: context.nowMs,
  });
}

function disconnect(
  job: Job,
  input: Extract<JobInput, { type: "disconnect" }>,
  context: ChangeContext,
): JobChange {
  const change = nextJobState(job.state, "disconnect");
  if (!change.ok) return refuse(job);
  const leaseEndsAtMs = serverGivesUpAtMs(input.heardAtMs, attemptLeaseMs(job.definition));
  const wasKnown = job.state === change.state;
  if (wasKnown && job.deadlineAtMs !== null && leaseEndsAtMs <= job.deadlineAtMs) return refuse(job);
  const next: Job = {
    ...job,
    state: change.state,
    deadlineAtMs: leaseEndsAtMs,
    message: input.message ?? "no heartbeat from the worker; the job may still be running",
  };
  return accept(next, withAttempt(context, { state: change.state }), {
    type: "unreachable",
    nowMs: context.nowMs,
    message: next.message,
  });
}

function progress(
  job: Job,
  input: Extract<JobInput, { type: "progress" }>,
  context: ChangeContext,
): JobChange {
  if (isFinal(job.state)) return { ok: false, refusal: "already_final", job };
  const { percent, message } = input.progress;
  return accept({ ...job, progress: input.progress }, null, {
    type: "progress",
    nowMs: context.nowMs,
    message: `${Math.round(percent)} % ${message}`.trim(),
  });
}

const TRANSITION_OF_RESULT: { readonly [S in FinalJobState]: JobTransition } = {
  succeeded: "succeed",
  failed: "fail",
  timed_out: "time_out",
  cancelled: "confirm_cancel",
};

/** What an end without a cause is taken for: a worker that cannot say is at fault itself. */
const CAUSE_OF_END: { readonly [S in FinalJobState]: Cause | null } = {
  succeeded: null,
  failed: "server_error",
  timed_out: "timeout",
  cancelled: "cancelled",
};

function finish(job: Job, reported: AttemptResult, context: ChangeContext): JobChange {
  const result = resultOf(job, reported);
  const attempt = withAttempt(context, {
    state: result.state,
    cause: result.cause,
    exitCode: result.exitCode,
    signal: result.signal,
    message: result.message,
    startedAtMs: result.startedAtMs ?? context.attempt?.startedAtMs ?? null,
    finishedAtMs: result.finishedAtMs,
    usage: result.usage,
    steps: result.steps,
    logBytes: result.logEnd,
  });
  return endAttempt(job, { attempt, result, context, mayRetry: true });
}

/**
 * What a report comes to. Nobody asked for a cancel unless the job is being cancelled: then its worker
 * was itself told to stop, which is no fault of the job and no wish of its author.
 */
function resultOf(job: Job, reported: AttemptResult): AttemptResult {
  if (reported.state === "cancelled" && job.state === "cancelling" && job.cancelCause === "timeout") {
    return { ...reported, state: "timed_out", cause: "timeout", message: job.cancelReason };
  }
  if (reported.state === "cancelled" && job.state !== "cancelling") {
    return {
      ...reported,
      state: "failed",
      cause: "worker_lost",
      message: "the worker was stopped while the job ran",
    };
  }
  const cause = reported.state === "succeeded" ? null : (reported.cause ?? CAUSE_OF_END[reported.state]);
  return { ...reported, cause };
}

function lose(job: Job, input: Extract<JobInput, { type: "lose" }>, context: ChangeContext): JobChange {
  const result: LostResult = {
    state: lostState(job, input.cause),
    cause: input.cause,
    exitCode: null,
    signal: null,
    message: input.message,
    startedAtMs: job.startedAtMs,
    finishedAtMs: context.nowMs,
    outputs: {},
    summary: "",
  };
  const attempt = withAttempt(context, {
    state: result.state,
    cause: result.cause,
    message: result.message,
    finishedAtMs: context.nowMs,
  });
  return endAttempt(job, { attempt, result, context, mayRetry: input.isFinal !== true });
}

function lostState(job: Job, cause: Cause): FinalJobState {
  if (job.state === "cancelling") return job.cancelCause === "timeout" ? "timed_out" : "cancelled";
  return cause === "timeout" ? "timed_out" : "failed";
}

type LostResult = Omit<AttemptResult, "usage" | "steps" | "logEnd">;

function endAttempt(
  job: Job,
  end: { attempt: Attempt | null; result: LostResult; context: ChangeContext; mayRetry: boolean },
): JobChange {
  const { attempt, result, context, mayRetry } = end;
  const retry =
    job.state === "cancelling" || !mayRetry
      ? ({ retry: false } as const)
      : decideRetry({
          definition: job.definition,
          ended: result,
          userRetries: job.userRetries,
          infrastructureRetries: job.infrastructureRetries,
          jitter: context.jitter,
        });
  const change = nextJobState(job.state, retry.retry ? "requeue" : TRANSITION_OF_RESULT[result.state]);
  if (!change.ok) return refuse(job);

  const ended: Job = {
    ...job,
    cause: result.cause,
    exitCode: result.exitCode,
    signal: result.signal,
    message: result.message,
    startedAtMs: result.startedAtMs ?? job.startedAtMs,
    pauseWanted: false,
  };
  if (retry.retry) {
    const isUser = retry.kind === "user";
    const next = toPending(ended, { nowMs: context.nowMs, delayMs: retry.delayMs });
    next.cause = null;
    next.userRetries += isUser ? 1 : 0;
    next.infrastructureRetries += isUser ? 0 : 1;
    next.message = `attempt ${job.attemptCount} ended with ${describeEnd(result)}; next attempt in ${(retry.delayMs / 1000).toFixed(1)} s`;
    return accept(next, attempt, { type: "requeued", nowMs: context.nowMs, message: next.message });
  }
  const next: Job = {
    ...ended,
    state: change.state,
    finishedAtMs: result.finishedAtMs,
    deadlineAtMs: null,
    outputs: result.outputs,
    summary: result.summary,
  };
  return accept(next, attempt, { type: change.state, nowMs: context.nowMs, message: result.message });
}

function describeEnd(result: LostResult): string {
  if (result.cause === "exit_code") return `exit code ${result.exitCode}`;
  return result.cause ?? result.state;
}

function cancel(
  job: Job,
  { reason, cause = "cancelled" }: Extract<JobInput, { type: "cancel" }>,
  context: ChangeContext,
): JobChange {
  if (isFinal(job.state)) return { ok: false, refusal: "already_final", job };
  const change = nextJobState(job.state, "cancel");
  if (!change.ok) return refuse(job);
  const nowMs = context.nowMs;
  if (change.state === "cancelled") {
    const next: Job = {
      ...job,
      state: "cancelled",
      cause: "cancelled",
      message: reason || "cancelled before it started",
      cancelReason: reason,
      finishedAtMs: nowMs,
      deadlineAtMs: null,
    };
    return accept(next, null, { type: "cancelled", nowMs, message: reason });
  }
  const next: Job = {
    ...job,
    state: "cancelling",
    cancelReason: reason,
    cancelCause: cause,
    pauseWanted: false,
    deadlineAtMs: cancelDeadline(job, nowMs),
  };
  return accept(next, withAttempt(context, { state: "cancelling" }), {
    type: "cancel_requested",
    nowMs,
    message: reason,
  });
}

/** A worker that cannot hear the cancel has until the end of the lease, as without one. */
function cancelDeadline(job: Job, nowMs: number): number {
  const verified = nowMs + job.definition.graceMs + CANCEL_VERIFY_MS;
  if (job.state !== "unreachable" || job.deadlineAtMs === null) return verified;
  return Math.max(verified, job.deadlineAtMs);
}

function reject(job: Job, input: Extract<JobInput, { type: "reject" }>, context: ChangeContext): JobChange {
  if (job.state !== "pending") return refuse(job);
  const next: Job = {
    ...job,
    state: "failed",
    cause: input.cause,
    message: input.message,
    finishedAtMs: context.nowMs,
    deadlineAtMs: null,
  };
  return accept(next, null, { type: "failed", nowMs: context.nowMs, message: input.message });
}

function retryByHand(job: Job, force: boolean, context: ChangeContext): JobChange {
  const change = nextJobState(job.state, "retry");
  if (!change.ok) return refuse(job);
  if (job.state === "succeeded" && !force) return { ok: false, refusal: "succeeded", job };
  const next = toPending(job, { nowMs: context.nowMs, delayMs: 0 });
  next.userRetries = 0;
  next.infrastructureRetries = 0;
  next.cause = null;
  next.exitCode = null;
  next.signal = null;
  next.message = "";
  next.cancelReason = "";
  next.cancelCause = null;
  next.outputs = {};
  next.summary = "";
  return accept(next, null, { type: "retried", nowMs: context.nowMs });
}

function toPending(job: Job, wait: { nowMs: number; delayMs: number }): Job {
  const notBeforeMs = wait.nowMs + wait.delayMs;
  return {
    ...job,
    state: "pending",
    pendingSinceMs: wait.nowMs,
    notBeforeMs,
    deadlineAtMs: notBeforeMs + job.definition.queueTimeoutMs,
    startedAtMs: null,
    finishedAtMs: null,
    progress: null,
    pauseWanted: false,
  };
}

function withAttempt(context: ChangeContext, changes: Partial<Attempt>): Attempt | null {
  return context.attempt && { ...context.attempt, ...changes };
}

function refuse(job: Job): JobChange {
  return { ok: false, refusal: isFinal(job.state) ? "already_final" : "not_possible", job };
}

function accept(
  job: Job,
  attempt: Attempt | null,
  event: { type: string; nowMs: number; message?: string },
): JobChange {
  const next = { ...job, version: job.version + 1 };
  return {
    ok: true,
    job: next,
    attempt,
    event: {
      jobId: job.id,
      sequence: next.version,
      atMs: event.nowMs,
      type: event.type,
      state: next.state,
      attemptId: next.attemptId,
      workerId: next.workerId,
      message: event.message ?? "",
    },
  };
}
