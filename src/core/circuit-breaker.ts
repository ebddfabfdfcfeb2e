/**
 * Whether something that fails is asked again, and how much of it.
 *
 *     closed ──failure──▶ open ──the wait is over──▶ closed, or half-open after failures in a row
 *        ▲                 ▲                                   │
 *        └──── success ────┴───────────── failure ─────────────┘
 *
 * A single transient failure makes a short pause, in which whoever waits can go elsewhere and learns
 * the reason; after it everything goes on as before. After three in a row, or after one that waiting
 * does not mend, the wait is followed by one try at a time. Each failure in a row doubles the wait.
 * Tries that began before the last pause say nothing new: a hundred that fail together count once.
 */

/** What went wrong. */
export interface Failure {
  message: string;
  /** Trying again does not help by itself: no such image, no permission. */
  isPermanent: boolean;
  /** When the try began that failed. */
  triedAtMs: number;
}

/** `failures` in a row; 0 while nothing is wrong, and then `last` is null. */
export interface CircuitBreaker {
  readonly failures: number;
  readonly last: Failure | null;
  /** When the last pause began, and when it ends. */
  readonly openedAtMs: number;
  readonly untilMs: number;
}

export type BreakerState = "closed" | "open" | "half_open";

export const CLOSED_BREAKER: CircuitBreaker = { failures: 0, last: null, openedAtMs: 0, untilMs: 0 };

/** Transient failures in a row after which one try at a time is made. */
const FAILURES_TO_HALF_OPEN = 3;
const MIN_WAIT_MS = 500;
const BASE_WAIT_MS = 1_000;
const MAX_WAIT_MS = 60_000;
/** Somebody mends it by hand and waits for it, and jobs that came meanwhile wait for the answer. */
const MAX_PERMANENT_WAIT_MS = 15_000;

export function breakerState(breaker: CircuitBreaker, nowMs: number): BreakerState {
  if (breaker.last === null) return "closed";
  if (nowMs < breaker.untilMs) return "open";
  const isStubborn = breaker.last.isPermanent || breaker.failures >= FAILURES_TO_HALF_OPEN;
  return isStubborn ? "half_open" : "closed";
}

/** `jitter` is in [0, 1). */
export function afterFailure(
  breaker: CircuitBreaker,
  failure: Failure,
  { nowMs, jitter }: { nowMs: number; jitter: number },
): CircuitBreaker {
  const isOfThisPause = breaker.last !== null && failure.triedAtMs < breaker.openedAtMs;
  // A permanent one is worth knowing even then.
  if (isOfThisPause && (breaker.last.isPermanent || !failure.isPermanent)) return breaker;
  const failures = isOfThisPause ? breaker.failures : breaker.failures + 1;
  const ceilingMs = Math.min(
    failure.isPermanent ? MAX_PERMANENT_WAIT_MS - MIN_WAIT_MS : MAX_WAIT_MS,
    BASE_WAIT_MS * 2 ** Math.min(failures - 1, 30),
  );
  return {
    failures,
    last: failure,
    openedAtMs: nowMs,
    untilMs: nowMs + MIN_WAIT_MS + Math.round(ceilingMs * jitter),
  };
}

/** There is a sign that the trouble may be over: the wait ends, what is known of it stays. */
export function withoutWait(breaker: CircuitBreaker, nowMs: number): CircuitBreaker {
  return { ...breaker, untilMs: Math.min(breaker.untilMs, nowMs) };
}
