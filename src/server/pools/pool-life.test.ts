import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { PlannedPool } from "../../core/plan.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { fixedPools, type Pool } from "./pool.ts";
import { roundOf, samplePoolOf } from "./pools-fixtures.ts";
import { Provisioner } from "./provisioner.ts";

function setup(t: TestContext, changes: Partial<PoolDefinition> = {}) {
  const plane = makeControlPlane();
  const provider = new FakeProvider();
  /** A test may change what there is. */
  const pools: Pool[] = [samplePoolOf(provider, changes)];
  const forgotten: string[] = [];
  const source = {
    ...fixedPools(pools),
    forget: async (name: string) => {
      forgotten.push(name);
      pools.splice(0, pools.length, ...pools.filter((pool) => pool.name !== name));
    },
  };
  const provisioner = new Provisioner({ ...plane, pools: source, serverUrl: () => "http://127.0.0.1:1" });
  t.after(() => provisioner.stopListening());
  const planned = (name = "local"): PlannedPool => {
    const found = provisioner.plannedPools().find((pool) => pool.name === name);
    assert.ok(found);
    return found;
  };
  /** Ids of the workers that were asked for. */
  const asked: string[] = [];
  const { store } = plane;
  const insert = store.insertWorker.bind(store);
  store.insertWorker = (worker) => {
    asked.push(worker.id);
    return insert(worker);
  };
  /** Does something, and waits until each worker that it made is there, or could not be made and is gone. */
  const settled = async (work: () => Promise<void> | void): Promise<string[]> => {
    const before = asked.length;
    await work();
    const made = asked.slice(before);
    for (const id of made) {
      await eventually(async () => {
        const worker = await store.getWorker(id);
        return worker && (worker.madeAtMs !== null || worker.state === "terminated");
      });
    }
    return made;
  };
  const provision = (count: number): Promise<string[]> =>
    settled(() => provisioner.provision([{ pool: "local", count }]));
  const round = (): Promise<string[]> => settled(() => roundOf(provisioner));
  const state = async (id: string) => (await plane.store.getWorker(id))?.state;
  return { ...plane, provider, pools, forgotten, provisioner, planned, provision, round, state };
}

test("keeps the minimum and the spares, and replaces one that is lost", async (t) => {
  const { round, provider, connect, planned } = setup(t, { minWorkers: 1, warmSpares: 2 });
  await round();
  assert.equal(provider.specs.length, 2);
  await round();
  assert.equal(provider.specs.length, 2);
  const [first = "", second = ""] = [...provider.instances];
  connect(first);
  connect(second);
  await round();
  assert.equal(planned().room, 1);
  provider.lose(first);
  await eventually(() => provider.instances.size === 1);
  await eventually(() => planned().room === 2);
  await round();
  assert.equal(provider.specs.length, 3);
});

test("makes a spare as soon as one is at work, up to the maximum", async (t) => {
  const { round, provider, connect, running, connections, clock } = setup(t, {
    warmSpares: 1,
    maxWorkers: 2,
  });
  await round();
  const [id = ""] = [...provider.instances];
  const { connection } = connect(id);
  await round();
  assert.equal(provider.specs.length, 1);
  const { jobId, attemptId } = await running(id);
  await connections.assign(id, async () => null);
  connection.session.attempts.set(attemptId, { jobId } as never);
  await round();
  assert.equal(provider.specs.length, 2);
  clock.advance(600_000);
  await round();
  assert.equal(provider.specs.length, 2);
  assert.equal(connection.session.draining, false);
});

test("after three failures in a row makes one worker at a time, until one has come", async (t) => {
  const { provision, provider, clock, planned, connect, round } = setup(t);
  provider.misbehaviour.createFailure = new Error("busy");
  for (let failures = 0; failures < 3; failures += 1) {
    assert.equal(planned().room, 3);
    await provision(1);
    assert.equal(planned().room, 0);
    assert.equal(planned().problem, "busy");
    assert.equal(planned().permanentProblem, null);
    clock.advance(60_500);
  }
  assert.equal(planned().room, 1);
  provider.misbehaviour.createFailure = null;
  const [id = ""] = await provision(5);
  assert.equal(provider.specs.length, 4);
  assert.equal(planned().room, 0);
  assert.equal(planned().problem, "busy");
  assert.equal(planned().arriving, 1);
  connect(id);
  await round();
  assert.deepEqual([planned().room, planned().problem], [2, null]);
});

