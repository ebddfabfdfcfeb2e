import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { planPool, poolRoom, type PoolPlan, type PoolState, type PoolWorker } from "./pool-plan.ts";

const NOW_MS = 1_000_000;

function worker(id: string, changes: Partial<PoolWorker> = {}): PoolWorker {
  return {
    id,
    isArriving: false,
    isConnected: true,
    isBusy: false,
    hasTakenJob: true,
    idleSinceMs: NOW_MS,
    madeAtMs: NOW_MS - 1_000,
    isOutdated: false,
    isDraining: false,
    isCordoned: false,
    ...changes,
  };
}

const busy = { isBusy: true, idleSinceMs: null };
const arriving = { isArriving: true, isConnected: false, hasTakenJob: false, idleSinceMs: null };

function pool(changes: Partial<PoolState["definition"]> & Partial<Omit<PoolState, "definition">>): PoolState {
  const { isDeleting = false, room = 10, workers = [], ...definition } = changes;
  return {
    definition: {
      minWorkers: 0,
      warmSpares: 0,
      ephemeral: false,
      idleTimeoutMs: 60_000,
      maxLifetimeMs: null,
      startTimeoutMs: 120_000,
      ...definition,
    },
    isDeleting,
    room,
    workers,
  };
}

const drained = (plan: PoolPlan): string[] => plan.drain.map(({ id, reason }) => `${id}: ${reason}`);

test("makes what is missing of the minimum and of the spares, as far as there is room", () => {
  assert.equal(planPool(pool({ minWorkers: 3 }), NOW_MS).make, 3);
  assert.equal(planPool(pool({ minWorkers: 3, room: 2 }), NOW_MS).make, 2);
  const workers = [worker("a", busy), worker("b", busy), worker("c")];
  assert.equal(planPool(pool({ warmSpares: 2, workers }), NOW_MS).make, 1);
  assert.equal(planPool(pool({ minWorkers: 3, warmSpares: 1, workers }), NOW_MS).make, 0);
  const withArriving = [...workers, worker("d", arriving)];
  assert.equal(planPool(pool({ warmSpares: 2, workers: withArriving }), NOW_MS).make, 0);
  assert.equal(planPool(pool({ warmSpares: 2, isDeleting: true, workers }), NOW_MS).make, 0);
});

test("makes no spares for workers that are just coming back to a server that has restarted", () => {
  const away = { isConnected: false, idleSinceMs: null };
  const workers = [worker("a", away), worker("b", away)];
  assert.equal(planPool(pool({ minWorkers: 1, warmSpares: 2, workers }), NOW_MS).make, 0);
});

test("sends the longest idle away first, and keeps the minimum and the spares", () => {
  const idle = (id: string, forMs: number): PoolWorker => worker(id, { idleSinceMs: NOW_MS - forMs });
  const workers = [idle("a", 60_000), idle("b", 59_999), idle("c", 90_000), worker("d", busy)];
  assert.deepEqual(drained(planPool(pool({ workers }), NOW_MS)), ["c: idle", "a: idle"]);
  assert.deepEqual(drained(planPool(pool({ workers, warmSpares: 2 }), NOW_MS)), ["c: idle"]);
  assert.deepEqual(drained(planPool(pool({ workers, minWorkers: 4 }), NOW_MS)), []);
});

test("gives a worker that had no job yet a moment to get one, whatever its pool tolerates", () => {
  const fresh = worker("a", { hasTakenJob: false, idleSinceMs: NOW_MS });
  const impatient = pool({ idleTimeoutMs: 0, workers: [fresh] });
  assert.deepEqual(drained(planPool(impatient, NOW_MS + 4_999)), []);
  assert.deepEqual(drained(planPool(impatient, NOW_MS + 5_000)), ["a: idle"]);
  const used = pool({ idleTimeoutMs: 0, workers: [worker("a")] });
  assert.deepEqual(drained(planPool(used, NOW_MS)), ["a: idle"]);
});

