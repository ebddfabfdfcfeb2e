import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  afterFailure,
  breakerState,
  CLOSED_BREAKER,
  withoutWait,
  type CircuitBreaker,
} from "./circuit-breaker.ts";

const transient = { message: "the engine is busy", isPermanent: false };
const permanent = { message: "no such image", isPermanent: true };

/** Fails so often in a row, each time right after the wait before. */
function failing(
  times: number,
  failure = transient,
  jitter = 0.5,
): { breaker: CircuitBreaker; nowMs: number } {
  let breaker = CLOSED_BREAKER;
  let nowMs = 1_000;
  for (let count = 0; count < times; count += 1) {
    nowMs = Math.max(nowMs, breaker.untilMs) + 10;
    breaker = afterFailure(breaker, { ...failure, triedAtMs: nowMs - 5 }, { nowMs, jitter });
  }
  return { breaker, nowMs };
}

test("a single transient failure pauses, and then everything goes on", () => {
  const { breaker, nowMs } = failing(1);
  assert.equal(breakerState(breaker, nowMs), "open");
  assert.equal(breakerState(breaker, breaker.untilMs - 1), "open");
  assert.equal(breakerState(breaker, breaker.untilMs), "closed");
});

test("after three in a row, or a permanent one, one try at a time is made", () => {
  const third = failing(3).breaker;
  assert.equal(breakerState(third, third.untilMs), "half_open");
  const second = failing(2).breaker;
  assert.equal(breakerState(second, second.untilMs), "closed");
  const first = failing(1, permanent).breaker;
  assert.equal(breakerState(first, first.untilMs), "half_open");
});

test("the wait doubles up to a minute, and up to 15 s for a permanent failure", () => {
  const waits = [1, 2, 3, 4, 7, 20].map((times) => {
    const { breaker, nowMs } = failing(times, transient, 1);
    return breaker.untilMs - nowMs;
  });
  assert.deepEqual(waits, [1_500, 2_500, 4_500, 8_500, 60_500, 60_500]);
  const { breaker, nowMs } = failing(20, permanent, 1);
  assert.equal(breaker.untilMs - nowMs, 15_000);
});

test("tries that began together and fail together count as one failure", () => {
  const { breaker, nowMs } = failing(1);
  const again = afterFailure(
    breaker,
    { ...transient, triedAtMs: nowMs - 5 },
    { nowMs: nowMs + 100, jitter: 1 },
  );
  assert.equal(again, breaker);
  const worse = afterFailure(
    breaker,
    { ...permanent, triedAtMs: nowMs - 5 },
    { nowMs: nowMs + 100, jitter: 1 },
  );
  assert.equal(worse.last?.message, "no such image");
  assert.equal(worse.failures, 1);
});

test("a sign that the trouble is over ends the wait, and keeps what is known", () => {
  const { breaker, nowMs } = failing(4);
  const open = withoutWait(breaker, nowMs);
  assert.equal(breakerState(open, nowMs), "half_open");
  assert.equal(open.failures, 4);
});

test("whatever fails in whatever order, the wait is never shorter than half a second nor longer than the limit", () => {
  const failure = fc.record({
    isPermanent: fc.boolean(),
    jitter: fc.double({ min: 0, max: 0.999, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(failure, { maxLength: 50 }), (failures) => {
      let breaker = CLOSED_BREAKER;
      let nowMs = 0;
      for (const { isPermanent, jitter } of failures) {
        nowMs = breaker.untilMs + 1;
        breaker = afterFailure(breaker, { message: "", isPermanent, triedAtMs: nowMs }, { nowMs, jitter });
        const waitMs = breaker.untilMs - nowMs;
        assert.ok(waitMs >= 500 && waitMs <= (isPermanent ? 15_000 : 60_500), String(waitMs));
      }
    }),
  );
});
