/**
 * Gives waiting jobs to connected workers, says how many workers are missing and which jobs make room,
 * and writes down why the rest waits.
 *
 * One round reads pages of waiting jobs, plans, and carries the plan out. Jobs that fit nowhere now
 * are left out of the next page by their wait key, so that a thousand of them in front never hide the
 * one that fits. Idempotent: a round that dies in the middle is repeated by the next.
 *
 * A round that is asked for reads no more than there is room for. A look at the whole queue, which
 * finds the job that fits behind those that do not, and says of all why they wait, costs the more
 * the longer the queue is, so it takes a small part of the time, yet comes at least once a second.
 */

import type { Service } from "../../base/service.ts";
import { keyKind } from "../../core/plan.ts";
import { Round, type RoundDependencies } from "./scheduling-round.ts";

export interface SchedulingDependencies extends RoundDependencies {
  /** Asks for another round. */
  hint(): void;
  /** A round is over. */
  onRound?(round: { durationMs: number; jobsExamined: number }): void;
}

/** A look at the whole queue takes one part in so many of the time. */
const LOOK_SHARE = 20;
const MAX_LOOK_INTERVAL_MS = 1_000;
/** Wait keys that looks leave out one after the other before they begin again. */
const MAX_SKIPPED = 20_000;
const NONE: ReadonlySet<string> = new Set();

export class Scheduler implements Service {
  readonly #deps: SchedulingDependencies;
  /** Queues and concurrency keys whose jobs were told that they are held up. */
  #heldKeys = new Set<string>();
  #queueCount = 0;
  #skipped: ReadonlySet<string> = new Set();
  #nextLookAtMs = 0;
  #callOffLook: (() => void) | null = null;
  #callOffRetry: () => void = () => {};

  constructor(deps: SchedulingDependencies) {
    this.#deps = deps;
  }

  async round(signal: AbortSignal): Promise<void> {
    const { clock, onRound } = this.#deps;
    const startedAtMs = clock.monotonicMs();
    const isLook = startedAtMs >= this.#nextLookAtMs;
    const skipped = isLook ? this.#skipped : NONE;
    const round = new Round(this.#deps, { isLook, queueCount: this.#queueCount, skipped }, signal);
    await round.run();
    if (round.jobsRead > 0) this.#queueCount = round.queueCount;
    if (isLook && !signal.aborted) {
      this.#skipped = toSkip(round, skipped);
      await this.#storeReasons(round.reasons, skipped);
    }
    const endedAtMs = clock.monotonicMs();
    onRound?.({ durationMs: endedAtMs - startedAtMs, jobsExamined: round.jobsRead });
    if (isLook) {
      this.#nextLookAtMs = endedAtMs + Math.min(MAX_LOOK_INTERVAL_MS, LOOK_SHARE * (endedAtMs - startedAtMs));
    }
    if (signal.aborted) return;
    if (!round.hasReadAll) this.#hintAtNextLook();
    if (isLook || round.hasReadAll) await this.#hintAtNextRetry();
  }

  stop(): Promise<void> {
    this.#callOffLook?.();
    this.#callOffRetry();
    return Promise.resolve();
  }

  /** A queue or key that holds nobody up any more says nothing. */
  async #storeReasons(reasons: Map<string, string>, skipped: ReadonlySet<string>): Promise<void> {
    const held = new Set([...reasons.keys(), ...skipped].filter((key) => keyKind(key) !== "placement"));
    for (const key of this.#heldKeys) if (!held.has(key)) reasons.set(key, "");
    if (reasons.size > 0) await this.#deps.store.setWaitReasons(reasons);
    this.#heldKeys = held;
  }

  #hintAtNextLook(): void {
    const { clock, hint } = this.#deps;
    this.#callOffLook ??= clock.schedule(this.#nextLookAtMs - clock.monotonicMs(), () => {
      this.#callOffLook = null;
      hint();
    });
  }

  /** A retry that becomes due within the period should not wait for its end. */
  async #hintAtNextRetry(): Promise<void> {
    const { store, clock, hint } = this.#deps;
    const nowMs = clock.nowMs();
    const nextMs = await store.nextPendingAtMs(nowMs);
    this.#callOffRetry();
    if (nextMs !== null && nextMs - nowMs < MAX_LOOK_INTERVAL_MS) {
      this.#callOffRetry = clock.schedule(nextMs - nowMs, hint);
    }
  }
}

/** A look that did not come to the end lets the next one go on there, or nobody would ever look behind. */
function toSkip({ isCutShort, reasons }: Round, skipped: ReadonlySet<string>): ReadonlySet<string> {
  const seen = isCutShort ? new Set([...skipped, ...reasons.keys()]) : NONE;
  return seen.size > MAX_SKIPPED ? NONE : seen;
}
