import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "./backoff.ts";
import { systemClock } from "./clock.ts";
import { AppError, ERROR_CODES, errorMessage, systemErrorCode } from "./errors.ts";
import { eventually } from "./eventually.ts";

test("a sleep ends at once when its signal aborts, before or while it lasts", async () => {
  await systemClock.sleep(3_600_000, AbortSignal.abort());
  const abort = new AbortController();
  const slept = systemClock.sleep(3_600_000, abort.signal);
  abort.abort();
  await slept;
});

test("a timer that was called off does not fire, and one that is longer than Node can hold does not fire at once", async () => {
  const fired: string[] = [];
  const callOffs = [
    systemClock.schedule(0, () => fired.push("called off")),
    systemClock.schedule(2 ** 40, () => fired.push("in 34 years")),
  ];
  callOffs[0]?.();
  systemClock.schedule(0, () => fired.push("now"));
  await eventually(() => fired.includes("now"));
  await systemClock.sleep(5);
  callOffs[1]?.();
  assert.deepEqual(fired, ["now"]);
});

test("eventually returns what came true, and names what did not", async () => {
  let calls = 0;
  assert.equal(await eventually(() => (calls += 1) > 2 && calls, { intervalMs: 1 }), 3);
  assert.equal(await eventually(() => 0), 0, "0 is a value, not false");
  await assert.rejects(
    eventually(() => false, { timeoutMs: 5, intervalMs: 1, what: "the impossible" }),
    /the impossible did not come true within 5 ms/,
  );
});

test("delays double up to their maximum, by chance below it, and begin anew after a success", () => {
  const fractions = [1, 1, 1, 0.5, 0, 1];
  const backoff = new Backoff(
    { baseMs: 100, maxMs: 350 },
    { fraction: () => fractions.shift() ?? 0, bytes: () => new Uint8Array() },
  );
  assert.deepEqual(
    [1, 2, 3, 4, 5].map(() => backoff.nextDelayMs()),
    [100, 200, 350, 175, 0],
  );
  backoff.reset();
  assert.equal(backoff.nextDelayMs(), 100);
});

test("every error code has a gRPC status of its own", () => {
  const numbers = Object.values(ERROR_CODES).map(({ grpc }) => grpc);
  assert.equal(new Set(numbers).size, numbers.length);
});

test("an error keeps its cause, and whatever was thrown has a message", () => {
  const cause = Object.assign(new Error("below"), { code: "ENOENT" });
  const error = new AppError("not_found", "read x: missing", { cause, details: { path: "x" } });
  assert.equal(error.cause, cause);
  assert.deepEqual(error.details, { path: "x" });
  assert.equal("cause" in new AppError("internal", "x"), false);
  assert.deepEqual([cause, null, "ENOENT", { code: 5 }].map(systemErrorCode), ["ENOENT", null, null, null]);
  assert.deepEqual([cause, "text", undefined].map(errorMessage), ["below", "text", "undefined"]);
});
