import assert from "node:assert/strict";
import { test } from "node:test";
import { OneAtATime } from "./one-at-a-time.ts";

test("runs the work of one key in its order, also after one that failed, and other keys beside it", async () => {
  const work = new OneAtATime();
  const events: string[] = [];
  let release = (): void => undefined;
  const isReleased = new Promise<void>((resolve) => {
    release = resolve;
  });
  const done = [
    work.run("a", async () => {
      events.push("a1 begins");
      await isReleased;
      events.push("a1 ends");
      throw new Error("as told");
    }),
    work.run("a", async () => events.push("a2")),
    work.run("b", async () => events.push("b1")),
  ];
  await done[2];
  assert.deepEqual(events, ["a1 begins", "b1"]);
  assert.ok(work.isBusy("a") && !work.isBusy("b"));
  release();
  await assert.rejects(done[0] as Promise<unknown>, /as told/);
  await done[1];
  assert.deepEqual(events, ["a1 begins", "b1", "a1 ends", "a2"]);
  assert.ok(!work.isBusy("a"));
});
