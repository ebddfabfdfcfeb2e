/** A timer that stands still while it is paused: the time-out of a job that may be frozen. */

import type { Clock } from "../base/clock.ts";

export class PausableTimer {
  readonly #clock: Clock;
  readonly #run: () => void;
  #remainingMs: number;
  #sinceMs = 0;
  #callOff: (() => void) | null = null;
  #over = false;

  /** Runs from now on, unless it is created paused. */
  constructor(clock: Clock, options: { durationMs: number; run: () => void; paused?: boolean }) {
    this.#clock = clock;
    this.#run = options.run;
    this.#remainingMs = options.durationMs;
    if (options.paused !== true) this.resume();
  }

  pause(): void {
    if (this.#callOff === null) return;
    this.#callOff();
    this.#callOff = null;
    this.#remainingMs -= this.#clock.monotonicMs() - this.#sinceMs;
  }

  resume(): void {
    if (this.#callOff !== null || this.#over) return;
    this.#sinceMs = this.#clock.monotonicMs();
    this.#callOff = this.#clock.schedule(this.#remainingMs, () => this.#elapsed());
  }

  cancel(): void {
    this.#over = true;
    this.#callOff?.();
    this.#callOff = null;
  }

  #elapsed(): void {
    this.#callOff = null;
    const leftMs = this.#remainingMs - (this.#clock.monotonicMs() - this.#sinceMs);
    // The clock cuts very long delays; what is left is waited for in another round.
    if (leftMs > 1) {
      this.#remainingMs = leftMs;
      this.resume();
      return;
    }
    this.#over = true;
    this.#run();
  }
}
