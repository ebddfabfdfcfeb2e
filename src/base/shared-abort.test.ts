import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";
import { sharedAbortController } from "./shared-abort.ts";

test("many may wait for one end, and nobody is warned of a leak", async (t) => {
  const warnings: string[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning.name);
  process.on("warning", onWarning);
  t.after(() => process.off("warning", onWarning));

  const shared = sharedAbortController();
  const sleeps = Array.from({ length: 100 }, () => systemClock.sleep(60_000, shared.signal));
  for (let index = 0; index < 100; index += 1) {
    shared.signal.addEventListener("abort", () => {}, { once: true });
  }
  // A warning is given in a later turn of the event loop.
  await systemClock.sleep(1);
  shared.abort();
  await Promise.all(sleeps);
  assert.deepEqual(warnings, []);
});
