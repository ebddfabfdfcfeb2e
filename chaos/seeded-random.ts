/** Chance that a seed repeats. */

export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1): mulberry32 by Tommy Ettinger, which is in the public domain. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `min` to `max`, both included. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.fraction() * (max - min + 1));
  }

  /** Between `min` and `max`, short ones as likely as long ones on a logarithmic scale. */
  spread(min: number, max: number): number {
    return min * (max / min) ** this.fraction();
  }

  chance(part: number): boolean {
    return this.fraction() < part;
  }

  pick<T>(items: readonly T[]): T | null {
    return items[Math.floor(this.fraction() * items.length)] ?? null;
  }

  shuffled<T>(items: readonly T[]): T[] {
    const keyed = items.map((item) => ({ item, key: this.fraction() }));
    return keyed.toSorted((left, right) => left.key - right.key).map(({ item }) => item);
  }

  /** Another sequence, so that what one part draws does not move the draws of the others. */
  fork(): SeededRandom {
    return new SeededRandom(Math.floor(this.fraction() * 2 ** 32));
  }
}
