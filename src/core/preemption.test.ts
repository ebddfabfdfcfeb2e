import assert from "node:assert/strict";
import { test } from "node:test";
import type { PlacedJob, Plan, PlannedJob } from "./plan.ts";
import { aJob, aPlacement, aPool, aSnapshot, aWorker, capacityOf, cpu, placed } from "./planner-fixtures.ts";
import { plan } from "./planner.ts";

const lesser = (id: string, cores: number, priority = 0): PlacedJob =>
  placed(id, { resources: cpu(cores), priority, preemptible: true });
const urgent = (id: string, cores: number): PlannedJob => aJob(id, { resources: cpu(cores), priority: 5 });

function victims({ preempt }: Plan): string[][] {
  return preempt.map(({ victims: ended }) => ended.map(({ jobId }) => jobId));
}

test("the fewest end, the least important of them, on one worker", () => {
  const workers = [
    aWorker("w-1", { running: [lesser("a", 2), lesser("b", 2)] }),
    aWorker("w-2", { running: [lesser("c", 3, 2), lesser("d", 1, 1)] }),
    aWorker("w-3", { running: [lesser("e", 3, 1), lesser("f", 1, 1)] }),
  ];
  assert.deepEqual(victims(plan(aSnapshot({ jobs: [urgent("u", 3)], workers }))), [["e"]]);
  assert.deepEqual(victims(plan(aSnapshot({ jobs: [urgent("u", 4)], workers }))), [["a", "b"]]);
});

test("the victim that is large enough alone is taken before two of a lower priority", () => {
  const running = [lesser("a", 1), lesser("b", 1), lesser("c", 2, 1)];
  const result = plan(aSnapshot({ jobs: [urgent("u", 2)], workers: [aWorker("w", { running })] }));
  assert.deepEqual(victims(result), [["c"]]);
});

test("with too many combinations to try, still none ends that need not", () => {
  const capacity = capacityOf(60, 60);
  const running = Array.from({ length: 60 }, (_, index) => lesser(`r-${index}`, 1, index % 3));
  const [ended = []] = victims(
    plan(aSnapshot({ jobs: [urgent("u", 30)], workers: [aWorker("w", { capacity, running })] })),
  );
  assert.equal(ended.length, 30);
});

test("a small job does not take the place for which a larger one has ended others, if a smaller will do", () => {
  const leaving = (one: PlacedJob): PlacedJob => ({ ...one, isLeaving: true });
  const jobs = [urgent("small", 0), urgent("large", 2)];
  const workers = [
    aWorker("w-1", { capacity: capacityOf(2, 1), running: [leaving(lesser("a", 0))] }),
    aWorker("w-2", { capacity: capacityOf(2, 2), running: [lesser("b", 1), leaving(lesser("c", 0))] }),
  ];
  assert.deepEqual(victims(plan(aSnapshot({ jobs, workers }))), []);
});

test("nobody ends for a job of the same priority, or if it does not allow it, or on a worker that takes no jobs", () => {
  const job = urgent("u", 4);
  for (const worker of [
    aWorker("w", { running: [lesser("a", 4, 5)] }),
    aWorker("w", { running: [placed("a", { resources: cpu(4) })] }),
    aWorker("w", { running: [lesser("a", 4)], unavailable: "draining" }),
    aWorker("w", { running: [lesser("a", 3), placed("b", { resources: cpu(1) })] }),
  ]) {
    assert.deepEqual(plan(aSnapshot({ jobs: [job], workers: [worker] })).preempt, []);
  }
});

test("nobody ends while a pool has room or a worker on its way", () => {
  const workers = [aWorker("w", { running: [lesser("a", 4)] })];
  const jobs = [urgent("u", 4)];
  for (const pool of [aPool("p"), aPool("p", { room: 0, arriving: 1 })]) {
    assert.deepEqual(plan(aSnapshot({ jobs, workers, pools: [pool] })).preempt, []);
  }
  const full = aPool("p", { room: 0 });
  assert.deepEqual(victims(plan(aSnapshot({ jobs, workers, pools: [full] }))), [["a"]]);
});

test("what is ending already counts as room, once", () => {
  const ending = placed("a", { resources: cpu(2), preemptible: true, isLeaving: true });
  const workers = [aWorker("w", { running: [ending, lesser("b", 2)] })];
  assert.deepEqual(plan(aSnapshot({ jobs: [urgent("u", 2)], workers })).preempt, []);
  const two = plan(aSnapshot({ jobs: [urgent("u", 2), urgent("v", 2)], workers }));
  assert.deepEqual(
    two.preempt.map(({ jobId }) => jobId),
    ["v"],
  );
  assert.deepEqual(victims(two), [["b"]]);
});

test("what is free beside a victim is kept for the job that it ended for", () => {
  const workers = [aWorker("w", { running: [lesser("a", 3)] })];
  const small = aJob("small", { resources: cpu(1) });
  const { assign, preempt, reasons } = plan(aSnapshot({ jobs: [urgent("u", 4), small], workers }));
  assert.deepEqual([assign, preempt.length], [[], 1]);
  assert.match(
    reasons.get(urgent("u", 4).placementKey)?.message ?? "",
    /a job with a lower priority on worker w is being ended/,
  );
});

test("a NoExecute taint sends away what does not tolerate it, and only that", () => {
  const taint = { key: "spot", value: "", effect: "NoExecute" as const };
  const tolerant = aPlacement({
    tolerations: [{ key: "spot", operator: "exists", value: "", effect: null }],
  });
  const workers = [
    aWorker("w", {
      taints: [taint],
      running: [
        placed("stays", { placement: tolerant }),
        placed("goes"),
        placed("ending", { isLeaving: true }),
      ],
    }),
    aWorker("x", { taints: [{ ...taint, effect: "NoSchedule" }], running: [placed("kept")] }),
  ];
  const { evict } = plan(aSnapshot({ workers }));
  assert.deepEqual(
    evict.map(({ jobId, attemptId, workerId }) => [jobId, attemptId, workerId]),
    [["goes", "goes-a", "w"]],
  );
  assert.match(evict[0]?.message ?? "", /worker w has the taint spot:NoExecute/);
});
