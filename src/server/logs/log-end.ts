/** Decides whether the log of an ended attempt can be sealed, and what people are told about it. */

import type { Attempt } from "../../core/job.ts";

export type LogEnd =
  /** Its worker may still send the rest. */
  | { isComplete: false }
  /** `note` becomes the last record: every gap is visible in the log. */
  | { isComplete: true; note: string | null };

export function logEnd(
  attempt: Pick<Attempt, "logBytes" | "cause" | "finishedAtMs">,
  known: { lengthBytes: number; missingLogWaitMs: number; nowMs: number },
): LogEnd {
  const missingBytes = attempt.logBytes - known.lengthBytes;
  if (missingBytes > 0) {
    const isAwaited = known.nowMs - (attempt.finishedAtMs ?? 0) < known.missingLogWaitMs;
    if (isAwaited) return { isComplete: false };
    return { isComplete: true, note: `hodei: the last ${missingBytes} bytes of this log never arrived` };
  }
  if (attempt.cause !== "worker_lost" || known.lengthBytes === 0) return { isComplete: true, note: null };
  return { isComplete: true, note: "hodei: the worker was lost; what it wrote after this did not arrive" };
}
