/**
 * Which failures of the database are worth another try, and how long a call has the patience for it:
 * an embedded database that ended is there again in half a second, and one that fails over in a few.
 */

import type { Clock } from "../../base/clock.ts";
import { errorMessage, systemErrorCode } from "../../base/errors.ts";

/** A person who waits for an answer gets one within this time, and a worker is not kept in the dark. */
export const PATIENCE_MS = 5_000;
const FIRST_DELAY_MS = 20;
const MAX_DELAY_MS = 500;

export interface RepeatOptions {
  clock: Clock;
  /** It may take effect twice: then it is also repeated when it is not known whether it did. */
  isIdempotent: boolean;
}

/** Runs `work` again while the database is away, and throws the last failure when patience ends. */
export async function repeating<T>(work: () => Promise<T>, options: RepeatOptions): Promise<T> {
  const { clock, isIdempotent } = options;
  const endMs = clock.monotonicMs() + PATIENCE_MS;
  let delayMs = FIRST_DELAY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const mayRepeat = hadNoEffect(error) || (isIdempotent && isConnectionLost(error));
      if (!mayRepeat || clock.monotonicMs() + delayMs > endMs) throw error;
    }
    await clock.sleep(delayMs);
    delayMs = Math.min(MAX_DELAY_MS, 2 * delayMs);
  }
}

/** Conflicts of transactions, and a connection that could not be opened or was refused. */
const NO_EFFECT = ["40001", "40P01", "ECONNREFUSED", "ENOENT", "53300", "57P03"];

/** Nothing of the statement has taken effect, and the same statement may succeed soon. */
function hadNoEffect(error: unknown): boolean {
  const code = systemErrorCode(error);
  if (code !== null) return NO_EFFECT.includes(code);
  // It had broken before the statement was sent.
  return errorMessage(error).includes("connection error and is not queryable");
}

/** The database, or the way to it, broke while the statement was under way. */
export function isConnectionLost(error: unknown): boolean {
  const code = systemErrorCode(error);
  if (code !== null) return /^(57P01|57P02|08[0-9A-Z]{3}|ECONNRESET|EPIPE)$/.test(code);
  // node-postgres gives it no code.
  return /connection terminated/i.test(errorMessage(error));
}

/** No connection could be made. */
export function isUnreachable(error: unknown): boolean {
  const code = systemErrorCode(error) ?? "";
  return /^(ECONNREFUSED|ENOENT|EACCES|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|53300|57P03)$/.test(
    code,
  );
}
