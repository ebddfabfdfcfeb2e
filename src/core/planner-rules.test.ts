import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { explainJob, placementProblem } from "./explain.ts";
import { blockersOf, canEver, hasRoom } from "./placement.ts";
import { waitKey, type Plan, type PlanInput, type PlannedJob, type PlannedWorker } from "./plan.ts";
import {
  aJob,
  aPool,
  aQueue,
  aSnapshot,
  assigned,
  assignedTo,
  aWorker,
  capacityOf,
  cpu,
  freed,
  freeWith,
  indexOf,
  placed,
} from "./planner-fixtures.ts";
import { plan } from "./planner.ts";
import { PLACEMENT_STRATEGIES } from "./pool.ts";

const RUNS = 1_500;

test("no worker is given more than it holds", () => {
  forClusters((input, result) => {
    for (const worker of input.workers) {
      const given = assignedTo(input, result, worker);
      assert.ok(given.length === 0 || given.length <= worker.free.jobs);
      for (const name of ["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const) {
        const used = given.reduce((sum, { placement }) => sum + placement.resources[name], 0);
        assert.ok(given.length === 0 || used <= worker.free[name], name);
      }
    }
  });
});

test("no job goes to a worker that does not fit it or takes none", () => {
  forClusters((input, result) => {
    for (const worker of input.workers) {
      for (const job of assignedTo(input, result, worker)) {
        assert.deepEqual(blockersOf(job.placement, worker, worker.free), []);
        assert.equal(worker.unavailable, null);
      }
    }
  });
});

test("no job is assigned, failed and made room for at once, or twice", () => {
  forClusters((input, result) => {
    const decided = [...result.assign, ...result.fail, ...result.preempt].map(({ jobId }) => jobId);
    assert.equal(new Set(decided).size, decided.length);
    const made = result.provision.flatMap(({ jobIds }) => jobIds);
    assert.equal(new Set([...made, ...decided]).size, made.length + decided.length);
    for (const id of [...decided, ...made]) assert.ok(input.jobs.some((job) => job.id === id));
  });
});

test("no concurrency key is exceeded, also by jobs of one plan", () => {
  forClusters((input, result) => {
    for (const job of assigned(input, result)) {
      if (job.concurrency === null) continue;
      const { key, limit } = job.concurrency;
      const before = indexOf(result, job);
      const started = assigned(input, result).filter(
        (other) => other.concurrency?.key === key && indexOf(result, other) <= before,
      );
      assert.ok((input.concurrency.get(key) ?? 0) + started.length <= limit);
    }
  });
});

test("no queue has more at work than it may, and a paused one starts nothing", () => {
  forClusters((input, result) => {
    for (const { name, paused, maxRunning, running } of input.queues) {
      const started = assigned(input, result).filter(({ queue }) => queue === name).length;
      if (paused) assert.equal(started, 0);
      if (maxRunning !== null) assert.ok(started === 0 || running + started <= maxRunning);
    }
  });
});

test("a job never starts while one of a higher priority that fits there waits with nothing that holds it", () => {
  forClusters((input, result) => {
    const started = new Set(result.assign.map(({ jobId }) => jobId));
    for (const waiting of input.jobs) {
      if (started.has(waiting.id) || isHeld(input, result, waiting)) continue;
      for (const job of assigned(input, result).filter(({ priority }) => priority < waiting.priority)) {
        const worker = workerOf(input, result, job);
        const earlier = assignedTo(input, result, worker).filter(
          ({ priority }) => priority >= waiting.priority,
        );
        const fits =
          canEver(waiting.placement, worker) &&
          hasRoom(freeWith(worker, earlier), waiting.placement.resources);
        assert.ok(!fits, `${job.id} took the place of ${waiting.id} on ${worker.id}`);
      }
    }
  });
});

test("no job is left waiting while a worker has room for it", () => {
  forClusters((input, result) => {
    if (result.preempt.length > 0 || hasLeaving(input)) return;
    const started = new Set(result.assign.map(({ jobId }) => jobId));
    for (const job of input.jobs.filter(({ id }) => !started.has(id))) {
      if (isHeld(input, result, job)) continue;
      for (const worker of input.workers.filter(({ unavailable }) => unavailable === null)) {
        const free = freeWith(worker, assignedTo(input, result, worker));
        const fits = canEver(job.placement, worker) && hasRoom(free, job.placement.resources);
        assert.ok(!fits, `${job.id} would fit on ${worker.id}`);
      }
    }
  });
});

test("a job that fits nowhere changes nothing for the others", () => {
  forClusters((input, without) => {
    const name = input.jobs[0]?.queue ?? "giants";
    const giant = aJob("giant", { resources: cpu(1_000), priority: 10, queue: name });
    const { assign, provision, preempt, reasons } = plan({ ...input, jobs: [giant, ...input.jobs] });
    assert.deepEqual([assign, provision, preempt], [without.assign, without.provision, without.preempt]);
    const queue = input.queues.find((each) => each.name === name);
    assert.equal(reasons.get(giant.placementKey)?.impossible ?? false, !isQueueHeld(queue));
  });
});

test("planning is deterministic, does not change its input, and does not depend on the order of workers and pools", () => {
  forClusters((input, result) => {
    const before = structuredClone(input);
    assert.deepEqual(plan(input), result);
    assert.deepEqual(input, before);
    const workers = input.workers.toReversed();
    const turned = plan({ ...input, workers, pools: input.pools.toReversed() });
    assert.deepEqual(
      [turned.assign, turned.fail, turned.preempt],
      [result.assign, result.fail, result.preempt],
    );
    const byPool = ({ provision }: Plan): unknown =>
      provision.toSorted((left, right) => (left.pool < right.pool ? -1 : 1));
    assert.deepEqual(byPool(turned), byPool(result));
  });
});

test("waiting jobs never make more workers than there are jobs without one, nor more than a pool has room", () => {
  forClusters((input, result) => {
    const started = new Set(result.assign.map(({ jobId }) => jobId));
    let made = 0;
    for (const { pool: name, count, jobIds } of result.provision) {
      const pool = input.pools.find((each) => each.name === name);
      assert.ok(pool && pool.problem === null && count <= pool.room);
      assert.equal(jobIds.length, count);
      for (const id of jobIds) {
        const job = input.jobs.find((each) => each.id === id);
        assert.ok(job && !started.has(id) && canEver(job.placement, pool));
      }
      made += count;
    }
    assert.ok(made <= input.jobs.length - started.size);
  });
});

test("however many rounds pass until the first worker connects, no more are made than jobs wait", () => {
  forClusters((input) => {
    let { pools } = input;
    let made = 0;
    for (let round = 0; round < 4; round += 1) {
      const { provision } = plan({ ...input, workers: [], pools });
      pools = pools.map((each) => {
        const count = provision.find((one) => one.pool === each.name)?.count ?? 0;
        made += count;
        return { ...each, arriving: each.arriving + count, room: each.room - count };
      });
    }
    assert.ok(made <= input.jobs.length, `${made} for ${input.jobs.length} jobs`);
  });
});

test("victims are always preemptible, of a lower priority, on the same worker, and not ending already", () => {
  let count = 0;
  forCrowded((input, result) => {
    const seen = new Set<string>();
    for (const { jobId, workerId, victims } of result.preempt) {
      const job = input.jobs.find(({ id }) => id === jobId);
      const worker = input.workers.find(({ id }) => id === workerId);
      assert.ok(job && worker && victims.length > 0 && canEver(job.placement, worker));
      assert.equal(worker.unavailable, null);
      for (const { attemptId } of victims) {
        const victim = worker.running.find((each) => each.attemptId === attemptId);
        assert.ok(victim?.preemptible && victim.priority < job.priority && !victim.isLeaving);
        assert.ok(!seen.has(attemptId), "nobody is ended twice");
        seen.add(attemptId);
        count += 1;
      }
    }
  });
  assert.ok(count > 20, `only ${count} victims in all clusters`);
});

test("a job whose victims are still ending takes no others", () => {
  forCrowded((crowded) => {
    const input = { ...crowded, jobs: crowded.jobs.map((each) => ({ ...each, queue: "q-0" })) };
    const result = plan(input);
    const ended = new Set(result.preempt.flatMap(({ victims }) => victims.map(({ attemptId }) => attemptId)));
    const workers = input.workers.map((worker) => ({
      ...worker,
      free: freeWith(worker, assignedTo(input, result, worker)),
      running: worker.running.map((each) => ({
        ...each,
        isLeaving: each.isLeaving || ended.has(each.attemptId),
      })),
    }));
    const started = new Set(result.assign.map(({ jobId }) => jobId));
    const next = plan({ ...input, workers, jobs: input.jobs.filter(({ id }) => !started.has(id)) });
    const first = result.preempt.map(({ jobId }) => jobId);
    assert.deepEqual(
      next.preempt.filter(({ jobId }) => first.includes(jobId)),
      [],
    );
  });
});

test("no attempt is ended if the job would fit without its room", () => {
  forCrowded((input, result) => {
    if (hasLeaving(input)) return;
    for (const { jobId, workerId, victims } of result.preempt) {
      const job = input.jobs.find(({ id }) => id === jobId);
      const worker = input.workers.find(({ id }) => id === workerId);
      assert.ok(job && worker);
      if (result.preempt.filter((each) => each.workerId === workerId).length > 1) continue;
      for (const spared of victims) {
        const ended = worker.running.filter(
          ({ attemptId, isLeaving }) =>
            isLeaving ||
            (attemptId !== spared.attemptId && victims.some((each) => each.attemptId === attemptId)),
        );
        const free = freeWith({ ...worker, free: freed(worker, ended) }, assignedTo(input, result, worker));
        assert.ok(!hasRoom(free, job.placement.resources), `${spared.jobId} ends for nothing`);
      }
    }
  });
});

test("every job that waits has a reason, under its queue, its concurrency key or its placement", () => {
  forClusters((input, result) => {
    const decided = new Set([...result.assign, ...result.fail].map(({ jobId }) => jobId));
    for (const job of input.jobs.filter(({ id }) => !decided.has(id))) {
      const keys = [
        waitKey.queue(job.queue),
        waitKey.concurrency(job.concurrency?.key ?? ""),
        job.placementKey,
      ];
      const reason = keys.map((key) => result.reasons.get(key)).find((each) => each !== undefined);
      assert.ok(reason && reason.message.length > 0, job.id);
    }
  });
});

test("a reason is called impossible exactly if no worker and no pool could ever take the job", () => {
  forClusters((input, result) => {
    for (const job of input.jobs) {
      const reason = result.reasons.get(job.placementKey);
      if (!reason) continue;
      const places = [...input.workers, ...input.pools];
      const isPossible = places.some((place) => canEver(job.placement, place));
      assert.equal(reason.impossible, !isPossible, job.id);
      assert.equal(placementProblem(job.placement, input) !== null, !isPossible && places.length > 0);
    }
  });
});

test("explain agrees with the planner: alone, a job that is assigned has a worker that fits, and no other has one", () => {
  forClusters((input) => {
    for (const job of input.jobs.slice(0, 4)) {
      const explained = explainJob(job, input);
      const alone = plan({ ...input, jobs: [job] });
      const hasFit = explained.workers.some(({ fits }) => fits);
      if (alone.assign.length > 0) {
        const chosen = explained.workers.find(({ workerId }) => workerId === alone.assign[0]?.workerId);
        assert.ok(explained.kind === "assigned" && chosen?.fits, job.id);
        assert.equal(explained.workers[0]?.fits, true, "the closest comes first");
      } else if (explained.heldBy === "") {
        assert.ok(!hasFit && explained.kind !== "assigned", job.id);
        const hasPool = explained.pools.some(({ fits }) => fits);
        assert.ok(alone.provision.length === 0 || hasPool);
      }
      assert.equal(explained.workers.length, input.workers.length);
      assert.equal(explained.pools.length, input.pools.length);
      assert.ok(explained.reason.length > 0);
    }
  });
});

function forClusters(check: (input: PlanInput, result: Plan) => void): void {
  fc.assert(
    fc.property(cluster, (input) => check(input, plan(input))),
    { numRuns: RUNS },
  );
}

/** With the prototype of any other object, so that copies are equal to it. */
function plainRecord<T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

/** No limits, and no pools, so that jobs have to make room for each other. */
function forCrowded(check: (input: PlanInput, result: Plan) => void): void {
  fc.assert(
    fc.property(cluster, (input) => {
      const queues = input.queues.map((queue) => ({ ...queue, maxRunning: null, paused: false }));
      const crowded = {
        ...input,
        pools: [],
        queues,
        jobs: input.jobs.map((each) => ({ ...each, concurrency: null })),
      };
      check(crowded, plan(crowded));
    }),
    { numRuns: RUNS },
  );
}

const small = (most: number): fc.Arbitrary<number> => fc.integer({ min: 0, max: most });
const zone = fc.constantFrom("a", "b");
const taint = plainRecord({
  key: fc.constantFrom("spot", "gpu"),
  value: fc.constant(""),
  effect: fc.constantFrom("NoSchedule" as const, "PreferNoSchedule" as const, "NoExecute" as const),
});
const taints = fc.oneof(
  { weight: 3, arbitrary: fc.constant([]) },
  { weight: 1, arbitrary: fc.array(taint, { maxLength: 2 }) },
);

const job = fc
  .record({
    queue: fc.constantFrom("q-0", "q-1", "q-2"),
    priority: small(2),
    pendingSinceMs: small(3),
    cores: small(5),
    zone: fc.option(zone, { freq: 3 }),
    cpus: fc.option(small(4), { freq: 2 }),
    isTolerant: fc.boolean(),
    capabilities: fc.constantFrom<string[]>([], [], ["pause"]),
    preference: fc.option(
      fc.record({ weight: fc.constantFrom(-50, 10, 20), app: fc.constantFrom("", "web", "db") }),
      {
        freq: 2,
      },
    ),
    app: fc.constantFrom("web", "db"),
    concurrency: fc.option(
      plainRecord({ key: fc.constantFrom("k", "l"), limit: fc.integer({ min: 1, max: 3 }) }),
      {
        freq: 2,
      },
    ),
  })
  .map((made) =>
    aJob("", {
      ...made,
      resources: cpu(made.cores),
      selector: made.zone === null ? {} : { zone: made.zone },
      selectorExpressions:
        made.cpus === null ? [] : [{ key: "cpus", operator: "gt", values: [String(made.cpus)] }],
      tolerations: made.isTolerant ? [{ key: "", operator: "exists", value: "", effect: null }] : [],
      capabilities: made.capabilities,
      preferences: made.preference === null ? [] : [preferenceOf(made.preference)],
      labels: { app: made.app },
    }),
  );

function preferenceOf({
  weight,
  app,
}: {
  weight: number;
  app: string;
}): PlannedJob["placement"]["preferences"][number] {
  return app === ""
    ? { weight, workerLabels: [{ key: "zone", operator: "in", values: ["a"] }], jobLabels: {} }
    : { weight, workerLabels: [], jobLabels: { app } };
}

const runningJob = fc
  .record({
    priority: small(2),
    cores: small(2),
    preemptible: fc.boolean(),
    isLeaving: fc.constantFrom(false, false, true),
  })
  .map((made) => placed("", { ...made, resources: cpu(made.cores), labels: { app: "web" } }));

const worker = fc
  .record({
    zone,
    cpus: small(6),
    slots: fc.integer({ min: 1, max: 5 }),
    taints,
    capabilities: fc.constantFrom<string[]>([], ["pause"]),
    strategy: fc.constantFrom(...PLACEMENT_STRATEGIES),
    lastAssigned: small(9),
    unavailable: fc.constantFrom(null, null, null, "cordoned"),
    running: fc.array(runningJob, { maxLength: 3 }),
  })
  .map(({ zone: name, cpus, slots, ...made }) =>
    aWorker("", {
      ...made,
      labels: { zone: name, cpus: String(cpus) },
      capacity: capacityOf(cpus + 2, slots),
    }),
  );

const pool = fc
  .record({
    zone,
    cpus: small(6),
    jobs: fc.integer({ min: 1, max: 3 }),
    taints,
    capabilities: fc.constantFrom(null, [], ["pause"]),
    room: small(3),
    arriving: small(2),
    rank: small(2),
    problem: fc.constantFrom(null, null, "unhealthy"),
    permanentProblem: fc.constantFrom(null, null, { message: "no such image", triedAtMs: 2 }),
  })
  .map(({ zone: name, cpus, jobs: slots, ...made }) =>
    aPool("", { ...made, labels: { zone: name, cpus: String(cpus) }, capacity: capacityOf(cpus, slots) }),
  );

const queue = fc.record({
  weight: fc.integer({ min: 1, max: 4 }),
  maxRunning: fc.option(small(3), { freq: 2 }),
  running: small(2),
  paused: fc.constantFrom(false, false, false, true),
  pass: small(5),
});

const cluster: fc.Arbitrary<PlanInput> = fc
  .record({
    jobs: fc.array(job, { maxLength: 14 }),
    workers: fc.array(worker, { maxLength: 5 }),
    pools: fc.array(pool, { maxLength: 3 }),
    queues: fc.tuple(queue, queue, queue),
    held: small(2),
  })
  .map(({ jobs, workers, pools, queues, held }) =>
    aSnapshot({
      jobs: jobs.map((each, index) => ({ ...each, id: `j-${index}` })),
      workers: workers.map((each, index) => ({
        ...each,
        id: `w-${index}`,
        name: `w-${index}`,
        running: each.running.map((one, place) => ({
          ...one,
          jobId: `r-${index}-${place}`,
          attemptId: `a-${index}-${place}`,
        })),
      })),
      pools: pools.map((each, index) => ({ ...each, name: `p-${index}` })),
      queues: queues.map((each, index) => aQueue(`q-${index}`, each)),
      concurrency: new Map([["k", held]]),
      assignments: 9,
    }),
  );

function workerOf(input: PlanInput, result: Plan, each: PlannedJob): PlannedWorker {
  const workerId = result.assign[indexOf(result, each)]?.workerId;
  return input.workers.find(({ id }) => id === workerId) ?? assert.fail(workerId);
}

function hasLeaving({ workers }: PlanInput): boolean {
  return workers.some(
    ({ running, taints: own }) => own.length > 0 || running.some(({ isLeaving }) => isLeaving),
  );
}

function isQueueHeld(one: PlanInput["queues"][number] | undefined, started = 0): boolean {
  if (!one) return false;
  return one.paused || (one.maxRunning !== null && one.running + started >= one.maxRunning);
}

/** By its queue or its concurrency key, as far as the plan goes. */
function isHeld(input: PlanInput, result: Plan, { queue: name, concurrency }: PlannedJob): boolean {
  const started = assigned(input, result);
  const inQueue = started.filter((each) => each.queue === name).length;
  if (
    isQueueHeld(
      input.queues.find((each) => each.name === name),
      inQueue,
    )
  )
    return true;
  if (concurrency === null) return false;
  const { key, limit } = concurrency;
  const withKey = started.filter((each) => each.concurrency?.key === key).length;
  return (input.concurrency.get(key) ?? 0) + withKey >= limit;
}
