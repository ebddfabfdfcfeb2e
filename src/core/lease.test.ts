import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { JOB_DEFAULTS } from "./job.ts";
import {
  HEARTBEAT_INTERVAL_MS,
  isUnreachable,
  LEASE_MARGIN_MS,
  serverGivesUpAtMs,
  UNREACHABLE_AFTER_MS,
  workerGivesUpAtMs,
} from "./lease.ts";

const timeMs = fc.nat(2 ** 45);

test("the worker has killed its processes before the server lets another worker begin", () => {
  const inputs = {
    sentAtMs: timeMs,
    delayMs: fc.nat(120_000),
    leaseMs: fc.integer({ min: LEASE_MARGIN_MS, max: 604_800_000 }),
  };
  fc.assert(
    fc.property(fc.record(inputs), ({ sentAtMs, delayMs, leaseMs }) => {
      const marginMs = serverGivesUpAtMs(sentAtMs + delayMs, leaseMs) - workerGivesUpAtMs(sentAtMs, leaseMs);
      assert.ok(marginMs >= LEASE_MARGIN_MS + delayMs);
    }),
  );
});

test("a worker never gives up before it renewed, however short the lease", () => {
  fc.assert(
    fc.property(
      timeMs,
      fc.nat(60_000),
      (renewedAtMs, leaseMs) => workerGivesUpAtMs(renewedAtMs, leaseMs) >= renewedAtMs,
    ),
  );
});

test("a heartbeat in the same millisecond as the sweep does not lose", () => {
  assert.equal(isUnreachable(1_000, 1_000 + UNREACHABLE_AFTER_MS), false);
  assert.equal(isUnreachable(1_000, 1_001 + UNREACHABLE_AFTER_MS), true);
});

test("a worker may lose several heartbeats before it is called silent, and is long silent before its lease ends", () => {
  assert.ok(UNREACHABLE_AFTER_MS >= 3 * HEARTBEAT_INTERVAL_MS);
  assert.ok(JOB_DEFAULTS.leaseMs > UNREACHABLE_AFTER_MS + LEASE_MARGIN_MS);
});
