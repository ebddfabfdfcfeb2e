/**
 * A histogram of durations in bounded memory, whatever is recorded.
 *
 * The buckets are log-linear, as those of HdrHistogram: whole milliseconds below 16, and from there on
 * each doubling is cut into 16 equal parts. A bucket is so never wider than a sixteenth of its lower
 * edge, and a quantile, which is the middle of its bucket, never further off than a thirty-second.
 */

const PARTS_PER_DOUBLING = 16;
const LOG_PARTS = 4;
/** 24 days. Longer durations count as this long. */
const MAX_MS = 2 ** 31 - 1;
const BUCKETS = bucketOf(MAX_MS) + 1;

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumMs = 0;
  #minMs = Infinity;
  #maxMs = 0;

  /** Takes a duration; one below 0 counts as 0, because two clocks may differ. */
  record(durationMs: number): void {
    const ms = Math.min(MAX_MS, Math.max(0, Math.round(durationMs)));
    if (Number.isNaN(ms)) return;
    const bucket = bucketOf(ms);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count += 1;
    this.#sumMs += ms;
    this.#minMs = Math.min(this.#minMs, ms);
    this.#maxMs = Math.max(this.#maxMs, ms);
  }

  get count(): number {
    return this.#count;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  /**
   * The duration that `fraction` of all that were recorded did not exceed, by the nearest rank; null
   * if nothing was. 0 gives the shortest, 1 the longest.
   */
  quantile(fraction: number): number | null {
    if (this.#count === 0) return null;
    const rank = Math.max(1, Math.ceil(fraction * this.#count));
    if (rank >= this.#count) return this.#maxMs;
    let seen = 0;
    const bucket = this.#counts.findIndex((count) => (seen += count) >= rank);
    const middleMs = (lowestOf(bucket) + lowestOf(bucket + 1) - 1) / 2;
    return Math.min(this.#maxMs, Math.max(this.#minMs, middleMs));
  }

  /**
   * For each limit, given in rising order, how many durations were surely not longer: a bucket in
   * which the limit lies is left out, so nothing is made to look faster than it was.
   */
  countsWithin(limitsMs: readonly number[]): number[] {
    let bucket = 0;
    let seen = 0;
    return limitsMs.map((limitMs) => {
      while (bucket < BUCKETS && lowestOf(bucket + 1) - 1 <= limitMs) {
        seen += this.#counts[bucket] ?? 0;
        bucket += 1;
      }
      return seen;
    });
  }
}

/** `ms` is a whole number from 0 to `MAX_MS`. */
function bucketOf(ms: number): number {
  if (ms < PARTS_PER_DOUBLING) return ms;
  const doubling = 31 - Math.clz32(ms) - LOG_PARTS;
  return doubling * PARTS_PER_DOUBLING + (ms >>> doubling);
}

/** The lower edge of a bucket. */
function lowestOf(bucket: number): number {
  if (bucket < 2 * PARTS_PER_DOUBLING) return bucket;
  const doubling = Math.floor(bucket / PARTS_PER_DOUBLING) - 1;
  return (PARTS_PER_DOUBLING + (bucket % PARTS_PER_DOUBLING)) * 2 ** doubling;
}
