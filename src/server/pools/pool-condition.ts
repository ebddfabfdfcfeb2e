/** What this server learns of a pool by making its workers: its troubles, its speed, what they can do. */

import type { Clock } from "../../base/clock.ts";
import { AppError, ERROR_CODES, errorMessage } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import {
  afterFailure,
  breakerState,
  CLOSED_BREAKER,
  withoutWait,
  type BreakerState,
  type CircuitBreaker,
  type Failure,
} from "../../core/circuit-breaker.ts";
import type { Worker, WorkerInfo } from "../../core/worker.ts";
import { StartDurations } from "./start-durations.ts";

export class PoolCondition {
  readonly starts = new StartDurations();
  /** What its last worker that registered said it can do; null before the first. */
  capabilities: readonly string[] | null = null;
  readonly #deps: { clock: Clock; random: Random };
  #breaker: CircuitBreaker = CLOSED_BREAKER;

  constructor(deps: { clock: Clock; random: Random }) {
    this.#deps = deps;
  }

  /** Open while no worker is to be made, half-open while one at a time is. */
  get breaker(): BreakerState {
    return breakerState(this.#breaker, this.#deps.clock.nowMs());
  }

  /** The last failure, until a worker registers. */
  get failure(): Failure | null {
    return this.#breaker.last;
  }

  /** When the next worker may be made; null if one may now. */
  get retryAtMs(): number | null {
    return this.breaker === "open" ? this.#breaker.untilMs : null;
  }

  /** `triedAtMs` is when the creation began that failed. */
  noteFailure(error: unknown, triedAtMs: number): void {
    const { clock, random } = this.#deps;
    const failure = { message: errorMessage(error), isPermanent: isPermanent(error), triedAtMs };
    const now = { nowMs: clock.nowMs(), jitter: random.fraction() };
    this.#breaker = afterFailure(this.#breaker, failure, now);
  }

  /** A worker has come, which shows that the pool works: only now is its trouble forgotten. */
  noteSuccess(): void {
    this.#breaker = CLOSED_BREAKER;
  }

  /** What a worker said of itself, and how long it took from the request for it. */
  noteRegistered({ createdAtMs, registeredAtMs }: Worker, info: WorkerInfo | null): void {
    if (info) this.capabilities = info.capabilities;
    if (registeredAtMs !== null) this.starts.add(registeredAtMs - createdAtMs);
  }

  /** What was wrong seems to be over: whoever waits may try now. */
  noteRecovery(): void {
    this.#breaker = withoutWait(this.#breaker, this.#deps.clock.nowMs());
  }
}

/** A provider says by the code of its error whether trying again helps; what else happens may pass. */
function isPermanent(error: unknown): boolean {
  return error instanceof AppError && !ERROR_CODES[error.code].retryable;
}
