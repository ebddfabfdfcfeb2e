/** The states of a job as a table: the only place that says which change is possible. */

import type { JobState } from "./job.ts";

export const JOB_TRANSITIONS = [
  "assign",
  "start",
  "pause",
  "resume",
  "disconnect",
  "cancel",
  "succeed",
  "fail",
  "time_out",
  "confirm_cancel",
  "requeue",
  "retry",
] as const;
/** What can happen to a job, seen from its state. */
export type JobTransition = (typeof JOB_TRANSITIONS)[number];

/** How an attempt may end; the same from every state in which processes may be alive. */
const ENDS = {
  succeed: "succeeded",
  fail: "failed",
  time_out: "timed_out",
  confirm_cancel: "cancelled",
} as const;

/**
 * `start` from `scheduled` is the first sign of the processes; from `unreachable` it is the worker
 * that came back. In `cancelling` a late `start` changes nothing but is no error: the cancel and
 * the start crossed on the wire. A job that is cancelled while its worker is silent stays
 * `cancelling`, and one that is silent for longer stays `unreachable`: only the deadline moves. From
 * `cancelling` back to `pending` goes only a job that had to make room for another one. Only a final
 * state can be retried by hand, and nothing else ever leaves one.
 */
export const NEXT_JOB_STATE: {
  readonly [S in JobState]: { readonly [T in JobTransition]?: JobState };
} = {
  pending: { assign: "scheduled", cancel: "cancelled", fail: "failed" },
  scheduled: {
    start: "running",
    disconnect: "unreachable",
    requeue: "pending",
    cancel: "cancelling",
    ...ENDS,
  },
  running: {
    pause: "paused",
    disconnect: "unreachable",
    requeue: "pending",
    cancel: "cancelling",
    ...ENDS,
  },
  paused: {
    resume: "running",
    disconnect: "unreachable",
    requeue: "pending",
    cancel: "cancelling",
    ...ENDS,
  },
  unreachable: {
    start: "running",
    pause: "paused",
    disconnect: "unreachable",
    requeue: "pending",
    cancel: "cancelling",
    ...ENDS,
  },
  cancelling: { start: "cancelling", disconnect: "cancelling", requeue: "pending", ...ENDS },
  succeeded: { retry: "pending" },
  failed: { retry: "pending" },
  cancelled: { retry: "pending" },
  timed_out: { retry: "pending" },
};

export type StateChange =
  | { ok: true; state: JobState }
  | { ok: false; state: JobState; transition: JobTransition };

/** A refusal is a value, not an exception: late and duplicate messages are normal here. */
export function nextJobState(state: JobState, transition: JobTransition): StateChange {
  const next = NEXT_JOB_STATE[state][transition];
  return next ? { ok: true, state: next } : { ok: false, state, transition };
}
