import assert from "node:assert/strict";
import { test } from "node:test";
import { waitKey, type Plan, type PlanInput, type PlannedJob } from "./plan.ts";
import {
  aJob,
  aPool,
  aQueue,
  aSnapshot,
  aWorker,
  capacityOf,
  cpu,
  jobs,
  placed,
} from "./planner-fixtures.ts";
import { plan } from "./planner.ts";

function placesOf({ assign }: Plan): Record<string, string> {
  return Object.fromEntries(assign.map(({ jobId, workerId }) => [jobId, workerId]));
}

function reasonOf(job: PlannedJob, input: Partial<PlanInput>): string {
  return (
    plan(aSnapshot({ ...input, jobs: [...(input.jobs ?? []), job] })).reasons.get(job.placementKey)
      ?.message ?? ""
  );
}

const prefers = (weight: number, app: string): PlannedJob["placement"]["preferences"] => [
  { weight, workerLabels: [], jobLabels: { app } },
];

test("each strategy picks its worker", () => {
  const half = placed("r", { resources: cpu(2) });
  for (const [strategy, expected] of [
    ["least_loaded", "w-2"],
    ["best_fit", "w-1"],
    ["round_robin", "w-3"],
  ] as const) {
    const workers = [
      aWorker("w-1", { strategy, running: [half], lastAssigned: 2 }),
      aWorker("w-2", { strategy, lastAssigned: 3 }),
      aWorker("w-3", { strategy, running: [placed("s")], lastAssigned: 1 }),
    ];
    const input = aSnapshot({ jobs: [aJob("j", { resources: cpu(1) })], workers, assignments: 3 });
    assert.deepEqual(placesOf(plan(input)), { j: expected }, strategy);
  }
});

test("round robin goes round within one plan, least loaded levels, and best fit fills", () => {
  for (const [strategy, expected] of [
    ["round_robin", ["a", "b", "c", "a"]],
    ["least_loaded", ["a", "b", "c", "a"]],
    ["best_fit", ["a", "a", "a", "a"]],
  ] as const) {
    const workers = ["c", "a", "b"].map((id) => aWorker(id, { strategy }));
    const given = Object.values(placesOf(plan(aSnapshot({ jobs: jobs(4, "j"), workers }))));
    assert.deepEqual(given, expected, strategy);
  }
});

test("a preference for labels of the worker comes before its load, and their weights add up", () => {
  const workers = [
    aWorker("idle", { labels: { zone: "a" } }),
    aWorker("full", { labels: { zone: "b", disk: "ssd" }, running: [placed("r")] }),
    aWorker("best", { labels: { zone: "b" }, running: [placed("s")] }),
  ];
  const wish = (
    weight: number,
    key: string,
    value: string,
  ): PlannedJob["placement"]["preferences"][number] => {
    return { weight, workerLabels: [{ key, operator: "in", values: [value] }], jobLabels: {} };
  };
  const job = aJob("j", { preferences: [wish(20, "zone", "b"), wish(-30, "disk", "ssd")] });
  assert.deepEqual(placesOf(plan(aSnapshot({ jobs: [job], workers }))), { j: "best" });
});

test("affinity looks at the jobs that run there and at those of the same plan", () => {
  const workers = ["a", "b", "c"].map((id) => aWorker(id));
  const spread = jobs(3, "web", { labels: { app: "web" }, preferences: prefers(-50, "web") });
  assert.deepEqual(Object.values(placesOf(plan(aSnapshot({ jobs: spread, workers })))), ["a", "b", "c"]);
  const together = jobs(3, "web", { labels: { app: "web" }, preferences: prefers(50, "web") });
  assert.deepEqual(Object.values(placesOf(plan(aSnapshot({ jobs: together, workers })))), ["a", "a", "a"]);
  const withDb = [...workers, aWorker("d", { running: [placed("db", { labels: { app: "db" } })] })];
  const near = aJob("j", { preferences: prefers(10, "db") });
  assert.deepEqual(placesOf(plan(aSnapshot({ jobs: [near], workers: withDb }))), { j: "d" });
});

