/** Chance that a seed repeats. Each part of the cluster has a stream of its own. */

import type { Random } from "../src/base/random.ts";

export class SimRandom implements Random {
  #state: number;

  /** `name` sets apart the streams of one seed, so that a new use of one does not change the others. */
  constructor(seed: number, name: string) {
    let hash = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
    for (let index = 0; index < name.length; index += 1) {
      hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193) >>> 0;
      hash = (hash ^ (hash >>> 15)) >>> 0;
    }
    this.#state = hash;
  }

  /** Mulberry32: 32 bits of state are enough to choose faults. */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  fraction(): number {
    return this.#next() / 2 ** 32;
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let index = 0; index < count; index += 1) bytes[index] = this.#next() >>> 24;
    return bytes;
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.fraction();
  }

  /** Whole, both ends included. */
  whole(low: number, high: number): number {
    return low + Math.floor((high - low + 1) * this.fraction());
  }

  /** Time until the next of events that come every `meanMs` on average, by chance. */
  waitMs(meanMs: number): number {
    return -Math.log(1 - this.fraction()) * meanMs;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.whole(0, items.length - 1)] as T;
  }
}
