import assert from "node:assert/strict";
import { test } from "node:test";
import { blockersOf, canEver, hasRoom } from "./placement.ts";
import { aPlacement, aWorker, capacityOf, cpu, GIB, NO_CLAIM, placed } from "./planner-fixtures.ts";

test("each blocker says what is so and what would have to change", () => {
  const taint = { key: "gpu", value: "a100", effect: "NoSchedule" as const };
  const worker = aWorker("w", {
    labels: { os: "linux", cores: "4" },
    taints: [taint, { ...taint, effect: "PreferNoSchedule" }],
    capabilities: ["cgroup_v2"],
    running: [placed("r", { resources: cpu(2) })],
  });
  const placement = aPlacement({
    resources: { ...cpu(3), memoryBytes: 16 * GIB },
    selector: { os: "mac" },
    selectorExpressions: [{ key: "zone", operator: "in", values: ["a", "b"] }],
    capabilities: ["pause"],
  });
  assert.equal(canEver(placement, worker), false);
  assert.deepEqual(
    blockersOf(placement, worker, worker.free).map(({ kind, message }) => [kind, message]),
    [
      ["label", "has os=linux, the job needs os=mac"],
      ["label", "has no label zone, the job needs zone in (a,b)"],
      ["taint", "has the taint gpu=a100:NoSchedule, which the job does not tolerate"],
      ["capability", "cannot do pause, which the job needs"],
      ["busy", "has 2 of 4 cores free, the job needs 3"],
      ["too_small", "has 8 GiB of memory, the job needs 16 GiB"],
    ],
  );
  const changes = blockersOf(placement, worker, worker.free).map(({ change }) => change);
  assert.equal(changes[4], "wait, or ask for less cpu");
  assert.equal(changes[5], "ask for 8 GiB of memory at most, or add a larger worker");
});

test("a full worker says how many jobs it may run, and an empty one that fits has no blocker", () => {
  const capacity = capacityOf(4, 1);
  const worker = aWorker("w", { capacity, running: [placed("r", { resources: NO_CLAIM })] });
  const [blocker] = blockersOf(aPlacement(), worker, worker.free);
  assert.deepEqual([blocker?.kind, blocker?.message], ["busy", "runs as many jobs as it may, 1"]);
  assert.deepEqual(blockersOf(aPlacement(), worker, null), []);
  assert.ok(canEver(aPlacement(), worker) && !hasRoom(worker.free, NO_CLAIM));
});

test("capabilities that are not known yet may be there", () => {
  const { labels, taints, capacity } = aWorker("w");
  const place = { labels, taints, capacity, capabilities: null };
  const placement = aPlacement({ capabilities: ["pause"] });
  assert.ok(canEver(placement, place));
  assert.deepEqual(blockersOf(placement, place, null), []);
});