test("a worker with a PreferNoSchedule taint is the last choice, whatever is preferred", () => {
  const taints = [{ key: "spot", value: "", effect: "PreferNoSchedule" as const }];
  const workers = [
    aWorker("a", { taints, labels: { zone: "a" } }),
    aWorker("b", { capacity: capacityOf(4, 1) }),
  ];
  const preferences = [
    { weight: 100, workerLabels: [{ key: "zone", operator: "exists" as const, values: [] }], jobLabels: {} },
  ];
  const given = placesOf(plan(aSnapshot({ jobs: jobs(2, "j", { preferences }), workers })));
  assert.deepEqual(given, { j0: "b", j1: "a" });
});

test("a higher priority of any queue goes first, then the order in the queue", () => {
  const waiting = [
    aJob("a1", { queue: "a" }),
    aJob("a2", { queue: "a" }),
    aJob("b1", { queue: "b", priority: 1 }),
    aJob("b2", { queue: "b" }),
  ];
  const workers = [aWorker("w", { capacity: capacityOf(4, 3) })];
  const { assign } = plan(aSnapshot({ jobs: waiting, workers }));
  assert.deepEqual(
    assign.map(({ jobId }) => jobId),
    ["b1", "a1", "a2"],
  );
});

test("jobs with one concurrency key are counted over all queues, each by its own limit", () => {
  const limited = (limit: number): PlannedJob["concurrency"] => ({ key: "deploy", limit });
  const waiting = [
    aJob("a", { queue: "a", concurrency: limited(2) }),
    aJob("b", { queue: "b", concurrency: limited(2) }),
    aJob("c", { queue: "c", concurrency: limited(3) }),
  ];
  const concurrency = new Map([["deploy", 1]]);
  const { assign, reasons } = plan(aSnapshot({ jobs: waiting, workers: [aWorker("w")], concurrency }));
  assert.deepEqual(
    assign.map(({ jobId }) => jobId),
    ["a", "c"],
  );
  const reason = reasons.get(waitKey.concurrency("deploy"));
  assert.equal(reason?.message, "2 jobs are at work with the concurrency key deploy, and 2 may be");
  assert.equal(reasons.has(waitKey.placement(waiting[1] ?? assert.fail())), false);
});

test("no worker is made and nobody ends for jobs that their key or queue holds", () => {
  const held = jobs(3, "j", { concurrency: { key: "k", limit: 1 } });
  const pools = [aPool("p")];
  assert.deepEqual(plan(aSnapshot({ jobs: held, pools })).provision, [
    { pool: "p", count: 1, jobIds: ["j0"] },
  ]);
  assert.deepEqual(plan(aSnapshot({ jobs: held, pools, concurrency: new Map([["k", 1]]) })).provision, []);
  const queues = [aQueue("default", { maxRunning: 2, running: 1 })];
  const inQueue = plan(aSnapshot({ jobs: jobs(3, "j"), pools, queues }));
  assert.deepEqual(inQueue.provision, [{ pool: "p", count: 1, jobIds: ["j0"] }]);
});

test("a queue that is paused or at its limit starts nothing and says so, and another is not held up", () => {
  const waiting = [
    aJob("p", { queue: "paused" }),
    aJob("l", { queue: "limited" }),
    aJob("o", { queue: "open" }),
  ];
  const queues = [
    aQueue("paused", { paused: true }),
    aQueue("limited", { maxRunning: 1, running: 1 }),
    aQueue("open"),
  ];
  const { assign, reasons } = plan(aSnapshot({ jobs: waiting, workers: [aWorker("w")], queues }));
  assert.deepEqual(
    assign.map(({ jobId }) => jobId),
    ["o"],
  );
  assert.equal(reasons.get(waitKey.queue("paused"))?.message, "queue paused is paused");
  assert.equal(
    reasons.get(waitKey.queue("limited"))?.message,
    "queue limited has 1 job at work and may have 1",
  );
});

