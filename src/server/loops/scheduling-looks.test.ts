import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { JobDefinition } from "../../core/job.ts";
import type { PlannedPool, PlannedWorker } from "../../core/plan.ts";
import { defaultQueue, type QueueConfig } from "../../core/pool.ts";
import { sampleWorker } from "../../core/session-fixtures.ts";
import { newJobOf } from "../../storage/conformance/samples.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { SchedulingState } from "../scheduling/scheduling-state.ts";
import { samplePool } from "./loop-fixtures.ts";
import { Scheduler } from "./scheduling.ts";

const CAPACITY = { cpuMillis: 4_000, memoryBytes: 2 ** 40, diskBytes: 2 ** 40, gpu: 0, jobs: 1 };

/** A scheduler whose clock stands still, but for what reading the queue takes. */
function setup(readCostMs: number) {
  const store = createMemoryStore({ random: systemRandom });
  const time = { ms: 0 };
  const workers: PlannedWorker[] = [];
  const pools: PlannedPool[] = [];
  const assigned: string[] = [];
  const made: [pool: string, count: number][] = [];
  const state = { reads: 0, listings: 0, timers: [] as number[] };
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => time.ms,
    schedule(delayMs) {
      state.timers.push(delayMs);
      return () => {};
    },
  };
  const listPending = store.listPending.bind(store);
  store.listPending = (options) => {
    state.reads += 1;
    time.ms += readCostMs;
    return listPending(options);
  };
  const scheduling = new SchedulingState({
    store,
    clock,
    connections: {
      assignments: 0,
      get: () => null,
      get room() {
        return { workers: workers.length, jobs: workers.reduce((sum, { free }) => sum + free.jobs, 0) };
      },
      planned() {
        state.listings += 1;
        return workers.map((worker) => ({ ...worker, free: { ...worker.free } }));
      },
    },
    plannedPools: () => pools,
  });
  const configure = (queue: QueueConfig) => scheduling.queues.configure({ set: [queue], reset: [] });
  const scheduler = new Scheduler({
    store,
    state: scheduling,
    connections: {
      async assign(workerId, write) {
        const view = await write({ isClosed: false, runnerId: "", takesOneJob: false });
        const worker = workers.find(({ id }) => id === workerId);
        if (view && worker) worker.free.jobs -= 1;
        if (view) assigned.push(view.job.id);
      },
    },
    clock,
    random: systemRandom,
    provision(wanted) {
      for (const { pool: name, count } of wanted) {
        made.push([name, count]);
        const pool = pools.find((each) => each.name === name);
        if (pool) Object.assign(pool, { room: pool.room - count, arriving: pool.arriving + count });
      }
    },
    onJobChanged: () => {},
    onWanted: () => {},
    hint: () => {},
  });
  const queue = async (
    selector: Record<string, string>,
    count: number,
    more: Partial<JobDefinition> = {},
  ): Promise<string[]> => {
    const jobs = Array.from({ length: count }, () => newJobOf({ selector, ...more }, { nowMs: 0 }));
    await store.insertJobs(jobs);
    return jobs.map(({ id }) => id);
  };
  const connect = (): void => {
    const id = uuidV7(systemClock, systemRandom);
    workers.push({
      id,
      name: id,
      pool: "local",
      labels: { os: "linux" },
      taints: [],
      capabilities: [],
      capacity: CAPACITY,
      free: { ...CAPACITY },
      strategy: "least_loaded",
      running: [],
      lastAssigned: 0,
      unavailable: null,
    });
  };
  const round = () => scheduler.round(new AbortController().signal);
  const reasonOf = async (jobId: string) => (await store.getJob(jobId))?.message ?? "";
  return { store, pools, time, state, assigned, made, configure, queue, connect, round, reasonOf };
}

test("while nothing has room, the queue is read once a second at most, however often asked", async () => {
  const { time, state, queue, round } = setup(100);
  await queue({}, 3);
  await round();
  const { reads } = state;
  for (let asked = 0; asked < 100; asked += 1) await round();
  assert.equal(state.reads, reads);
  time.ms += 1_000;
  await round();
  assert.equal(state.reads, reads * 2);
});

test("a cheap look at the queue is repeated sooner", async () => {
  const { time, state, queue, round } = setup(1);
  await queue({}, 3);
  await round();
  time.ms += 25;
  const { reads } = state;
  await round();
  assert.equal(state.reads, reads + 1);
});

test("a job that comes between two looks gets its reason by the next one, which is asked for once", async () => {
  const { time, state, queue, round, reasonOf } = setup(10);
  await queue({ os: "plan9" }, 1);
  await round();
  const [late = ""] = await queue({ os: "vms" }, 1);
  await round();
  await round();
  assert.equal(await reasonOf(late), "");
  assert.deepEqual(state.timers, [200]);
  time.ms += 200;
  await round();
  assert.match(await reasonOf(late), /no worker/);
});

