/**
 * What an input does to a job: the pure half of the one function that writes job state.
 *
 * The storage calls `changeJob` under the job's row lock and writes what it returns. Whatever is
 * refused here has no effect at all, so a stale, late or repeated message from a worker is
 * harmless wherever it comes from.
 */

import { accept, isPreempted, refuse, toPending, withAttempt } from "./job-change-step.ts";
import type { ChangeContext, JobChange } from "./job-change-step.ts";
import { finish, lose } from "./job-end.ts";
import type { JobInput } from "./job-input.ts";
import { nextJobState } from "./job-state.ts";
import { isFinal, type Attempt, type Job } from "./job.ts";
import {
  CANCEL_VERIFY_MS,
  PAUSE_MAX_MS,
  START_CONFIRM_MS,
  TIMEOUT_SLACK_MS,
  attemptLeaseMs,
  serverGivesUpAtMs,
} from "./lease.ts";

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
    queuedAtMs: job.pendingSinceMs,
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

function cancel(
  job: Job,
  { reason, cause = "cancelled" }: Extract<JobInput, { type: "cancel" }>,
  context: ChangeContext,
): JobChange {
  if (isFinal(job.state)) return { ok: false, refusal: "already_final", job };
  const nowMs = context.nowMs;
  if (isPreempted(job) && cause === "cancelled") {
    // It is being ended already; now it shall not wait again.
    const next: Job = { ...job, cancelReason: reason, cancelCause: cause };
    return accept(next, null, { type: "cancel_requested", nowMs, message: reason });
  }
  const change = nextJobState(job.state, "cancel");
  if (!change.ok || (change.state === "cancelled" && cause === "preempted")) return refuse(job);
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
