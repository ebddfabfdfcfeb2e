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
  assertAgree(steady, systemClock);
  await systemClock.sleep(50);
  assertAgree(steady, systemClock);
});

/** Between two readings this process may have to wait for a processor. */
function assertAgree(one: Clock, other: Clock): void {
  const beforeMs = other.nowMs();
  const nowMs = one.nowMs();
  const afterMs = other.nowMs();
  assert.ok(nowMs >= beforeMs - 20 && nowMs <= afterMs + 20, `${beforeMs} ≤ ${nowMs} ≤ ${afterMs}`);
}
