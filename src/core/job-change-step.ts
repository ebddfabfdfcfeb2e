/** What every input to a job has in common: what it is given, and how it is taken or refused. */

import { isFinal, type Attempt, type Job, type JobEventRecord } from "./job.ts";

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

/** It is being ended to make room, and shall wait again. */
export function isPreempted(job: Job): boolean {
  return job.state === "cancelling" && job.cancelCause === "preempted";
}

export function toPending(job: Job, wait: { nowMs: number; delayMs: number }): Job {
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

export function withAttempt(context: ChangeContext, changes: Partial<Attempt>): Attempt | null {
  return context.attempt && { ...context.attempt, ...changes };
}

export function refuse(job: Job): JobChange {
  return { ok: false, refusal: isFinal(job.state) ? "already_final" : "not_possible", job };
}

export function accept(
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