test("an ephemeral worker leaves after its job, and stays while it has had none", () => {
  const workers = [worker("done"), worker("fresh", { hasTakenJob: false }), worker("busy", busy)];
  assert.deepEqual(drained(planPool(pool({ ephemeral: true, workers }), NOW_MS)), ["done: its job is done"]);
});

test("replaces workers of the age, of a changed definition, and sends all of a deleted pool away", () => {
  const workers = [
    worker("old", { ...busy, madeAtMs: NOW_MS - 5_000 }),
    worker("young", { ...busy, madeAtMs: NOW_MS - 4_999 }),
    worker("changed", { ...busy, isOutdated: true }),
    worker("leaving", { isOutdated: true, isDraining: true }),
  ];
  const plan = planPool(pool({ maxLifetimeMs: 5_000, minWorkers: 4, workers }), NOW_MS);
  assert.deepEqual(drained(plan), ["old: its lifetime is over", "changed: its pool has changed"]);
  assert.equal(plan.make, 3);
  const deleted = planPool(pool({ isDeleting: true, workers }), NOW_MS);
  assert.deepEqual(
    deleted.drain.map(({ id }) => id),
    ["old", "young", "changed"],
  );
});

test("a cordoned worker stays, and is no spare", () => {
  const workers = [worker("a", { isCordoned: true, idleSinceMs: 0 })];
  const plan = planPool(pool({ warmSpares: 1, workers }), NOW_MS);
  assert.deepEqual(plan, { make: 1, drain: [], late: [] });
});

test("a worker is late after the start time-out, counted from when it was there", () => {
  const workers = [
    worker("late", { ...arriving, madeAtMs: NOW_MS - 120_001 }),
    worker("in time", { ...arriving, madeAtMs: NOW_MS - 120_000 }),
    worker("being made", { ...arriving, madeAtMs: null }),
    worker("came", { ...arriving, isConnected: true, madeAtMs: 0 }),
  ];
  const plan = planPool(pool({ minWorkers: 4, workers }), NOW_MS);
  assert.deepEqual(plan.late, ["late"]);
  assert.equal(plan.make, 1);
});

test("there is room for one worker at a time while it is not known whether the trouble is over", () => {
  const base = { maxWorkers: 5, existing: 2, arriving: 0, isUsable: true };
  assert.equal(poolRoom({ ...base, breaker: "closed" }), 3);
  assert.equal(poolRoom({ ...base, breaker: "open" }), 0);
  assert.equal(poolRoom({ ...base, breaker: "half_open" }), 1);
  assert.equal(poolRoom({ ...base, breaker: "half_open", arriving: 1 }), 0);
  assert.equal(poolRoom({ ...base, breaker: "closed", isUsable: false }), 0);
  assert.equal(poolRoom({ ...base, breaker: "closed", existing: 9 }), 0);
});

const anyWorker = fc
  .record({
    kind: fc.constantFrom("arriving", "busy", "idle", "lost"),
    hasTakenJob: fc.boolean(),
    ageMs: fc.integer({ min: 0, max: 200_000 }),
    idleMs: fc.integer({ min: 0, max: 100_000 }),
    isOutdated: fc.boolean(),
    isDraining: fc.boolean(),
    isCordoned: fc.boolean(),
  })
  .map(({ kind, ageMs, idleMs, ...facts }) => ({
    ...facts,
    isArriving: kind === "arriving",
    isConnected: kind === "busy" || kind === "idle",
    isBusy: kind === "busy",
    idleSinceMs: kind === "idle" ? NOW_MS - idleMs : null,
    madeAtMs: NOW_MS - ageMs,
  }));

