import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { Job } from "../../core/job.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { Scheduler } from "../loops/scheduling.ts";
import { SchedulingState } from "../scheduling/scheduling-state.ts";
import { fixedPools } from "./pool.ts";
import { roundOf, samplePoolOf } from "./pools-fixtures.ts";
import { Provisioner } from "./provisioner.ts";

function setup(t: TestContext, changes: Partial<PoolDefinition> = {}) {
  const plane = makeControlPlane({ takesOneJob: changes.ephemeral ?? false });
  const provider = new FakeProvider();
  /** The test may change what there is. */
  const pools = [samplePoolOf(provider, changes)];
  const makeProvisioner = (): Provisioner =>
    new Provisioner({ ...plane, pools: fixedPools(pools), serverUrl: () => "http://127.0.0.1:1" });
  const provisioner = makeProvisioner();
  const state = new SchedulingState({ ...plane, plannedPools: () => provisioner.plannedPools() });
  const onJobChanged = (job: Job): void => state.onJobChanged(job);
  const scheduler = new Scheduler({
    ...plane,
    state,
    provision: (wanted) => provisioner.provision(wanted),
    onJobChanged,
    onWanted: onJobChanged,
    hint() {},
  });
  t.after(async () => {
    provisioner.stopListening();
    await scheduler.stop();
  });
  const schedule = (): Promise<void> => scheduler.round(new AbortController().signal);
  /** Lets the creations under way end. */
  const made = (count: number): Promise<boolean> => eventually(() => provider.instances.size === count);
  const only = (): string => [...provider.instances][0] ?? "";
  const workerState = async (id: string) => (await plane.store.getWorker(id))?.state;
  return { ...plane, pools, provider, provisioner, makeProvisioner, schedule, made, only, workerState };
}

test("makes as many workers as jobs wait, up to the maximum, however often it is asked", async (t) => {
  const { queue, schedule, made, provider } = setup(t);
  await queue();
  await queue();
  for (let round = 0; round < 3; round += 1) await schedule();
  await made(2);
  assert.equal(provider.specs.length, 2);
  for (let index = 0; index < 5; index += 1) await queue();
  for (let round = 0; round < 3; round += 1) await schedule();
  await made(3);
  assert.equal(provider.specs.length, 3);
});

test("backs off after a failed create and shows its reason to the jobs that wait", async (t) => {
  const { queue, schedule, job, provider, clock, made, workerState } = setup(t, { maxWorkers: 1 });
  provider.misbehaviour.createFailure = new AppError("unavailable", "no such image");
  const id = await queue();
  await schedule();
  await eventually(async () => (await workerState(provider.specs[0]?.workerId ?? "")) === "terminated");
  await schedule();
  assert.equal(provider.specs.length, 1);
  assert.match((await job(id)).message, /cannot make a worker: .*no such image/);
  provider.misbehaviour.createFailure = null;
  clock.advance(60_000);
  await schedule();
  await made(1);
});

test("waits longer and longer for a pool whose workers die before they connect", async (t) => {
  const { queue, schedule, provider, clock, made, provisioner, only } = setup(t, { maxWorkers: 1 });
  await queue();
  const waits: number[] = [];
  for (let round = 0; round < 8; round += 1) {
    const fromMs = clock.nowMs();
    await eventually(async () => {
      clock.advance(500);
      await schedule();
      return provider.specs.length === round + 1;
    });
    waits.push(clock.nowMs() - fromMs);
    await made(1);
    const lost = only();
    provider.lose(lost);
    await eventually(
      () =>
        provisioner.plannedPools()[0]?.problem === "it fell over" &&
        provisioner.plannedPools()[0]?.arriving === 0,
    );
  }
  // The ceilings of the eight waits add up to 127 s; eight times the first one would be 8 s.
  assert.ok(waits.reduce((sum, wait) => sum + wait) > 12_000, waits.join(" "));
});

test("sends a worker away that has been idle for long enough, and no other", async (t) => {
  const { queue, schedule, made, only, connect, provisioner, clock } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const { connection } = connect(only(), { capacity: { jobs: 1 } });
  await schedule();
  await roundOf(provisioner);
  clock.advance(120_000);
  await roundOf(provisioner);
  assert.equal(connection.session.draining, false, "it has a job");
  connection.session.attempts.clear();
  await roundOf(provisioner);
  clock.advance(59_999);
  await roundOf(provisioner);
  assert.equal(connection.session.draining, false);
  clock.advance(1);
  await roundOf(provisioner);
  assert.equal(connection.session.draining, true);
});

