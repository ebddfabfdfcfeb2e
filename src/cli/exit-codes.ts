/** What the exit code of `hodei` says. Users script against it: add, never change. */

import { constants } from "node:os";
import type { ErrorCode } from "../base/errors.ts";
import type { Job } from "../core/job.ts";

export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  unavailable: 4,
  refused: 5,
  forbidden: 6,
  noRoom: 7,
  timedOut: 124,
  cancelled: 130,
} as const;

export const EXIT_CODE_HELP: readonly { code: string; meaning: string }[] = [
  { code: "0", meaning: "done" },
  {
    code: "1",
    meaning:
      "unexpected failure; the job failed without an exit code; `doctor` or `providers check` found a problem",
  },
  { code: "2", meaning: "the command line or a file is not right; nothing was done" },
  { code: "3", meaning: "there is no such job, worker, pool or provider" },
  { code: "4", meaning: "no server can be reached" },
  { code: "5", meaning: "refused in this state, such as a cancel of a job that has ended" },
  { code: "6", meaning: "not authenticated, or not permitted" },
  { code: "7", meaning: "no room now, such as a submission to a full queue; try again later" },
  { code: "124", meaning: "what `workers drain --wait` waits for took longer than `--timeout`" },
];

/** Of `run`, `watch` and `logs --exit-code`, whose exit code is the job's. */
export const JOB_EXIT_CODE_HELP: readonly { code: string; meaning: string }[] = [
  { code: "0", meaning: "the job succeeded" },
  { code: "n", meaning: "the job's own exit code" },
  { code: "128+n", meaning: "the job was ended by signal n" },
  { code: "124", meaning: "the job timed out" },
  { code: "130", meaning: "the job was cancelled" },
];

const EXIT_OF_ERROR: Readonly<Record<ErrorCode, number>> = {
  invalid_argument: EXIT.usage,
  not_found: EXIT.notFound,
  already_exists: EXIT.refused,
  permission_denied: EXIT.forbidden,
  resource_exhausted: EXIT.noRoom,
  failed_precondition: EXIT.refused,
  unimplemented: EXIT.failure,
  internal: EXIT.failure,
  unavailable: EXIT.unavailable,
  data_loss: EXIT.failure,
  unauthenticated: EXIT.forbidden,
};

export function exitCodeOfError(code: ErrorCode): number {
  return EXIT_OF_ERROR[code];
}

/** Of a job that has ended; 1 for one that has not. */
export function exitCodeOfJob(job: Pick<Job, "state" | "exitCode" | "signal">): number {
  if (job.state === "succeeded") return EXIT.ok;
  if (job.state === "timed_out") return EXIT.timedOut;
  if (job.state === "cancelled") return EXIT.cancelled;
  // An exit code of 0 would call a job good that failed in another way.
  if (job.exitCode) return job.exitCode;
  const signal = job.signal === null ? undefined : constants.signals[job.signal as NodeJS.Signals];
  return signal === undefined ? EXIT.failure : 128 + signal;
}
