import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { plan, type Plan, type PlannedJob, type PlannedPool, type PlannedWorker } from "./planner.ts";

interface Cluster {
  jobs: PlannedJob[];
  workers: PlannedWorker[];
  pools: PlannedPool[];
}

test("no worker is given more than it can hold, and every job lands on labels it asked for", () => {
  forClusters((cluster) => {
    const jobs = new Map(cluster.jobs.map((job) => [job.id, job]));
    for (const worker of cluster.workers) {
      const given = assignedTo(plan(cluster), worker.id).map(
        (jobId) => jobs.get(jobId) ?? assert.fail(jobId),
      );
      assert.ok(given.length <= worker.free.jobs);
      for (const resource of ["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const) {
        const used = given.reduce((sum, job) => sum + job.resources[resource], 0);
        assert.ok(given.length === 0 || used <= worker.free[resource], resource);
      }
      for (const job of given) assert.ok(hasLabels(worker.labels, job.selector));
    }
  });
});

test("no job is assigned twice, and only to workers that exist", () => {
  forClusters((cluster) => {
    const { assign } = plan(cluster);
    assert.equal(new Set(assign.map(({ jobId }) => jobId)).size, assign.length);
    for (const { workerId } of assign) assert.ok(cluster.workers.some(({ id }) => id === workerId));
  });
});

test("every job that is not assigned has a reason", () => {
  forClusters((cluster) => {
    const result = plan(cluster);
    const assigned = new Set(result.assign.map(({ jobId }) => jobId));
    for (const job of cluster.jobs) {
      const reason = result.reasons.get(job.placementKey);
      assert.ok(assigned.has(job.id) || (reason && reason.message.length > 0), job.id);
    }
  });
});

test("no job is left waiting while a worker has room for it", () => {
  forClusters((cluster) => {
    const result = plan(cluster);
    const free = freeAfter(cluster, result);
    const assigned = new Set(result.assign.map(({ jobId }) => jobId));
    for (const job of cluster.jobs.filter(({ id }) => !assigned.has(id))) {
      for (const worker of free) assert.ok(!fits(job, worker), `${job.id} would fit on ${worker.id}`);
    }
  });
});

test("a job that fits nowhere changes nothing for the others", () => {
  forClusters((cluster) => {
    const giant = aJob("giant", { resources: { cpuMillis: 1e9, memoryBytes: 0, diskBytes: 0, gpu: 0 } });
    const without = plan(cluster);
    const withGiant = plan({ ...cluster, jobs: [giant, ...cluster.jobs] });
    assert.deepEqual(withGiant.assign, without.assign);
    assert.deepEqual(withGiant.provision, without.provision);
    assert.ok(withGiant.reasons.has(giant.placementKey));
  });
});

test("a reason is called impossible only if no worker and no pool could ever take the job", () => {
  forClusters((cluster) => {
    const { reasons } = plan(cluster);
    for (const job of cluster.jobs) {
      if (!reasons.get(job.placementKey)?.impossible) continue;
      assert.ok(!cluster.workers.some((worker) => fits(job, worker)), job.id);
      assert.ok(!cluster.pools.some((pool) => fits(job, { ...pool, free: pool.capacity })), job.id);
    }
  });
});

test("no pool is asked for more workers than it has room for, nor for none", () => {
  forClusters((cluster) => {
    for (const { pool, count } of plan(cluster).provision) {
      const room = cluster.pools.find(({ name }) => name === pool)?.room ?? assert.fail(pool);
      assert.ok(count > 0 && count <= room);
    }
  });
});

test("n jobs that wait for a pool of one job each ask for one worker each, less those arriving, up to its room", () => {
  const inputs = fc.record({ jobs: fc.nat(40), room: fc.nat(30), arriving: fc.nat(30) });
  fc.assert(
    fc.property(inputs, ({ jobs: count, room, arriving }) => {
      const jobs = Array.from({ length: count }, (_, index) => aJob(`j-${index}`));
      const expected = Math.min(Math.max(0, count - arriving), room);
      const { provision } = plan({ jobs, workers: [], pools: [aPool("p", { room, arriving })] });
      assert.deepEqual(provision, expected > 0 ? [{ pool: "p", count: expected }] : []);
    }),
  );
});

test("asking again after a pool's workers were asked for asks for no more", () => {
  forClusters((cluster) => {
    const onePool = { ...cluster, pools: cluster.pools.slice(0, 1) };
    assert.deepEqual(plan(afterAsking(onePool)).provision, []);
  });
});

test("with several pools, asking over and over comes to rest, with no more workers in a pool than jobs", () => {
  forClusters((cluster) => {
    let later = cluster;
    const rounds = cluster.pools.reduce((sum, pool) => sum + pool.room, 1);
    for (let round = 0; round < rounds; round += 1) later = afterAsking(later);
    assert.deepEqual(plan(later).provision, []);
    later.pools.forEach((pool, index) => {
      assert.ok(pool.arriving <= Math.max(cluster.pools[index]?.arriving ?? 0, cluster.jobs.length));
    });
  });
});

test("the same cluster gives the same plan, and is left as it was", () => {
  forClusters((cluster) => {
    const before = JSON.stringify(cluster);
    const first = plan(cluster);
    assert.deepEqual(plan(cluster), first);
    assert.equal(JSON.stringify(cluster), before);
  });
});

test("of several workers the one with the most free places is taken, of equal ones the first", () => {
  const workers = [aWorker("w-1", 2), aWorker("w-2", 3), aWorker("w-3", 3)];
  const jobs = ["a", "b", "c", "d"].map((id) => aJob(id));
  const { assign } = plan({ jobs, workers, pools: [] });
  assert.deepEqual(
    assign.map(({ workerId }) => workerId),
    ["w-2", "w-3", "w-1", "w-2"],
  );
});

test("jobs start in the order in which they were given", () => {
  const jobs = ["a", "b", "c"].map((id) => aJob(id));
  assert.deepEqual(
    plan({ jobs, workers: [aWorker("w", 2)], pools: [] }).assign.map(({ jobId }) => jobId),
    ["a", "b"],
  );
});

test("reasons say what would have to change", () => {
  const pool = aPool("small", { labels: { os: "linux" } });
  const reasonFor = (job: Partial<PlannedJob>, cluster: Partial<Cluster> = {}) => {
    const planned = aJob("j", job);
    return plan({ jobs: [planned], workers: [], pools: [pool], ...cluster }).reasons.get(
      planned.placementKey,
    );
  };
  assert.match(
    reasonFor({ selector: { os: "plan9" } })?.message ?? "",
    /no worker and no pool has the label os=plan9/,
  );
  assert.match(
    reasonFor({}, { pools: [{ ...pool, room: 0 }] })?.message ?? "",
    /pool small is at its maximum/,
  );
  const failing = { ...pool, room: 0, problem: "no such image" };
  assert.match(
    reasonFor({}, { pools: [failing] })?.message ?? "",
    /pool small cannot make a worker: no such image/,
  );
  assert.match(
    reasonFor({}, { pools: [{ ...pool, arriving: 1 }] })?.message ?? "",
    /waiting for a worker of pool small to connect/,
  );
  assert.match(reasonFor({})?.message ?? "", /a worker of pool small is being made/);
  assert.match(
    reasonFor({}, { pools: [], workers: [aWorker("w", 0)] })?.message ?? "",
    /every worker with these labels is busy/,
  );
  assert.match(reasonFor({ resources: { ...NOTHING, gpu: 9 } })?.message ?? "", /no pool is large enough/);
});

const NOTHING = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 };

