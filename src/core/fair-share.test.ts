import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { nextShare, stride, withoutHoarding, type Share } from "./fair-share.ts";
import { aQueue, aSnapshot, aWorker, capacityOf, jobs } from "./planner-fixtures.ts";
import { plan } from "./planner.ts";

/** Gives so many starts to queues that always wait; how many each had. */
function starts(shares: Share[], count: number): Map<string, number> {
  const had = new Map(shares.map(({ name }) => [name, 0]));
  for (let start = 0; start < count; start += 1) {
    const next = nextShare(withoutHoarding(shares));
    const share = shares.find(({ name }) => name === next?.name) ?? assert.fail();
    share.pass = (next?.pass ?? 0) + stride(share);
    had.set(share.name, (had.get(share.name) ?? 0) + 1);
  }
  return had;
}

test("queues that wait share the starts by their weights, to one start each", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 }), (weights) => {
      const shares = weights.map((weight, index) => ({ name: `q-${index}`, weight, pass: 0 }));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const had = starts(shares, total * 10);
      for (const { name, weight } of shares) {
        assert.ok(
          Math.abs((had.get(name) ?? 0) - weight * 10) <= weights.length,
          `${name}: ${had.get(name)}`,
        );
      }
    }),
    { numRuns: 300 },
  );
});

test("a queue that comes back after a pause gets its share from then on, and nothing for the time before", () => {
  const shares = [
    { name: "busy", weight: 1, pass: 500 },
    { name: "back", weight: 1, pass: 3 },
  ];
  const had = starts(shares, 100);
  assert.ok(Math.abs((had.get("back") ?? 0) - 50) <= 1, `${had.get("back")}`);
});

test("a queue that is ahead of the others does not wait for them to catch up", () => {
  const shares = [
    { name: "ahead", weight: 2, pass: 1_000 },
    { name: "fresh", weight: 1, pass: 0 },
  ];
  const had = starts(shares, 90);
  assert.ok(Math.abs((had.get("ahead") ?? 0) - 60) <= 2, `${had.get("ahead")}`);
});

test("equal passes go by name, whatever the order", () => {
  const shares = ["c", "a", "b"].map((name) => ({ name, weight: 1, pass: 1 }));
  assert.equal(nextShare(shares)?.name, "a");
  assert.equal(nextShare([]), null);
});

test("weights of 3 and 1 share 4,000 starts 3:1, in one plan and in one plan after another", () => {
  const queues = [aQueue("large", { weight: 3 }), aQueue("small", { weight: 1 })];
  const waiting = [...jobs(4_000, "l", { queue: "large" }), ...jobs(4_000, "s", { queue: "small" })];
  const worker = aWorker("w", { capacity: capacityOf(4, 4_000) });
  const { assign } = plan(aSnapshot({ jobs: waiting, workers: [worker], queues }));
  assert.equal(assign.length, 4_000);
  assertShared(assign.filter(({ jobId }) => jobId.startsWith("l")).length);

  let large = 0;
  let left = waiting;
  for (let round = 0; round < 4_000; round += 1) {
    const heads = [left.find(({ queue }) => queue === "large"), left.find(({ queue }) => queue === "small")];
    const slot = aWorker("w", { capacity: capacityOf(4, 1) });
    const first = heads.filter((head) => head !== undefined);
    const made = plan(aSnapshot({ jobs: first, workers: [slot], queues }));
    for (const queue of queues) queue.pass = made.passes.get(queue.name) ?? 0;
    const started = made.assign[0]?.jobId ?? assert.fail();
    if (started.startsWith("l")) large += 1;
    left = left.filter(({ id }) => id !== started);
  }
  assertShared(large);
});

function assertShared(large: number): void {
  assert.ok(Math.abs(large - 3_000) <= 30, `${large} of 4,000`);
}
