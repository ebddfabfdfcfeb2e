import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "./clock.ts";
import { systemClock } from "./clock.ts";
import { silentLogger } from "./log.ts";
import { steadyClock } from "./steady-clock.ts";

/** A system clock that a test can set, over the real monotonic clock. */
function settableClock(): { clock: Clock; setBy(ms: number): void } {
  let offsetMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + offsetMs };
  return { clock, setBy: (ms) => void (offsetMs += ms) };
}

test("a step of the system clock in either direction is not followed", () => {
  const { clock, setBy } = settableClock();
  const steady = steadyClock(clock, silentLogger);
  const beforeMs = steady.nowMs();
  setBy(3_600_000);
  assert.ok(steady.nowMs() - beforeMs < 60_000);
  setBy(-2 * 3_600_000);
  const afterMs = steady.nowMs();
  assert.ok(afterMs >= beforeMs && afterMs - beforeMs < 60_000);
});

test("it begins with the time of the system and goes at its pace", async () => {
  const steady = steadyClock(systemClock, silentLogger);
  assert.ok(Math.abs(steady.nowMs() - systemClock.nowMs()) <= 20);
  await systemClock.sleep(50);
  assert.ok(Math.abs(steady.nowMs() - systemClock.nowMs()) <= 20);
});
