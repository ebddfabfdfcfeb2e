import assert from "node:assert/strict";
import { test } from "node:test";
import { explainJob, placementProblem } from "./explain.ts";
import {
  aJob,
  aPlacement,
  aPool,
  aQueue,
  aSnapshot,
  aWorker,
  capacityOf,
  cpu,
  placed,
} from "./planner-fixtures.ts";

test("workers and pools that come closest stand first", () => {
  const explained = explainJob(
    aJob("j", { resources: cpu(4), selector: { os: "linux" } }),
    aSnapshot({
      workers: [
        aWorker("mac", { labels: { os: "mac" } }),
        aWorker("half", { labels: { os: "linux" }, running: [placed("r", { resources: cpu(2) })] }),
        aWorker("most", { labels: { os: "linux" }, running: [placed("s")] }),
        aWorker("off", { labels: { os: "mac" }, unavailable: "draining" }),
      ],
      pools: [
        aPool("full", { labels: { os: "linux" }, room: 0 }),
        aPool("small", { labels: { os: "linux" }, capacity: capacityOf(2, 1), problem: "no engine" }),
      ],
    }),
  );
  assert.equal(explained.kind, "waiting");
  assert.deepEqual(
    explained.workers.map(({ name, fits, blockers }) => [name, fits, blockers.map(({ kind }) => kind)]),
    [
      ["most", false, ["busy"]],
      ["half", false, ["busy"]],
      ["mac", false, ["label"]],
      ["off", false, ["unavailable", "label"]],
    ],
  );
  assert.deepEqual(
    explained.pools.map(({ name, fits, blockers }) => [name, fits, blockers.map(({ kind }) => kind)]),
    [
      ["full", false, ["pool_full"]],
      ["small", false, ["too_small", "provider"]],
    ],
  );
});

test("a job that would start now says where, and one that is held says by what", () => {
  const snapshot = aSnapshot({ workers: [aWorker("w")] });
  const free = explainJob(aJob("j"), snapshot);
  assert.deepEqual([free.kind, free.reason, free.heldBy], ["assigned", "the only worker that fits", ""]);
  const paused = explainJob(aJob("j"), { ...snapshot, queues: [aQueue("default", { paused: true })] });
  assert.deepEqual([paused.kind, paused.heldBy], ["waiting", "queue default is paused"]);
  assert.ok(paused.workers[0]?.fits, "the worker is not what is in the way");
  const concurrency = { key: "k", limit: 1 };
  const held = explainJob(aJob("j", { concurrency }), { ...snapshot, concurrency: new Map([["k", 1]]) });
  assert.deepEqual(
    [held.kind, held.heldBy],
    ["waiting", "1 job is at work with the concurrency key k, and 1 may be"],
  );
});

test("what can never run is impossible, also in a paused queue, and so is what its pool refuses for good", () => {
  const job = aJob("j", { resources: cpu(64) });
  const queues = [aQueue("default", { paused: true })];
  const explained = explainJob(job, aSnapshot({ workers: [aWorker("w")], queues }));
  assert.deepEqual(
    [explained.kind, explained.reason, explained.heldBy],
    ["impossible", "needs 64 cores; the largest is worker w with 4", "queue default is paused"],
  );
  const pools = [aPool("p", { permanentProblem: { message: "no such image", triedAtMs: 1 } })];
  const refused = explainJob(aJob("j"), aSnapshot({ pools }));
  assert.deepEqual([refused.kind, refused.reason], ["impossible", "no such image"]);
  assert.deepEqual(refused.pools[0]?.blockers[0]?.kind, "provider");
});

test("a pool with a worker on its way fits, even if it can make no more", () => {
  const pools = [aPool("p", { arriving: 1, room: 0, problem: "too many" })];
  const explained = explainJob(aJob("j"), aSnapshot({ pools }));
  assert.deepEqual([explained.pools[0]?.fits, explained.pools[0]?.arriving], [true, 1]);
});

test("a placement is refused only if nothing that is known could ever take it, and there is something", () => {
  const large = aPlacement({ resources: { ...cpu(1), memoryBytes: 64 * 2 ** 30, gpu: 2 } });
  const places = { workers: [aWorker("w")], pools: [aPool("p", { capacity: capacityOf(16, 1) })] };
  assert.equal(
    placementProblem(large, places),
    "needs 64 GiB of memory; the largest is pool p with 8 GiB; needs 2 GPUs; the largest is pool p with 0",
  );
  assert.equal(placementProblem(large, { workers: [], pools: [] }), null);
  assert.equal(placementProblem(large, { workers: [], pools: [aPool("off", { maxWorkers: 0 })] }), null);
  const busy = aWorker("w", { running: [placed("r", { resources: cpu(4) })], unavailable: "cordoned" });
  assert.equal(placementProblem(aPlacement({ resources: cpu(4) }), { workers: [busy], pools: [] }), null);
});

test("labels and sizes that are there, but not together, are told so", () => {
  const pools = [
    aPool("cores", { capacity: { ...capacityOf(16, 1), memoryBytes: 1 } }),
    aPool("memory", { capacity: capacityOf(2, 1) }),
  ];
  const both = aPlacement({ resources: { ...cpu(8), memoryBytes: 2 ** 30 } });
  assert.equal(
    placementProblem(both, { workers: [], pools }),
    "no worker and no pool has 8 cores and 1 GiB of memory together",
  );
});