test("says when a failure does not pass, and when it was tried", async (t) => {
  const { provision, provider, clock, planned } = setup(t);
  provider.misbehaviour.createFailure = new AppError("not_found", "image nowhere:1 is not there");
  const triedAtMs = clock.nowMs();
  await provision(1);
  assert.deepEqual(planned().permanentProblem, { message: "image nowhere:1 is not there", triedAtMs });
  clock.advance(15_000);
  assert.equal(planned().room, 1);
  assert.notEqual(planned().permanentProblem, null);
  const againAtMs = clock.nowMs();
  await provision(1);
  assert.equal(planned().permanentProblem?.triedAtMs, againAtMs);
});

test("a pool that is made in another way begins anew", async (t) => {
  const { provision, provider, pools, planned } = setup(t);
  provider.misbehaviour.createFailure = new AppError("not_found", "image nowhere:1 is not there");
  await provision(1);
  assert.equal(planned().room, 0);
  pools[0] = samplePoolOf(provider, { labels: { zone: "b" } });
  assert.deepEqual([planned().room, planned().problem], [3, null]);
});

test("makes no workers while the provider is unhealthy, and goes on when it is well", async (t) => {
  const { provision, provider, provisioner, planned } = setup(t, { minWorkers: 1 });
  provider.misbehaviour.health = { status: "unhealthy", reason: "no socket" };
  await provisioner.checkAllProviders();
  assert.deepEqual([planned().room, planned().problem], [0, "provider fake is unhealthy: no socket"]);
  await provision(1);
  await roundOf(provisioner);
  assert.equal(provider.specs.length, 0);
  assert.deepEqual(
    provisioner.providerViews().map(({ name, status, reason }) => ({ name, status, reason })),
    [{ name: "fake", status: "unhealthy", reason: "no socket" }],
  );
  provider.misbehaviour.health = { status: "degraded", reason: "the disk is nearly full" };
  await provisioner.checkAllProviders();
  assert.deepEqual([planned().room, planned().problem], [3, null]);
});

test("a pool in good health goes before one that is not, then the cheaper, then the faster", async (t) => {
  const { pools, provisioner, planned, round, provision, provider, connect, store } = setup(t);
  const sick = new FakeProvider({ health: { status: "degraded", reason: "slow" } });
  pools.push(samplePoolOf(new FakeProvider(), { name: "dear", costPerHour: 1 }));
  pools.push(samplePoolOf(sick, { name: "sick" }));
  pools.push(samplePoolOf(new FakeProvider(), { name: "unknown" }));
  await provisioner.checkAllProviders();
  const [id = ""] = await provision(1);
  connect(id);
  await store.changeWorker({ workerId: id, state: "ready" });
  await round();
  assert.deepEqual(
    ["local", "unknown", "dear", "sick"].map((name) => planned(name).rank),
    [0, 1, 2, 3],
  );
  assert.equal(provider.instances.size, 1);
});

test("gives up a worker that does not come within the time of its pool", async (t) => {
  const { provision, provisioner, clock, state, planned } = setup(t, { startTimeoutMs: 5_000 });
  const [id = ""] = await provision(1);
  clock.advance(5_000);
  await roundOf(provisioner);
  assert.equal(await state(id), "creating");
  clock.advance(1);
  await roundOf(provisioner);
  assert.equal(await state(id), "terminated");
  assert.match(planned().problem ?? "", /did not connect/);
});

test("learns from a worker that comes what its pool can do", async (t) => {
  const { provision, provisioner, connect, planned, store } = setup(t);
  assert.equal(planned().capabilities, null);
  const [id = ""] = await provision(1);
  connect(id).connection.info.capabilities = ["pause"];
  await roundOf(provisioner);
  assert.deepEqual(planned().capabilities, ["pause"]);
  assert.notEqual((await store.getWorker(id))?.madeAtMs, null);
});

test("replaces the workers of a pool that has changed: idle ones at once, busy ones after their job", async (t) => {
  const { round, provider, pools, connect } = setup(t, { minWorkers: 2, maxWorkers: 3 });
  await round();
  const [idle = "", busy = ""] = [...provider.instances];
  const idleConnection = connect(idle).connection;
  const busyConnection = connect(busy).connection;
  busyConnection.session.attempts.set("a-1", {} as never);
  pools[0] = samplePoolOf(provider, { minWorkers: 2, maxWorkers: 3, labels: { zone: "b" } });
  await round();
  assert.equal(idleConnection.session.draining, true);
  assert.equal(busyConnection.session.draining, true);
  // Within the maximum, for those that leave are still there.
  assert.equal(provider.specs.length, 3);
  assert.equal(provider.specs[2]?.labels["zone"], "b");
  provider.lose(idle);
  await eventually(() => provider.instances.size === 2);
  await eventually(async () => (await round()) && provider.specs.length === 4);
});