const labels = fc.dictionary(fc.constantFrom("os", "zone"), fc.constantFrom("a", "b"), {
  noNullPrototype: true,
});
const resources = fc.record({
  cpuMillis: fc.constantFrom(0, 500, 1_000, 3_000),
  memoryBytes: fc.constantFrom(0, 100, 1_000),
  diskBytes: fc.constantFrom(0, 10),
  gpu: fc.constantFrom(0, 0, 1),
});
const capacity = fc.record({
  cpuMillis: fc.constantFrom(0, 1_000, 4_000),
  memoryBytes: fc.constantFrom(0, 1_000, 2_000),
  diskBytes: fc.constantFrom(0, 25),
  gpu: fc.nat(2),
  jobs: fc.nat(4),
});

/** Clusters of all shapes: empty, overfull, with equal and with unequal jobs. */
const cluster: fc.Arbitrary<Cluster> = fc.record({
  jobs: fc
    .array(fc.record({ resources, selector: labels }), { maxLength: 25 })
    .map((jobs) => jobs.map((job, index) => aJob(`j-${index}`, job))),
  workers: fc
    .array(fc.record({ labels, free: capacity }), { maxLength: 6 })
    .map((workers) => workers.map((worker, index) => ({ id: `w-${index}`, ...worker }))),
  pools: fc
    .array(fc.record({ labels, capacity, room: fc.nat(5), arriving: fc.nat(3) }), { maxLength: 3 })
    .map((pools) =>
      pools.map((pool, index) => ({
        name: `p-${index}`,
        problem: null,
        ...pool,
        capacity: { ...pool.capacity, jobs: pool.capacity.jobs + 1 },
      })),
    ),
});

