import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Histogram } from "./histogram.ts";

const FRACTIONS = [0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1];
const MAX_MS = 2 ** 31 - 1;

/** Of every size, not only of the largest: most whole numbers up to 2^31 are above 2^30. */
const durationMs = fc
  .tuple(fc.integer({ min: 0, max: 30 }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([exponent, fraction]) => Math.round(2 ** exponent * (1 + fraction)) - 1);

function histogramOf(durations: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const duration of durations) histogram.record(duration);
  return histogram;
}

function exactQuantile(durations: readonly number[], fraction: number): number {
  const sorted = durations.toSorted((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil(fraction * sorted.length)) - 1] as number;
}

test("a quantile is never further from the exact one than a thirty-second of it", () => {
  fc.assert(
    fc.property(fc.array(durationMs, { minLength: 1, maxLength: 300 }), (durations) => {
      const histogram = histogramOf(durations);
      for (const fraction of FRACTIONS) {
        const exact = exactQuantile(durations, fraction);
        const found = histogram.quantile(fraction) as number;
        assert.ok(Math.abs(found - exact) <= exact / 32, `${fraction}: ${found} instead of ${exact}`);
      }
    }),
  );
});

test("durations below 32 ms, the shortest and the longest are exact", () => {
  const durations = [0, 1, 1, 2, 3, 5, 8, 13, 21, 31, 1_000_003];
  const histogram = histogramOf(durations);
  for (const fraction of [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]) {
    assert.equal(histogram.quantile(fraction), exactQuantile(durations, fraction), String(fraction));
  }
  assert.equal(histogram.count, durations.length);
  assert.equal(
    histogram.sumMs,
    durations.reduce((sum, duration) => sum + duration, 0),
  );
});

test("counts within limits grow with the limits, never exceed the exact ones, and miss a sixteenth at most", () => {
  fc.assert(
    fc.property(
      fc.array(durationMs, { maxLength: 300 }),
      fc.uniqueArray(durationMs, { minLength: 1, maxLength: 20 }),
      (durations, someLimits) => {
        const limits = someLimits.toSorted((a, b) => a - b);
        const counts = histogramOf(durations).countsWithin(limits);
        limits.forEach((limit, index) => {
          const found = counts[index] as number;
          assert.ok(found >= (counts[index - 1] ?? 0));
          assert.ok(found <= durations.filter((duration) => duration <= limit).length);
          assert.ok(found >= durations.filter((duration) => duration < limit - limit / 16).length);
        });
      },
    ),
  );
});

test("every duration falls into one bucket: each is within its own limit rounded up", () => {
  for (let ms = 1; ms < MAX_MS; ms = Math.ceil(ms * 1.01)) {
    const histogram = histogramOf([ms]);
    assert.deepEqual(histogram.countsWithin([Math.floor(ms * 0.93) - 1, Math.ceil(ms * 1.07)]), [0, 1]);
  }
  assert.deepEqual(histogramOf([MAX_MS]).countsWithin([MAX_MS - 1, MAX_MS]), [0, 1]);
});

test("what is no duration does no harm", () => {
  const histogram = histogramOf([-5, Number.NaN, Infinity]);
  assert.equal(histogram.count, 2);
  assert.equal(histogram.quantile(0), 0);
  assert.equal(histogram.quantile(1), MAX_MS);
});

test("nothing recorded has no quantile", () => {
  assert.equal(new Histogram().quantile(0.5), null);
  assert.deepEqual(new Histogram().countsWithin([1, 10]), [0, 0]);
});