test("jobs make as many workers as they fill, from the pool with the lowest rank, then the name", () => {
  const pools = [
    aPool("dear", { rank: 2, room: 10 }),
    aPool("b", { rank: 1, room: 2, capacity: capacityOf(4, 3) }),
    aPool("a", { rank: 1, room: 1, capacity: capacityOf(2, 8) }),
  ];
  const { provision } = plan(aSnapshot({ jobs: jobs(9, "j", { resources: cpu(1) }), pools }));
  assert.deepEqual(
    provision.map(({ pool, count, jobIds }) => [pool, count, jobIds]),
    [
      ["dear", 1, ["j8"]],
      ["b", 2, ["j2", "j5"]],
      ["a", 1, ["j0"]],
    ],
  );
});

test("workers that are on their way are booked before others are made", () => {
  const pools = [aPool("p", { arriving: 2, capacity: capacityOf(4, 2), room: 2 })];
  const { provision } = plan(aSnapshot({ jobs: jobs(5, "j"), pools }));
  assert.deepEqual(provision, [{ pool: "p", count: 1, jobIds: ["j4"] }]);
  const job = aJob("j");
  assert.equal(reasonOf(job, { pools }), "waiting for a worker of pool p to connect");
  assert.equal(reasonOf(job, { pools: [aPool("p")] }), "a worker of pool p is being made");
});

test("who waits for a worker is told what its provider is at", () => {
  const pools = [aPool("p", { arriving: 1, activity: "pulling image x, 12 of 80 MB" })];
  assert.equal(
    reasonOf(aJob("j"), { pools }),
    "waiting for a worker of pool p to connect; pulling image x, 12 of 80 MB",
  );
});

test("thousands of jobs of many kinds are booked on thousands of workers, and the rest makes as many as fit", () => {
  const pools = [1, 2, 3].map((index) =>
    aPool(`p${index}`, { arriving: 1_000, room: 500, maxWorkers: 1_500 }),
  );
  const waiting = Array.from({ length: 5_000 }, (_, index) =>
    aJob(`j${index}`, { resources: { ...cpu(1), memoryBytes: index % 20 } }),
  );
  const { provision } = plan(aSnapshot({ jobs: waiting, pools }));
  assert.deepEqual(
    provision.map(({ count }) => count),
    [500, 500, 500],
  );
});

test("a job moves aside for one that fits nowhere else", () => {
  const pools = [
    aPool("a", { arriving: 1, room: 5, labels: { zone: "a" } }),
    aPool("b", { arriving: 1, room: 5, labels: { zone: "b" } }),
  ];
  const waiting = [aJob("any"), aJob("a", { selector: { zone: "a" } })];
  assert.deepEqual(plan(aSnapshot({ jobs: waiting, pools })).provision, []);
});

test("a pool whose abilities are not known makes one worker for jobs that ask for some", () => {
  const asking = jobs(3, "j", { capabilities: ["pause"] });
  const pools = [aPool("a", { capabilities: null }), aPool("b", { capabilities: null })];
  const first = plan(aSnapshot({ jobs: asking, pools }));
  assert.deepEqual(first.provision, [{ pool: "a", count: 1, jobIds: ["j0"] }]);
  const later = [aPool("a", { capabilities: null, arriving: 1 }), pools[1] ?? assert.fail()];
  const next = plan(aSnapshot({ jobs: asking, pools: later }));
  assert.deepEqual(next.provision, []);
  const reason = next.reasons.get(asking[0]?.placementKey ?? "")?.message;
  assert.equal(reason, "the first worker of pool a will show what its workers can do");
});

test("a pool with a problem is passed over for another one", () => {
  const broken = { message: "no such image", triedAtMs: 5 };
  const pools = [
    aPool("a", { problem: "unhealthy" }),
    aPool("b", { permanentProblem: broken }),
    aPool("c", { rank: 9 }),
  ];
  const { provision, fail } = plan(aSnapshot({ jobs: [aJob("j")], pools }));
  assert.deepEqual([provision, fail], [[{ pool: "c", count: 1, jobIds: ["j"] }], []]);
});

