/**
 * Appends to one log by callers that wait for each piece. Those that find no room stand in a line,
 * so that the pieces keep the order in which the calls were made.
 */

import { AppError } from "../../../base/errors.ts";
import type { AppendOutcome, AttemptLog } from "./attempt-log.ts";

/** Bytes of one log that may wait for room; every append counts for some more than its data. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
const APPEND_OVERHEAD_BYTES = 1024;

export type AcceptOutcome = Exclude<AppendOutcome, { refusal: "full" }>;

export class AppendLine {
  #last: Promise<unknown> = Promise.resolve();
  #waitingBytes = 0;

  /** Resolves when every append that waits has been accepted or refused. */
  async idle(): Promise<void> {
    await this.#last;
  }

  /** Accepts the piece now or when its turn has come. The answer comes before it is durable. */
  async accept(attempt: AttemptLog, offset: number, data: Uint8Array): Promise<AcceptOutcome> {
    if (this.#waitingBytes === 0) {
      const outcome = attempt.accept(offset, data);
      if (outcome.ok || outcome.refusal !== "full") return outcome;
    }
    if (this.#waitingBytes >= MAX_WAITING_BYTES) {
      const message = `append to log of attempt ${attempt.attemptId}: too many appends wait`;
      throw new AppError("resource_exhausted", message);
    }
    const bytes = data.byteLength + APPEND_OVERHEAD_BYTES;
    this.#waitingBytes += bytes;
    const turn = this.#last.then(() => acceptWithRoom(attempt, offset, data));
    // The caller sees a failure; the next in line only waits for the end.
    this.#last = turn.catch(() => {});
    return turn.finally(() => (this.#waitingBytes -= bytes));
  }
}

async function acceptWithRoom(attempt: AttemptLog, offset: number, data: Uint8Array): Promise<AcceptOutcome> {
  for (;;) {
    await attempt.room();
    const outcome = attempt.accept(offset, data);
    if (outcome.ok || outcome.refusal !== "full") return outcome;
  }
}
