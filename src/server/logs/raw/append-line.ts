/**
 * Appends to one log by callers that wait for each piece. Those that find no room stand in a line,
 * so that the pieces keep the order in which the calls were made.
 */

import { AppError } from "../../../base/errors.ts";
import type { AppendOutcome, AttemptLog } from "./attempt-log.ts";

/** Appends of one log that may wait for room. */
const MAX_WAITING_APPENDS = 1024;

export type AcceptOutcome = Exclude<AppendOutcome, { refusal: "full" }>;

export class AppendLine {
  #last: Promise<unknown> = Promise.resolve();
  #length = 0;

  /** Accepts the piece now or when its turn has come. The answer comes before it is durable. */
  async accept(attempt: AttemptLog, offset: number, data: Uint8Array): Promise<AcceptOutcome> {
    if (this.#length === 0) {
      const outcome = attempt.accept(offset, data);
      if (outcome.ok || outcome.refusal !== "full") return outcome;
    }
    if (this.#length >= MAX_WAITING_APPENDS) {
      const message = `append to log of attempt ${attempt.attemptId}: too many appends wait`;
      throw new AppError("resource_exhausted", message);
    }
    this.#length += 1;
    const turn = this.#last.then(() => acceptWithRoom(attempt, offset, data));
    // The caller sees a failure; the next in line only waits for the end.
    this.#last = turn.catch(() => {});
    return turn.finally(() => (this.#length -= 1));
  }
}

async function acceptWithRoom(attempt: AttemptLog, offset: number, data: Uint8Array): Promise<AcceptOutcome> {
  for (;;) {
    await attempt.room();
    const outcome = attempt.accept(offset, data);
    if (outcome.ok || outcome.refusal !== "full") return outcome;
  }
}