test("a job fails with the provider's message if only pools that failed for good could take it", () => {
  const permanentProblem = { message: "no such image: nope:1", triedAtMs: 5 };
  const pools = [aPool("p", { permanentProblem })];
  const waiting = [aJob("before", { pendingSinceMs: 4 }), aJob("after", { pendingSinceMs: 5 })];
  const { fail, provision } = plan(aSnapshot({ jobs: waiting, pools }));
  assert.deepEqual(fail, [{ jobId: "before", message: "no such image: nope:1" }]);
  assert.deepEqual(
    provision,
    [{ pool: "p", count: 1, jobIds: ["after"] }],
    "who came later has it tried again",
  );
  const busy = aWorker("w", { unavailable: "cordoned" });
  assert.deepEqual(
    plan(aSnapshot({ jobs: waiting, pools, workers: [busy] })).fail,
    [],
    "a worker may take it",
  );
  const other = aPool("other", { problem: "unhealthy" });
  assert.deepEqual(plan(aSnapshot({ jobs: waiting, pools: [...pools, other] })).fail, [], "another pool may");
});

test("a job that waits has the right reason", () => {
  const taint = { key: "gpu", value: "", effect: "NoSchedule" as const };
  const workers = [
    aWorker("small", { labels: { os: "linux", gpu: "a100" } }),
    aWorker("tainted", { labels: { os: "linux", secure: "yes" }, taints: [taint] }),
    aWorker("away", { labels: { os: "mac" }, unavailable: "it is cordoned" }),
    aWorker("busy", { labels: { os: "bsd" }, running: jobsOf(4) }),
  ];
  const pools = [
    aPool("big", {
      labels: { os: "linux", size: "big" },
      capacity: capacityOf(16, 1),
      room: 0,
      maxWorkers: 2,
    }),
    aPool("ill", { labels: { os: "windows" }, problem: "the engine does not answer" }),
  ];
  const expected: [Parameters<typeof aJob>[1], string, boolean][] = [
    [{ resources: cpu(64) }, "needs 64 cores; the largest is pool big with 16", true],
    [{ selector: { gpu: "h100" } }, "no worker and no pool has gpu=h100; there is gpu=a100", true],
    [
      { selector: { oss: "linux" } },
      "no worker and no pool has oss=linux; none has a label oss; there are labels os, gpu, size, secure",
      true,
    ],
    [
      { selector: { gpu: "a100", os: "mac" } },
      "no worker and no pool fulfils gpu=a100 and os=mac together; the closest: worker away has no label gpu, the job needs gpu=a100",
      true,
    ],
    [
      { selector: { secure: "yes" } },
      "every worker and pool with its labels keeps it away: worker tainted has the taint gpu:NoSchedule, which the job does not tolerate",
      true,
    ],
    [
      { capabilities: ["pause"] },
      "no worker and no pool can do what it needs: pool big cannot do pause, which the job needs",
      true,
    ],
    [{ selector: { size: "big" } }, "pool big is at its maximum of 2 workers", false],
    [{ selector: { os: "windows" } }, "pool ill cannot make a worker: the engine does not answer", false],
    [
      { selector: { os: "mac" } },
      "worker away, the only one that fits, takes no jobs: it is cordoned",
      false,
    ],
    [{ selector: { os: "bsd" } }, "worker busy, the only one that fits, is busy", false],
  ];
  for (const [asked, message, impossible] of expected) {
    const job = aJob("j", asked);
    const { reasons, assign } = plan(aSnapshot({ jobs: [job], workers, pools }));
    assert.deepEqual(assign, [], message);
    assert.deepEqual(reasons.get(job.placementKey), { impossible, message });
  }
});

test("without any worker and pool, the reason says so", () => {
  assert.equal(reasonOf(aJob("j"), {}), "there is no worker, and no pool that could make one");
  const pools = [aPool("off", { maxWorkers: 0, room: 0 })];
  assert.equal(reasonOf(aJob("j"), { pools }), "there is no worker, and no pool that could make one");
});

function jobsOf(count: number): ReturnType<typeof placed>[] {
  return Array.from({ length: count }, (_, index) => placed(`r-${index}`));
}
