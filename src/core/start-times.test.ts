import assert from "node:assert/strict";
import { test } from "node:test";
import { outputDurations, startDurations } from "./start-times.ts";

const attempt = { queuedAtMs: 1_000, scheduledAtMs: 1_900, startedAtMs: 1_950 };

test("a worker that was there already has no parts of provisioning", () => {
  const expected = { waiting: 900, starting: 50 };
  assert.deepEqual(startDurations({ ...attempt, worker: null }), expected);
  const older = { createdAtMs: 999, madeAtMs: 1_100, registeredAtMs: 1_200 };
  assert.deepEqual(startDurations({ ...attempt, worker: older }), expected);
});

test("a worker that was made for the job splits the wait into its parts", () => {
  const worker = { createdAtMs: 1_010, madeAtMs: 1_500, registeredAtMs: 1_800 };
  assert.deepEqual(startDurations({ ...attempt, worker }), {
    waiting: 10,
    provisioning: 890,
    creating: 490,
    registering: 300,
    starting: 50,
  });
});

test("a worker whose making is not known yet has no parts that need it", () => {
  const worker = { createdAtMs: 1_010, madeAtMs: null, registeredAtMs: 1_800 };
  assert.deepEqual(startDurations({ ...attempt, worker }), { waiting: 10, provisioning: 890, starting: 50 });
});

test("the parts that follow each other add up to the total", () => {
  const worker = { createdAtMs: 1_010, madeAtMs: 1_500, registeredAtMs: 1_800 };
  for (const known of [worker, null]) {
    const parts = { ...startDurations({ ...attempt, worker: known }), ...outputDurations(attempt, 2_222) };
    const sum =
      (parts.waiting ?? 0) + (parts.provisioning ?? 0) + (parts.starting ?? 0) + (parts.first_byte ?? 0);
    assert.equal(sum, parts.total);
    assert.equal(parts.total, 1_222);
  }
});

test("times that contradict each other give no negative parts", () => {
  const worker = { createdAtMs: 1_100, madeAtMs: 1_900, registeredAtMs: 1_850 };
  const parts = startDurations({ queuedAtMs: 1_000, scheduledAtMs: 1_880, startedAtMs: 1_870, worker });
  assert.equal(parts.registering, 0);
  assert.equal(parts.starting, 0);
  assert.deepEqual(outputDurations(attempt, 1_940), { first_byte: 0, total: 950 });
});
