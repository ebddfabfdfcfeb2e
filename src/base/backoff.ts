/**
 * Delays of a caller that tries for ever: exponential, with full jitter, so that two thousand
 * workers that lost the same server do not come back in the same second.
 */

import type { Random } from "./random.ts";

export interface BackoffOptions {
  baseMs: number;
  maxMs: number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: Random;
  #failures = 0;

  constructor(options: BackoffOptions, random: Random) {
    this.#options = options;
    this.#random = random;
  }

  /** The wait before the next try, after one more failure. */
  nextDelayMs(): number {
    const { baseMs, maxMs } = this.#options;
    const ceiling = Math.min(maxMs, baseMs * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return ceiling * this.#random.fraction();
  }

  reset(): void {
    this.#failures = 0;
  }
}
