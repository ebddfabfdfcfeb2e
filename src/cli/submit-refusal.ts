/** What a server says to jobs that it does not take, in the words of the command line. */

import { AppError } from "../base/errors.ts";
import type { ParsedJob } from "../spec/job-file.ts";

const FULL_QUEUE = /: queue (\S+) is full, /;
const FIELD_HINT = /; set `accept_unplaceable`.*$/s;

/**
 * Of several jobs, the one that is meant is named. For one that could never run, the option stands
 * there instead of the field of the API.
 */
export function throwRefusal(error: unknown, batch: readonly ParsedJob[]): never {
  if (!(error instanceof AppError)) throw error;
  const [, full] = FULL_QUEUE.exec(error.message) ?? [];
  if (full !== undefined) {
    const hint = `hodei queue ${full} shows what waits; hodei queue set ${full} --max-pending NUMBER lets more wait`;
    throw new AppError(error.code, error.message.replace(": queue job: ", ": "), {
      cause: error,
      details: { hint },
    });
  }
  if (error.code !== "failed_precondition") throw error;
  const isUnplaceable = FIELD_HINT.test(error.message);
  const message = error.message
    .replace(FIELD_HINT, "")
    .replace(": queue job: ", ": ")
    .replace(/\bjobs\[(\d+)\]: /, (whole: string, index: string) => {
      // Of the only one it is said already which it is.
      if (batch.length === 1) return "";
      const name = batch[Number(index)]?.definition.name;
      return name === undefined ? whole : `job ${name}: `;
    });
  const hint =
    "hodei workers and hodei pools show what there is; --accept-unplaceable queues it all the same";
  throw new AppError(error.code, message, {
    cause: error,
    details: isUnplaceable ? { hint } : error.details,
  });
}
