import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatDurationMs } from "../base/quantities.ts";
import { closestName } from "./closest-name.ts";
import { parseCpuMillis, parseDurationMs, parseSizeBytes } from "./quantities.ts";

test("durations are read with units, or as seconds", () => {
  const cases: [string | number, number | null][] = [
    ["90s", 90_000],
    ["1h30m", 5_400_000],
    ["250ms", 250],
    ["1.5s", 1500],
    ["2d", 172_800_000],
    ["90", 90_000],
    [90, 90_000],
    [0, 0],
    [-1, null],
    [Number.NaN, null],
    ["", null],
    ["5", 5000],
    ["5 m", null],
    ["m", null],
    ["1h-3m", null],
  ];
  for (const [text, expected] of cases) assert.equal(parseDurationMs(text), expected, String(text));
});

test("a duration that was printed reads as itself", () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 31 - 1 }), (ms) =>
      assert.equal(parseDurationMs(formatDurationMs(ms)), ms),
    ),
  );
});

test("sizes know powers of 1000 and of 1024", () => {
  const cases: [string | number, number | null][] = [
    ["512Mi", 512 * 2 ** 20],
    ["2GiB", 2 * 2 ** 30],
    ["1G", 1e9],
    ["1.5k", 1500],
    ["123", 123],
    [123, 123],
    [1.5, null],
    [-1, null],
    ["x", null],
    ["1X", null],
    ["99999999T", null],
  ];
  for (const [text, expected] of cases) assert.equal(parseSizeBytes(text), expected, String(text));
});

test("CPU is read in cores or in thousandths of one", () => {
  assert.equal(parseCpuMillis("500m"), 500);
  assert.equal(parseCpuMillis(1.5), 1500);
  assert.equal(parseCpuMillis("2"), 2000);
  assert.equal(parseCpuMillis("2k"), null);
});

test("the closest name is a typo away, or there is none", () => {
  const known = ["timeout", "queueTimeout", "run", "retry"];
  assert.equal(closestName("tiemout", known), "timeout");
  assert.equal(closestName("RUN", known), "run");
  assert.equal(closestName("queue_timeout", known), "queueTimeout");
  assert.equal(closestName("resources", known), null);
  assert.equal(closestName("", known), null);
});