test("a pool whose size alone has changed keeps its workers", async (t) => {
  const { round, provider, pools, connect } = setup(t, { minWorkers: 1 });
  await round();
  const { connection } = connect([...provider.instances][0] ?? "");
  pools[0] = samplePoolOf(provider, { minWorkers: 1, maxWorkers: 9 });
  await round();
  assert.equal(connection.session.draining, false);
  assert.equal(provider.specs.length, 1);
});

test("a pool that is deleted makes no workers, drains those it has, and goes with the last", async (t) => {
  const { round, provision, provider, pools, connect, forgotten, planned, provisioner } = setup(t, {
    minWorkers: 1,
  });
  await round();
  const [id = ""] = [...provider.instances];
  const { connection } = connect(id);
  pools[0] = samplePoolOf(provider, { minWorkers: 1 }, { isDeleting: true });
  await provision(1);
  await round();
  assert.equal(provider.specs.length, 1);
  assert.equal(connection.session.draining, true);
  assert.deepEqual([planned().room, planned().problem], [0, "it is being deleted"]);
  assert.deepEqual(forgotten, []);
  provider.lose(id);
  await eventually(async () => {
    await roundOf(provisioner);
    return forgotten.length === 1;
  });
  assert.deepEqual(provisioner.poolViews(), []);
});

test("a worker of the age takes no more jobs", async (t) => {
  const { round, provider, connect, clock } = setup(t, { minWorkers: 1, maxLifetimeMs: 60_000 });
  await round();
  const { connection } = connect([...provider.instances][0] ?? "");
  connection.session.attempts.set("a-1", {} as never);
  clock.advance(59_999);
  await round();
  assert.equal(connection.session.draining, false);
  clock.advance(1);
  await round();
  assert.equal(connection.session.draining, true);
  assert.equal(provider.specs.length, 2);
});

test("removes a worker on demand, with what it runs, and no other", async (t) => {
  const { provision, provisioner, provider, running, connect, job, state, newId } = setup(t);
  const [id = "", other = ""] = await provision(2);
  connect(id);
  const { jobId } = await running(id);
  assert.equal(await provisioner.removeWorker(id, "removed by somebody"), true);
  assert.deepEqual([...provider.instances], [other]);
  assert.equal(await state(id), "terminated");
  assert.equal((await job(jobId)).state, "pending");
  assert.equal(await provisioner.removeWorker(newId(), "removed by somebody"), false);
});

test("counts instances that nobody owns, those that it destroyed and those that it cannot", async (t) => {
  const { provider, provisioner, newId, provision } = setup(t);
  await provision(1);
  const counts = (): number[] => {
    const [view] = provisioner.providerViews();
    return [view?.orphansDestroyed ?? -1, view?.orphans ?? -1];
  };
  provider.instances.add(newId());
  await roundOf(provisioner);
  assert.deepEqual(counts(), [1, 0]);
  provider.instances.add(newId());
  provider.instances.add(newId());
  provider.misbehaviour.destroyFailure = new AppError("unavailable", "it is stuck");
  await assert.rejects(roundOf(provisioner), /it is stuck/);
  assert.deepEqual(counts(), [1, 2]);
  provider.misbehaviour.destroyFailure = null;
  await roundOf(provisioner);
  assert.deepEqual(counts(), [3, 0]);
  assert.equal(provider.instances.size, 1);
});

test("shows what there is of a pool", async (t) => {
  const { provision, provisioner, connect, provider, clock } = setup(t);
  const [first = ""] = await provision(2);
  connect(first).connection.session.attempts.set("a-1", {} as never);
  const [view] = provisioner.poolViews();
  assert.deepEqual(
    [view?.workers, view?.arriving, view?.busy, view?.problem, view?.retryAtMs],
    [2, 1, 1, "", null],
  );
  provider.misbehaviour.createFailure = new Error("busy");
  await provision(1);
  const [broken] = provisioner.poolViews();
  assert.equal(broken?.problem, "busy");
  assert.ok((broken.retryAtMs ?? 0) > clock.nowMs());
});

