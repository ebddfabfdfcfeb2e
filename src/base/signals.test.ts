import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "./eventually.ts";
import { ManualClock } from "./manual-clock.ts";
import { listenForSignals, type StopSignal } from "./signals.ts";

test("one press that arrives twice is one signal, and a later press is another", async () => {
  const clock = new ManualClock();
  const heard: StopSignal[] = [];
  let arrived = 0;
  const count = (): void => {
    arrived += 1;
  };
  process.on("SIGINT", count);
  const stop = listenForSignals(clock, (signal) => heard.push(signal));
  const send = async (): Promise<void> => {
    const before = arrived;
    process.kill(process.pid, "SIGINT");
    await eventually(() => arrived > before);
  };
  await send();
  await send();
  assert.deepEqual(heard, ["SIGINT"]);
  clock.advance(1_000);
  await send();
  assert.deepEqual(heard, ["SIGINT", "SIGINT"]);
  stop();
  await send();
  assert.equal(heard.length, 2);
  process.off("SIGINT", count);
});
