/** Decides whether the log of an ended attempt can be sealed, and what people are told about it. */

import type { Attempt } from "../../core/job.ts";
import type { LogGap } from "../../core/log-gap.ts";

export type LogEnd =
  /** Its worker may still send the rest. */
  | { isComplete: false }
  /** `gap` becomes the last record: nothing is missing without a word. */
  | { isComplete: true; gap: LogGap | null };

export function logEnd(
  attempt: Pick<Attempt, "logBytes" | "cause" | "startedAtMs" | "finishedAtMs">,
  known: { lengthBytes: number; missingLogWaitMs: number; nowMs: number },
): LogEnd {
  const missingBytes = attempt.logBytes - known.lengthBytes;
  if (missingBytes > 0) {
    const isAwaited = known.nowMs - (attempt.finishedAtMs ?? 0) < known.missingLogWaitMs;
    if (isAwaited) return { isComplete: false };
    return { isComplete: true, gap: { reason: "not_received", bytes: missingBytes, limitBytes: null } };
  }
  const mayHavePrinted = attempt.startedAtMs !== null || known.lengthBytes > 0;
  if (attempt.cause !== "worker_lost" || !mayHavePrinted) return { isComplete: true, gap: null };
  return { isComplete: true, gap: { reason: "worker_lost", bytes: null, limitBytes: null } };
}
