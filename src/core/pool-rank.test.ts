import assert from "node:assert/strict";
import { test } from "node:test";
import { rankPools, type RankedPool } from "./pool-rank.ts";

const ranked = (name: string, changes: Partial<RankedPool> = {}): RankedPool => ({
  name,
  isDegraded: false,
  costPerHour: 0,
  startTimeMs: null,
  ...changes,
});

test("ranks by health, then cost, then start-up time, then the order they stand in", () => {
  const ranks = rankPools([
    ranked("degraded", { isDegraded: true }),
    ranked("dear", { costPerHour: 2, startTimeMs: 1 }),
    ranked("unknown"),
    ranked("unknown too"),
    ranked("slow", { startTimeMs: 900 }),
    ranked("fast", { startTimeMs: 100 }),
  ]);
  assert.deepEqual(
    [...ranks].toSorted(([, a], [, b]) => a - b).map(([name]) => name),
    ["fast", "slow", "unknown", "unknown too", "dear", "degraded"],
  );
});
