import type { Clock } from "./clock.ts";
import { systemClock } from "./clock.ts";

/**
 * Waits until `predicate` holds, and returns what it returned. For tests and for waiting on another
 * process that gives no signal.
 *
 * @throws Error with `what` if it does not hold within `timeoutMs`.
 */
export async function eventually<T>(
  predicate: () => Promise<T | false | null | undefined> | T | false | null | undefined,
  options: { timeoutMs?: number; intervalMs?: number; what?: string; clock?: Clock } = {},
): Promise<T> {
  const { timeoutMs = 10_000, intervalMs = 10, what = "the condition", clock = systemClock } = options;
  const endMs = clock.monotonicMs() + timeoutMs;
  for (;;) {
    const value = await predicate();
    if (value !== false && value !== null && value !== undefined) return value;
    if (clock.monotonicMs() > endMs) throw new Error(`${what} did not come true within ${timeoutMs} ms`);
    await clock.sleep(intervalMs);
  }
}