test("one worker that cannot be removed holds up none of the others", async (t) => {
  const { provider, provisioner, provision, store, connect, clock, state } = setup(t, { maxWorkers: 5 });
  const [stuck = "", left = "", idle = ""] = await provision(3);
  provider.misbehaviour.stuck = new Set([stuck]);
  const { connection } = connect(idle);
  for (const workerId of [stuck, left]) {
    await store.changeWorker({ workerId, state: "terminated", message: "left" });
  }
  provider.instances.add("01a1ff9a-0000-7000-8000-000000000000");
  await assert.rejects(roundOf(provisioner), /it is stuck/);
  assert.deepEqual([...provider.instances], [stuck, idle], "neither one that has left nor an orphan stays");
  clock.advance(60_000);
  await assert.rejects(roundOf(provisioner), /it is stuck/);
  assert.equal(connection.session.draining, true);
  provider.misbehaviour.stuck = new Set();
  await roundOf(provisioner);
  assert.deepEqual([...provider.instances], [idle]);
  assert.equal(await state(stuck), "terminated");
});

test("gives up all workers that are late, also if one of them cannot be removed", async (t) => {
  const { provider, provisioner, provision, planned, clock } = setup(t, { startTimeoutMs: 30_000 });
  const [stuck = ""] = await provision(3);
  provider.misbehaviour.stuck = new Set([stuck]);
  clock.advance(30_001);
  await assert.rejects(roundOf(provisioner), /it is stuck/);
  assert.deepEqual([...provider.instances], [stuck]);
  assert.match(planned().problem ?? "", /did not connect within 30 s; can it reach http:/);
});

test("a worker that runs and is silent for long makes room for another, unless it may run a job", async (t) => {
  const { provisioner, provision, provider, planned, store, connect, connections, clock, running, state } =
    setup(t, { maxWorkers: 2 });
  const [frozen = "", atWork = ""] = await provision(2);
  for (const workerId of [frozen, atWork]) {
    const { connection } = connect(workerId);
    await store.changeWorker({ workerId, state: "ready", lastHeartbeatAtMs: clock.nowMs() });
    await roundOf(provisioner);
    connections.remove(connection);
  }
  await running(atWork);
  connections.listeningSinceMs(clock.nowMs());
  clock.advance(10 * 60_000 - 1);
  await roundOf(provisioner);
  assert.equal(planned().room, 0);
  clock.advance(1);
  await roundOf(provisioner);
  assert.deepEqual([...provider.instances], [atWork]);
  assert.equal(await state(frozen), "terminated");
  assert.equal(planned().room, 1);
});

test("workers of a pool that is gone from the settings end their jobs and leave", async (t) => {
  const { provisioner, provider, newId, store, clock, connect, running, job, state } = setup(t);
  const id = newId();
  const nowMs = clock.nowMs();
  await store.insertWorker({ id, name: id, provider: "fake", pool: "gone", nowMs, token: null });
  await store.changeWorker({ workerId: id, state: "ready", lastHeartbeatAtMs: nowMs });
  provider.instances.add(id);
  const { jobId } = await running(id);
  await roundOf(provisioner);
  assert.deepEqual([...provider.instances], [id], "it was taken for an orphan");
  const { connection } = connect(id, { pool: "gone" });
  await roundOf(provisioner);
  assert.equal(connection.session.draining, true);
  provider.lose(id);
  await eventually(async () => (await state(id)) === "terminated");
  assert.equal((await job(jobId)).state, "pending");
});

test("a worker that could be neither made nor removed takes its own place, and no other", async (t) => {
  const { provider, provisioner, provision, planned, clock } = setup(t);
  await provisioner.checkAllProviders();
  provider.misbehaviour.createFailure = new AppError("unavailable", "no luck");
  provider.misbehaviour.destroyFailure = new Error("busy");
  provisioner.provision([{ pool: "local", count: 1 }]);
  await eventually(() => planned().problem !== null && planned().arriving === 0);
  provider.misbehaviour.createFailure = null;
  for (let rounds = 0; rounds < 5; rounds += 1) {
    await assert.rejects(roundOf(provisioner), /busy/);
    clock.advance(2_000);
  }
  assert.equal(planned().problem, null);
  assert.equal(planned().room, 2);
  await provision(2);
  assert.equal(provider.instances.size, 2);
});
