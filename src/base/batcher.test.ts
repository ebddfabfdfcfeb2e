import assert from "node:assert/strict";
import { test } from "node:test";
import { Batcher } from "./batcher.ts";

/** A batcher whose groups are answered by hand. */
function setup(options: { maxGroup?: number; maxWaiting?: number } = {}) {
  const groups: { inputs: number[]; answer: () => void; fail: () => void }[] = [];
  const batcher = new Batcher<number, string>({
    maxGroup: options.maxGroup ?? 100,
    maxWaiting: options.maxWaiting ?? 100,
    full: () => new Error("full"),
    run: (inputs) =>
      new Promise((resolve, reject) => {
        groups.push({
          inputs,
          answer: () => resolve(inputs.map(String)),
          fail: () => reject(new Error("planted")),
        });
      }),
  });
  return { batcher, groups };
}

/** Lets every promise that can go on do so. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

test("a lone call goes out at once", async () => {
  const { batcher, groups } = setup();
  const answer = batcher.add(1);
  await settle();
  groups[0]?.answer();
  assert.equal(await answer, "1");
});

test("calls that arrive while a group is under way go out together, in order", async () => {
  const { batcher, groups } = setup({ maxGroup: 3 });
  const answers = [batcher.add(1)];
  await settle();
  answers.push(...[2, 3, 4, 5].map((input) => batcher.add(input)));
  await settle();
  assert.equal(groups.length, 1, "only one group is under way");
  for (let index = 0; index < 3; index += 1) {
    groups[index]?.answer();
    await settle();
  }
  assert.deepEqual(
    groups.map(({ inputs }) => inputs),
    [[1], [2, 3, 4], [5]],
  );
  assert.deepEqual(await Promise.all(answers), ["1", "2", "3", "4", "5"]);
});

test("a group that fails rejects its own calls and no others", async () => {
  const { batcher, groups } = setup();
  const first = batcher.add(1);
  await settle();
  const second = batcher.add(2);
  groups[0]?.fail();
  await assert.rejects(first, /planted/);
  await settle();
  groups[1]?.answer();
  assert.equal(await second, "2");
});

test("more calls than may wait are refused, and there is room again afterwards", async () => {
  const { batcher, groups } = setup({ maxWaiting: 2 });
  const first = batcher.add(1);
  await settle();
  const waiting = [batcher.add(2), batcher.add(3)];
  await assert.rejects(batcher.add(4), /full/);
  groups[0]?.answer();
  await first;
  await settle();
  const later = batcher.add(5);
  groups[1]?.answer();
  await settle();
  groups[2]?.answer();
  assert.deepEqual(await Promise.all([...waiting, later]), ["2", "3", "5"]);
});

test("idle waits for everything that was asked for before", async () => {
  const { batcher, groups } = setup();
  await batcher.idle();
  let isIdle = false;
  const answer = batcher.add(1);
  const idle = batcher.idle().then(() => (isIdle = true));
  await settle();
  assert.equal(isIdle, false);
  groups[0]?.answer();
  await idle;
  assert.equal(await answer, "1");
});