const anyPool = fc
  .record({
    maxWorkers: fc.integer({ min: 0, max: 12 }),
    minShare: fc.double({ min: 0, max: 1, noNaN: true }),
    spareShare: fc.double({ min: 0, max: 1, noNaN: true }),
    ephemeral: fc.boolean(),
    isDeleting: fc.boolean(),
    maxLifetimeMs: fc.option(fc.integer({ min: 1, max: 200_000 })),
    workers: fc.array(anyWorker, { maxLength: 14 }),
  })
  .map(({ maxWorkers, minShare, spareShare, workers, ...rest }) => {
    const named = workers.map((facts, index) => ({ ...facts, id: `w${index}` }));
    const room = poolRoom({
      maxWorkers,
      existing: named.length,
      arriving: 0,
      breaker: "closed",
      isUsable: true,
    });
    const minWorkers = Math.floor(minShare * maxWorkers);
    const warmSpares = Math.floor(spareShare * maxWorkers);
    return { maxWorkers, state: pool({ ...rest, minWorkers, warmSpares, room, workers: named }) };
  });

test("there are never more workers than the maximum by what is made", () => {
  fc.assert(
    fc.property(anyPool, ({ maxWorkers, state }) => {
      const { make } = planPool(state, NOW_MS);
      assert.ok(make === 0 || state.workers.length + make <= maxWorkers);
    }),
  );
});

test("the minimum and the spares are asked for whenever there is room", () => {
  fc.assert(
    fc.property(anyPool, ({ state }) => {
      const { make, drain, late } = planPool(state, NOW_MS);
      if (state.isDeleting) return;
      const gone = new Set([...drain.map(({ id }) => id), ...late]);
      const staying = state.workers.filter(({ id, isDraining }) => !gone.has(id) && !isDraining);
      const { minWorkers, warmSpares } = state.definition;
      const ready = staying.filter(({ isConnected, isBusy }) => !isConnected || !isBusy);
      assert.ok(make === state.room || staying.length + make >= minWorkers);
      assert.ok(make === state.room || ready.length + make >= warmSpares);
    }),
  );
});

test("a busy worker is told to leave only for its age, or because its pool changed or goes", () => {
  fc.assert(
    fc.property(anyPool, ({ state }) => {
      for (const { id, reason } of planPool(state, NOW_MS).drain) {
        const isBusy = state.workers.find((each) => each.id === id)?.isBusy === true;
        assert.ok(!isBusy || !["idle", "its job is done"].includes(reason), reason);
      }
    }),
  );
});

test("nobody is told twice to leave, and nobody who is not there", () => {
  fc.assert(
    fc.property(anyPool, ({ state }) => {
      const drain = planPool(state, NOW_MS).drain.map(({ id }) => id);
      assert.equal(new Set(drain).size, drain.length);
      for (const { id, isDraining, isConnected } of state.workers) {
        assert.ok(!drain.includes(id) || (isConnected && !isDraining));
      }
    }),
  );
});

test("what was idle for too long is not replaced: a plan that is carried out leads to no other one", () => {
  fc.assert(
    fc.property(anyPool, ({ maxWorkers, state }) => {
      const first = planPool(state, NOW_MS);
      const idleOnes = first.drain.filter(({ reason }) => reason === "idle").map(({ id }) => id);
      const gone = new Set([...first.drain.map(({ id }) => id), ...first.late]);
      const made = Array.from({ length: first.make }, (_, index) => worker(`new${index}`, arriving));
      const workers = [
        ...state.workers.filter(({ id, isDraining }) => !gone.has(id) && !isDraining),
        ...made,
      ];
      const room = Math.max(0, maxWorkers - workers.length);
      const second = planPool({ ...state, workers, room }, NOW_MS);
      assert.deepEqual(second.drain, []);
      // Room that others left may be used now; what was sent away for idleness is not asked for again.
      if (idleOnes.length > 0 && first.make < state.room) assert.equal(second.make, 0);
      const third = planPool({ ...state, workers, room: 100 }, NOW_MS);
      if (idleOnes.length > 0 && first.make < state.room) assert.equal(third.make, 0);
    }),
  );
});
