/** How an attempt ends, and what then becomes of its job: the end, or another attempt. */

import { accept, isPreempted, refuse, toPending, withAttempt } from "./job-change-step.ts";
import type { ChangeContext, JobChange } from "./job-change-step.ts";
import type { JobInput } from "./job-input.ts";
import { nextJobState, type JobTransition } from "./job-state.ts";
import type { Attempt, AttemptResult, Cause, FinalJobState, Job } from "./job.ts";
import { decideRetry } from "./retry.ts";

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

export function finish(job: Job, reported: AttemptResult, context: ChangeContext): JobChange {
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
  if (reported.state === "cancelled" && isPreempted(job)) {
    return { ...reported, state: "failed", cause: "preempted", message: job.cancelReason };
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

export function lose(
  job: Job,
  input: Extract<JobInput, { type: "lose" }>,
  context: ChangeContext,
): JobChange {
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
  if (isPreempted(job)) return "failed";
  if (job.state === "cancelling") return job.cancelCause === "timeout" ? "timed_out" : "cancelled";
  return cause === "timeout" ? "timed_out" : "failed";
}

type LostResult = Omit<AttemptResult, "usage" | "steps" | "logEnd">;

function endAttempt(
  job: Job,
  end: { attempt: Attempt | null; result: LostResult; context: ChangeContext; mayRetry: boolean },
): JobChange {
  const { attempt, result, context, mayRetry } = end;
  if (isPreempted(job) && result.cause === "preempted") {
    return waitAgain(job, { attempt, result, context });
  }
  const isCancelled = job.state === "cancelling" && !isPreempted(job);
  const retry =
    isCancelled || !mayRetry
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

/** It did nothing wrong: the end of this attempt counts for no budget. */
function waitAgain(
  job: Job,
  { attempt, result, context }: { attempt: Attempt | null; result: LostResult; context: ChangeContext },
): JobChange {
  const { nowMs } = context;
  const message = `attempt ${job.attemptCount} was ended: ${job.cancelReason}`;
  const next: Job = {
    ...toPending(job, { nowMs, delayMs: 0 }),
    cause: null,
    exitCode: result.exitCode,
    signal: result.signal,
    message,
    cancelReason: "",
    cancelCause: null,
  };
  return accept(next, attempt, { type: "requeued", nowMs, message });
}

function describeEnd(result: LostResult): string {
  if (result.cause === "exit_code") return `exit code ${result.exitCode}`;
  return result.cause ?? result.state;
}
