/** What can happen to a job, as a value: the input of `changeJob`. */

import type { AttemptResult, CancelCause, Cause, Progress } from "./job.ts";

/** Something that happened to a job. Whatever carries an `attemptId` is refused if it is stale. */
export type JobInput =
  | { type: "assign"; attemptId: string; workerId: string; runnerId?: string }
  | { type: "start"; attemptId: string; startedAtMs: number }
  /** Somebody wants its processes frozen; the worker is told as long as it has not done it. */
  | { type: "request_pause" }
  | { type: "request_resume" }
  /** The worker says that the processes are frozen, or that they run again. */
  | { type: "pause"; attemptId: string }
  | { type: "resume"; attemptId: string }
  /** The worker says that it cannot freeze them. */
  | { type: "refuse_pause"; attemptId: string; message: string }
  /** Its worker was last heard at `heardAtMs` and is silent. */
  | { type: "disconnect"; attemptId: string; heardAtMs: number; message?: string }
  | { type: "progress"; attemptId: string; progress: Progress }
  /** The worker reports the end, its processes verified gone. */
  | { type: "finish"; attemptId: string; result: AttemptResult }
  /**
   * The attempt is given up: its lease ran out, or its provider says that the worker is gone. With
   * `isFinal` there is no new attempt, because nobody knows that the old one is dead.
   */
  | { type: "lose"; attemptId: string; cause: Cause; message: string; isFinal?: boolean }
  | { type: "cancel"; reason: string; cause?: CancelCause }
  /** The job itself cannot go on while it waits: queue time-out, permanent provider error. */
  | { type: "reject"; cause: Cause; message: string }
  | { type: "retry"; force: boolean };