test("does not call a worker idle while a job is being assigned to it", async (t) => {
  const { queue, schedule, made, only, connect, provisioner, clock, connections } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const { connection } = connect(only());
  await roundOf(provisioner);
  let store = (): void => {};
  const stored = new Promise<null>((resolve) => (store = () => resolve(null)));
  const assigning = connections.assign(only(), () => stored);
  clock.advance(60_000);
  await roundOf(provisioner);
  assert.equal(connection.session.draining, false);
  store();
  await assigning;
});

test("an ephemeral worker is told to leave with its first job", async (t) => {
  const { queue, schedule, made, only, connect, job, store } = setup(t, { ephemeral: true, maxWorkers: 1 });
  const first = await queue();
  await schedule();
  await made(1);
  assert.equal((await store.getWorker(only()))?.takesOneJob, true);
  const { connection } = connect(only(), { capacity: { jobs: 4 } });
  await schedule();
  assert.equal((await job(first)).state, "scheduled");
  assert.equal(connection.session.draining, true);
  const second = await queue();
  await schedule();
  assert.equal((await job(second)).state, "pending");
});

test("removes a worker that has left, and one that never came", async (t) => {
  const { queue, schedule, made, only, provisioner, store, clock, workerState } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const left = only();
  await store.changeWorker({ workerId: left, state: "terminated", message: "left" });
  await roundOf(provisioner);
  await made(0);
  await schedule();
  await made(1);
  const late = only();
  clock.advance(2 * 60_000 + 1);
  await roundOf(provisioner);
  await made(0);
  assert.equal(await workerState(late), "terminated");
});

test("keeps a worker that came and lost its stream between two rounds", async (t) => {
  const { queue, schedule, made, only, provisioner, store, clock } = setup(t);
  await queue();
  await schedule();
  await made(1);
  await store.changeWorker({ workerId: only(), state: "ready" });
  clock.advance(10 * 60_000);
  await roundOf(provisioner);
  await made(1);
});

test("gives no job to a worker that is gone and whose stream seems to be open", async (t) => {
  const { queue, schedule, made, only, provider, connect, connections, workerState } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const workerId = only();
  connect(workerId);
  provider.lose(workerId);
  await eventually(async () => (await workerState(workerId)) === "terminated");
  assert.deepEqual(connections.planned(), []);
});

test("notices the loss of a worker whose stream is closed and whose transport hangs", async (t) => {
  const { queue, schedule, made, only, provider, connect, provisioner, store, workerState } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const workerId = only();
  await store.changeWorker({ workerId, state: "ready" });
  connect(workerId).connection.close();
  provider.instances.clear();
  await roundOf(provisioner);
  assert.equal(await workerState(workerId), "terminated");
});

test("frees the jobs of a worker that is gone at once", async (t) => {
  const { queue, schedule, made, only, connect, provider, job, workerState } = setup(t);
  const id = await queue();
  await schedule();
  await made(1);
  const workerId = only();
  connect(workerId);
  await schedule();
  assert.equal((await job(id)).state, "scheduled");
  provider.lose(workerId);
  await eventually(async () => (await workerState(workerId)) === "terminated");
  const { state, message } = await job(id);
  assert.equal(state, "pending");
  assert.match(message, /worker_lost/);
});

test("destroys an instance that nobody owns, and takes over those of the server before", async (t) => {
  const { queue, schedule, made, only, provider, makeProvisioner, newId, provisioner } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const owned = only();
  provisioner.stopListening();
  const next = makeProvisioner();
  t.after(() => next.stopListening());
  await next.adopt();
  provider.instances.add(newId());
  await roundOf(next);
  assert.deepEqual([...provider.instances], [owned]);
});

