/** The last times that workers of a pool took from the request to their registration. */

const MAX_KEPT = 100;

export class StartDurations {
  readonly #lastMs: number[] = [];

  add(durationMs: number): void {
    this.#lastMs.push(Math.max(0, durationMs));
    if (this.#lastMs.length > MAX_KEPT) this.#lastMs.shift();
  }

  /** Null before the first. */
  get medianMs(): number | null {
    const sorted = this.#lastMs.toSorted((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
  }
}
