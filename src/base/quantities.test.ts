import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatBytes, formatDurationMs, parseBytes, parseDurationMs } from "./quantities.ts";

test("durations are read with their units", () => {
  const known: [string, number][] = [
    ["0", 0],
    ["250ms", 250],
    ["30s", 30_000],
    ["1.5s", 1_500],
    ["1h30m", 5_400_000],
    ["1d", 86_400_000],
    ["2m5ms", 120_005],
  ];
  for (const [text, durationMs] of known) assert.equal(parseDurationMs(text), durationMs, text);
});

test("a duration that could mean two things is refused", () => {
  for (const text of ["", "30", "-1s", "1s1m", "1s1s", "1 s", "s", "1M", "1e3s", "99999999999999d"]) {
    assert.equal(parseDurationMs(text), null, text);
  }
});

test("sizes are read with their units", () => {
  const known: [string, number][] = [
    ["0", 0],
    ["1024", 1024],
    ["1k", 1000],
    ["1Ki", 1024],
    ["256Mi", 268_435_456],
    ["256MiB", 268_435_456],
    ["10GB", 1e10],
    ["1.5Gi", 1_610_612_736],
    ["2t", 2e12],
  ];
  for (const [text, bytes] of known) assert.equal(parseBytes(text), bytes, text);
});

test("what is no size is refused", () => {
  for (const text of ["", "Mi", "-1", "1 Mi", "1Pi", "1e6", "0x10", "99999999Ti"])
    assert.equal(parseBytes(text), null, text);
});

test("whatever is written can be read back", () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31 - 1), (value) => {
      assert.equal(parseDurationMs(formatDurationMs(value)), value);
      assert.equal(parseBytes(formatBytes(value * 1024)), value * 1024);
    }),
  );
});