test("a command's server ends its own workers and idle ones, and leaves those of a server that are at work", async (t) => {
  const plane = setup(t);
  const { queue, schedule, made, only, provider, connect, provisioner, makeProvisioner, job } = plane;
  const id = await queue();
  await schedule();
  await made(1);
  const atWork = only();
  connect(atWork, { capacity: { jobs: 1 } });
  await schedule();
  assert.equal((await job(id)).workerId, atWork);
  provisioner.stopListening();
  const command = makeProvisioner();
  await command.adopt();
  command.provision([{ pool: "local", count: 1 }]);
  await made(2);
  await command.destroyWorkers("own");
  assert.deepEqual([...provider.instances], [atWork]);
  assert.equal((await job(id)).state, "scheduled");
});

test("gives up a worker at once that the server before began to make and never did", async (t) => {
  const { queue, schedule, made, only, provider, makeProvisioner, provisioner, workerState } = setup(t);
  await queue();
  await schedule();
  await made(1);
  const lost = only();
  provisioner.stopListening();
  provider.instances.clear();
  const next = makeProvisioner();
  t.after(() => next.stopListening());
  await next.adopt();
  assert.equal(next.plannedPools()[0]?.arriving, 1);
  await roundOf(next);
  assert.equal(await workerState(lost), "terminated");
  assert.equal(next.plannedPools()[0]?.arriving, 0);
});

test("leaves nothing behind at a stop, neither a worker that is being made nor a job that seems to run", async (t) => {
  const { queue, schedule, made, only, connect, provider, provisioner, job } = setup(t);
  const id = await queue();
  await schedule();
  await made(1);
  connect(only(), { capacity: { jobs: 1 } });
  await schedule();
  let create = (): void => {};
  provider.misbehaviour.createDelay = new Promise((resolve) => (create = resolve));
  await queue();
  await schedule();
  await eventually(() => provider.specs.length === 2);
  const stopping = provisioner.destroyWorkers("all");
  create();
  await stopping;
  await made(0);
  assert.equal((await job(id)).state, "pending");
  provisioner.provision([{ pool: "local", count: 1 }]);
  assert.equal(provider.specs.length, 2);
});

test("goes on with the workers of one provider while another one is away", async (t) => {
  const plane = makeControlPlane({ takesOneJob: false });
  const away = new FakeProvider({ outage: new Error("no socket") });
  const here = new FakeProvider();
  const pools = [
    samplePoolOf(away, { name: "a" }, { providerName: "away" }),
    samplePoolOf(here, { name: "b" }, { providerName: "here" }),
  ];
  const provisioner = new Provisioner({
    ...plane,
    pools: fixedPools(pools),
    serverUrl: () => "http://127.0.0.1:1",
  });
  t.after(() => provisioner.stopListening());
  here.instances.add("01a1ff9a-0000-7000-8000-000000000000");
  await assert.rejects(roundOf(provisioner), /no socket/);
  assert.deepEqual([...here.instances], []);
});

test("says what is wrong with a provider that is away, and goes on when it is back", async (t) => {
  const { queue, schedule, job, provider, provisioner, made } = setup(t);
  const outage = new Error("no socket");
  provider.misbehaviour.createFailure = outage;
  provider.misbehaviour.outage = outage;
  const id = await queue();
  await schedule();
  await eventually(() => provisioner.plannedPools()[0]?.problem !== null);
  for (let rounds = 0; rounds < 3; rounds += 1) {
    await assert.rejects(roundOf(provisioner), /no socket/);
    await schedule();
    assert.match((await job(id)).message, /pool local cannot make a worker: .*no socket/);
  }
  assert.equal(provider.specs.length, 1);
  provider.misbehaviour.createFailure = null;
  provider.misbehaviour.outage = null;
  await roundOf(provisioner);
  await schedule();
  await made(1);
});

test("leaves a worker alone while it is being made", async (t) => {
  const { queue, schedule, store, provider, provisioner, made } = setup(t);
  const insert = store.insertWorker.bind(store);
  let insertNow = (): void => {};
  const gate = new Promise<void>((resolve) => (insertNow = resolve));
  store.insertWorker = async (worker) => {
    await gate;
    return await insert(worker);
  };
  await queue();
  await schedule();
  // The database does not know it yet, which says nothing of whether it is wanted.
  await roundOf(provisioner);
  insertNow();
  await made(1);
  await roundOf(provisioner);
  assert.equal(provider.instances.size, 1);
});