test("room that appears is used at once, also between two looks", async () => {
  const { assigned, queue, connect, round } = setup(100);
  const ids = await queue({}, 2);
  await round();
  connect();
  await round();
  assert.equal(assigned.length, 1);
  connect();
  await round();
  assert.deepEqual(assigned.toSorted(), ids.toSorted());
});

test("a job behind many that fit nowhere is found by the next look", async () => {
  const { time, state, assigned, queue, connect, round } = setup(10);
  await queue({ os: "plan9" }, 700);
  await round();
  const [fitting] = await queue({ os: "linux" }, 1);
  connect();
  await round();
  assert.deepEqual(assigned, []);
  assert.equal(state.timers.length, 1);
  time.ms += 1_000;
  await round();
  assert.deepEqual(assigned, [fitting]);
});

test("a job behind a page that fits nowhere is not overtaken by a lower priority of another queue", async () => {
  for (const misfits of [60, 700]) {
    const { time, assigned, queue, connect, round } = setup(10);
    await round();
    await queue({ os: "plan9" }, misfits, { queue: "a", priority: 20 });
    const [important] = await queue({}, 1, { queue: "a", priority: 10 });
    await queue({}, 100, { queue: "b" });
    connect();
    // Between two looks and, with as many as one look reads of a queue, also in one.
    if (misfits === 700) time.ms += 1_000;
    await round();
    assert.deepEqual(assigned, [important]);
  }
});

test("queues whose jobs all wait for something of their own do not hide the job that fits", async () => {
  const { assigned, queue, connect, round } = setup(10);
  for (let index = 0; index < 25; index += 1) {
    await queue({ only: String(index) }, 510, { queue: `q${index}`, priority: 5 });
  }
  const [fitting] = await queue({}, 1, { queue: "z" });
  connect();
  await round();
  assert.deepEqual(assigned, [fitting]);
});

test("a job does not fail for its pool while a worker that is away could take it", async () => {
  const { store, pools, queue, connect, round } = setup(10);
  const workerId = uuidV7(systemClock, systemRandom);
  const labels = { gpu: "yes" };
  await store.insertWorker({ id: workerId, name: "away", provider: "", pool: "", nowMs: 0, token: null });
  await store.changeWorker({ workerId, state: "unreachable", info: { ...sampleWorker, workerId, labels } });
  const permanentProblem = { message: "no such image", triedAtMs: 1 };
  pools.push(samplePool({ labels, capacity: sampleWorker.capacity, room: 0, permanentProblem }));
  await round();
  connect();
  const [id = ""] = await queue(labels, 1);
  await round();
  assert.equal((await store.getJob(id))?.state, "pending");
  await store.changeWorker({ workerId, state: "terminated" });
});

test("a job behind more kinds of jobs than one look reads is found by one that goes on there", async () => {
  const { store, time, assigned, queue, connect, round } = setup(10);
  const misfits = Array.from({ length: 10_600 }, (_, index) =>
    newJobOf({ selector: { only: String(index) }, priority: 5 }, { nowMs: 0 }),
  );
  await store.insertJobs(misfits);
  const [fitting] = await queue({}, 1);
  connect();
  await round();
  assert.deepEqual(assigned, []);
  time.ms += 1_000;
  await round();
  assert.deepEqual(assigned, [fitting]);
});

test("a job that is read later is not told to wait for a worker that comes for one that was read earlier", async () => {
  const { pools, made, queue, round } = setup(10);
  pools.push(samplePool({ capacity: CAPACITY, arriving: 1, room: 1 }));
  await queue({}, 1, { priority: 5 });
  await queue({ os: "plan9" }, 510, { priority: 1 });
  await queue({ os: "linux" }, 1);
  await round();
  assert.deepEqual(made, [["local", 1]]);
});

test("no more workers are made for a queue than it may have at work, however many reads it takes", async () => {
  const { configure, pools, made, queue, round } = setup(10);
  await configure({ ...defaultQueue("a"), maxRunning: 1 });
  pools.push(samplePool({ capacity: CAPACITY }));
  pools.push(samplePool({ name: "other", capacity: CAPACITY, labels: { os: "mac" } }));
  await queue({ os: "linux" }, 1, { queue: "a", priority: 5 });
  await queue({ os: "plan9" }, 510, { queue: "a", priority: 1 });
  await queue({ os: "mac" }, 1, { queue: "a" });
  await round();
  assert.deepEqual(made, [["local", 1]]);
});

test("between two looks, one read of the queue takes one listing of the workers", async () => {
  const { state, assigned, queue, connect, round } = setup(10);
  await round();
  await queue({}, 1);
  connect();
  const { reads, listings } = state;
  await round();
  assert.equal(assigned.length, 1);
  assert.deepEqual([state.reads - reads, state.listings - listings], [1, 1]);
  await round();
  assert.deepEqual([state.reads - reads, state.listings - listings], [1, 1]);
});