function forClusters(check: (cluster: Cluster) => void): void {
  fc.assert(fc.property(cluster, check), { numRuns: 500 });
}

function aJob(id: string, fields: Partial<PlannedJob> = {}): PlannedJob {
  const job = { id, resources: NOTHING, selector: {}, ...fields };
  const sorted = Object.entries(job.selector).toSorted(([left], [right]) => (left < right ? -1 : 1));
  return { placementKey: JSON.stringify([Object.values(job.resources), sorted]), ...job };
}

function aWorker(id: string, jobs: number): PlannedWorker {
  return { id, labels: {}, free: { ...NOTHING, jobs } };
}

function aPool(name: string, fields: Partial<PlannedPool> = {}): PlannedPool {
  return {
    name,
    labels: {},
    capacity: { ...NOTHING, jobs: 1 },
    room: 1,
    arriving: 0,
    problem: null,
    ...fields,
  };
}

/** The cluster once the workers that its plan asks for are on their way. */
function afterAsking(cluster: Cluster): Cluster {
  const { provision } = plan(cluster);
  const pools = cluster.pools.map((pool) => {
    const count = provision.find((entry) => entry.pool === pool.name)?.count ?? 0;
    return { ...pool, room: pool.room - count, arriving: pool.arriving + count };
  });
  return { ...cluster, pools };
}

function assignedTo(result: Plan, workerId: string): string[] {
  return result.assign.filter((entry) => entry.workerId === workerId).map(({ jobId }) => jobId);
}

function freeAfter(cluster: Cluster, result: Plan): PlannedWorker[] {
  const jobs = new Map(cluster.jobs.map((job) => [job.id, job]));
  return cluster.workers.map((worker) => {
    const free = { ...worker.free };
    for (const jobId of assignedTo(result, worker.id)) {
      const job = jobs.get(jobId) ?? assert.fail(jobId);
      free.jobs -= 1;
      for (const resource of ["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const)
        free[resource] -= job.resources[resource];
    }
    return { ...worker, free };
  });
}

function fits(job: PlannedJob, worker: Pick<PlannedWorker, "labels" | "free">): boolean {
  const { free } = worker;
  const hasRoom = (["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const).every(
    (resource) => free[resource] >= job.resources[resource],
  );
  return free.jobs >= 1 && hasRoom && hasLabels(worker.labels, job.selector);
}

function hasLabels(present: Record<string, string>, wanted: Record<string, string>): boolean {
  return Object.entries(wanted).every(([key, value]) => present[key] === value);
}
