/** Conformance of a store: workers, tokens, sessions and heartbeats. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { WorkerInfo, WorkerState } from "../../core/worker.ts";
import type { Registration, Store } from "../store.ts";
import { T0, newId } from "./samples.ts";

function infoOf(changes: Partial<WorkerInfo> = {}): WorkerInfo {
  return {
    workerId: "",
    name: "w",
    version: "0.1.0",
    hostname: "host",
    ipAddress: "127.0.0.1",
    capacity: { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 0, jobs: 4 },
    capabilities: ["bash"],
    labels: { os: "linux" },
    taints: [],
    ...changes,
  };
}

export function workerTests(store: () => Store, second: () => Store): void {
  creationTests(store);
  oneJobTests(store, second);
  registrationTests(store);
  refusalTests(store, second);
  changeTests(store);
  lastingStateTests(store);
  cordonTests(store, second);
  listTests(store);
}

function creationTests(store: () => Store): void {
  test("a new worker is being created and has not registered", async () => {
    const { id } = await insert(store());
    assert.deepEqual(await store().getWorker(id), {
      id,
      name: "w",
      state: "creating",
      provider: "fake",
      pool: "p",
      info: null,
      usage: null,
      createdAtMs: T0,
      madeAtMs: null,
      registeredAtMs: null,
      lastHeartbeatAtMs: null,
      message: "",
      cordoned: false,
      takesOneJob: false,
    });
    await assert.rejects(
      store().insertWorker({ id, name: "w", provider: "fake", pool: "p", nowMs: T0, token: null }),
      { code: "already_exists" },
    );
  });
}

function oneJobTests(store: () => Store, second: () => Store): void {
  test("a worker for one job is one for all its life", async () => {
    const id = newId();
    const token = { hash: newId(), expiresAtMs: T0 + 1 };
    const made = { id, name: "w", provider: "fake", pool: "p", nowMs: T0, token, takesOneJob: true };
    assert.equal((await store().insertWorker(made)).takesOneJob, true);
    const registration = registrationOf(token.hash);
    const outcome = await store().registerWorker(registration);
    assert.ok(outcome.ok && outcome.worker.takesOneJob);
    await store().changeWorker({ workerId: id, state: "ready", message: "", info: infoOf() });
    assert.equal((await second().findWorkerBySession(registration.sessionTokenHash))?.takesOneJob, true);
    assert.equal((await second().getWorker(id))?.takesOneJob, true);
  });
}

function registrationTests(store: () => Store): void {
  test("a token registers its worker once, and the session finds it", async () => {
    const { id, tokenHash } = await insert(store());
    const registration = registrationOf(tokenHash, { info: infoOf({ workerId: id }) });
    const outcome = await store().registerWorker(registration);
    assert.ok(outcome.ok);
    assert.equal(outcome.worker.id, id);
    assert.equal(outcome.worker.state, "connecting");
    assert.equal(outcome.worker.registeredAtMs, T0);
    assert.deepEqual(outcome.worker.info?.labels, { os: "linux" });
    assert.deepEqual(await store().findWorkerBySession(registration.sessionTokenHash), outcome.worker);
    assert.equal(await store().findWorkerBySession("unknown"), null);
    const other = await store().registerWorker(registrationOf(tokenHash, { registrationKey: "another" }));
    assert.deepEqual(other, { ok: false, refusal: "used_token" });
  });

  test("the same registration key may register again, also late, and both sessions are valid", async () => {
    const { id, tokenHash } = await insert(store());
    const first = registrationOf(tokenHash);
    const again = registrationOf(tokenHash, { nowMs: T0 + 10 ** 6 });
    assert.ok((await store().registerWorker(first)).ok);
    const outcome = await store().registerWorker(again);
    assert.ok(outcome.ok);
    assert.equal(outcome.worker.registeredAtMs, T0);
    for (const { sessionTokenHash } of [first, again]) {
      assert.equal((await store().findWorkerBySession(sessionTokenHash))?.id, id);
    }
  });

  test("only the newest sessions of a worker stay valid", async () => {
    const { tokenHash } = await insert(store());
    const registrations = Array.from({ length: 10 }, () => registrationOf(tokenHash));
    for (const registration of registrations) await store().registerWorker(registration);
    const found = await Promise.all(
      registrations.map(({ sessionTokenHash }) => store().findWorkerBySession(sessionTokenHash)),
    );
    assert.deepEqual(
      found.map((worker) => worker !== null),
      [...Array(6).fill(false), ...Array(4).fill(true)],
    );
  });
}

function refusalTests(store: () => Store, second: () => Store): void {
  test("calls with one key that race all register; of different keys one wins", async () => {
    const same = await insert(store());
    const together = await Promise.all(
      [store(), second(), store()].map((by) => by.registerWorker(registrationOf(same.tokenHash))),
    );
    assert.ok(together.every(({ ok }) => ok));
    const contested = await insert(store());
    const rivals = await Promise.all(
      [store(), second(), store(), second()].map((by, index) =>
        by.registerWorker(registrationOf(contested.tokenHash, { registrationKey: `rival-${index}` })),
      ),
    );
    assert.equal(rivals.filter(({ ok }) => ok).length, 1);
    assert.equal(rivals.filter((one) => !one.ok && one.refusal === "used_token").length, 3);
  });

  test("unknown, expired and other workers' tokens are refused", async () => {
    const { id, tokenHash } = await insert(store(), T0 + 1_000);
    assert.deepEqual(await store().registerWorker(registrationOf("never")), {
      ok: false,
      refusal: "unknown_token",
    });
    assert.deepEqual(
      await store().registerWorker(registrationOf(tokenHash, { info: infoOf({ workerId: newId() }) })),
      {
        ok: false,
        refusal: "wrong_worker",
      },
    );
    const late = registrationOf(tokenHash, { nowMs: T0 + 1_001 });
    assert.deepEqual(await store().registerWorker(late), { ok: false, refusal: "expired_token" });
    await store().setTokenExpiry(id, T0 + 1_001);
    assert.ok((await store().registerWorker(late)).ok);
  });

  test("a terminated worker can neither register nor be found nor be changed", async () => {
    const { id, tokenHash } = await insert(store());
    const registration = registrationOf(tokenHash);
    await store().registerWorker(registration);
    await store().changeWorker({ workerId: id, state: "terminated", message: "idle" });
    await store().changeWorker({ workerId: id, state: "ready" });
    const worker = await store().getWorker(id);
    assert.equal(worker?.state, "terminated");
    assert.equal(worker?.message, "idle");
    assert.equal(await store().findWorkerBySession(registration.sessionTokenHash), null);
    assert.deepEqual(await store().registerWorker(registration), { ok: false, refusal: "expired_token" });
  });
}

function changeTests(store: () => Store): void {
  test("a change sets what it names and leaves the rest", async () => {
    const { id } = await insert(store());
    const usage = {
      cpuMillis: 1,
      memoryBytes: 2,
      diskFreeBytes: 3,
      loadMillis: 4,
      measuredAtMs: T0,
      eventLoopDelayMaxMicros: 5,
    };
    await store().changeWorker({
      workerId: id,
      state: "ready",
      message: "fine",
      usage,
      lastHeartbeatAtMs: T0 + 7,
    });
    await store().changeWorker({ workerId: id, info: infoOf({ name: "n" }) });
    const worker = await store().getWorker(id);
    assert.equal(worker?.state, "ready");
    assert.equal(worker?.message, "fine");
    assert.deepEqual(worker?.usage, usage);
    assert.equal(worker?.lastHeartbeatAtMs, T0 + 7);
    assert.equal(worker?.info?.name, "n");
    await store().changeWorker({ workerId: id, usage: null, message: "" });
    assert.equal((await store().getWorker(id))?.usage, null);
    assert.equal((await store().getWorker(id))?.message, "");
    await store().changeWorker({ workerId: newId(), state: "ready" });
    await store().changeWorker({ workerId: "no-uuid", state: "ready" });
  });

  test("changes of many workers at once each take effect, in order", async () => {
    const workers = await Promise.all(Array.from({ length: 20 }, () => insert(store())));
    await Promise.all(
      workers.flatMap(({ id }, index) => [
        store().changeWorker({ workerId: id, state: "ready", lastHeartbeatAtMs: T0 + index }),
        store().changeWorker({ workerId: id, state: index % 2 === 0 ? "busy" : "terminated" }),
        store().changeWorker({ workerId: id, message: "last" }),
      ]),
    );
    for (const [index, { id }] of workers.entries()) {
      const worker = await store().getWorker(id);
      assert.equal(worker?.state, index % 2 === 0 ? "busy" : "terminated");
      assert.equal(worker?.message, index % 2 === 0 ? "last" : "");
      assert.equal(worker?.lastHeartbeatAtMs, T0 + index);
    }
  });
}

function lastingStateTests(store: () => Store): void {
  test("a worker that drains or is broken stays so until its end, with the reason", async () => {
    const stateOf = async (id: string): Promise<[string, string]> => {
      const worker = await store().getWorker(id);
      return [worker?.state ?? "", worker?.message ?? ""];
    };
    const { id } = await insert(store());
    const change = (state: WorkerState, message: string) =>
      store().changeWorker({ workerId: id, state, message, lastHeartbeatAtMs: T0 });
    await change("draining", "repairs");
    await change("ready", "");
    await change("unreachable", "no heartbeat");
    assert.deepEqual(await stateOf(id), ["draining", "repairs"]);
    assert.equal((await store().getWorker(id))?.lastHeartbeatAtMs, T0);
    await change("broken", "cannot end a process");
    await change("draining", "again");
    assert.deepEqual(await stateOf(id), ["broken", "cannot end a process"]);
    await Promise.all([change("ready", ""), change("terminated", "gone")]);
    assert.deepEqual(await stateOf(id), ["terminated", "gone"]);
  });

  test("a drain and a reconnect that are stored together leave the worker draining", async () => {
    const { id } = await insert(store());
    await Promise.all([
      store().changeWorker({ workerId: id, state: "draining", message: "repairs" }),
      store().changeWorker({ workerId: id, state: "ready", message: "" }),
    ]);
    const { state, message } = (await store().getWorker(id)) ?? {};
    assert.deepEqual([state, message], ["draining", "repairs"]);
  });
}

function cordonTests(store: () => Store, second: () => Store): void {
  test("a cordoned worker stays so through registration, streams, drain and heartbeats, until it is changed", async () => {
    const { id, tokenHash } = await insert(store());
    const registration = registrationOf(tokenHash);
    await store().registerWorker(registration);
    await store().changeWorker({ workerId: id, state: "ready", cordoned: true });
    const again = await second().registerWorker(registrationOf(tokenHash));
    assert.ok(again.ok && again.worker.cordoned);
    await store().changeWorker({ workerId: id, state: "ready", message: "", info: infoOf(), usage: null });
    await store().changeWorker({ workerId: id, lastHeartbeatAtMs: T0 + 1 });
    assert.equal((await second().findWorkerBySession(registration.sessionTokenHash))?.cordoned, true);
    await store().changeWorker({ workerId: id, state: "draining", message: "repairs" });
    await store().changeWorker({ workerId: id, state: "ready", cordoned: false });
    const worker = await store().getWorker(id);
    assert.deepEqual([worker?.state, worker?.cordoned], ["draining", false]);
  });

  test("of changes that arrive together the last cordon counts", async () => {
    const { id } = await insert(store());
    await Promise.all([
      store().changeWorker({ workerId: id, cordoned: true }),
      store().changeWorker({ workerId: id, cordoned: false }),
      store().changeWorker({ workerId: id, cordoned: true }),
      store().changeWorker({ workerId: id, state: "ready" }),
    ]);
    assert.equal((await store().getWorker(id))?.cordoned, true);
  });

  test("the time at which a worker was made is kept, also in lists", async () => {
    const { id } = await insert(store());
    await store().changeWorker({ workerId: id, madeAtMs: T0 + 5 });
    await store().changeWorker({ workerId: id, state: "ready" });
    assert.equal((await store().getWorker(id))?.madeAtMs, T0 + 5);
    const { items } = await store().listWorkers({ includeTerminated: false }, { limit: 1_000, cursor: null });
    const listed = items.find((worker) => worker.id === id);
    assert.deepEqual([listed?.madeAtMs, listed?.cordoned], [T0 + 5, false]);
  });
}

function listTests(store: () => Store): void {
  test("workers are listed newest first, terminated ones on request", async () => {
    const [first, middle, last] = [await insert(store()), await insert(store()), await insert(store())];
    await store().changeWorker({ workerId: middle.id, state: "terminated" });
    const list = async (includeTerminated: boolean) => {
      const { items } = await store().listWorkers({ includeTerminated }, { limit: 1_000, cursor: null });
      return items.map(({ id }) => id).filter((id) => [first.id, middle.id, last.id].includes(id));
    };
    const newest = [first.id, middle.id, last.id].toSorted().toReversed();
    assert.deepEqual(await list(true), newest);
    assert.deepEqual(
      await list(false),
      newest.filter((id) => id !== middle.id),
    );
    const page = await store().listWorkers({ includeTerminated: true }, { limit: 1, cursor: null });
    assert.equal(page.items.length, 1);
    assert.equal(page.nextCursor, page.items[0]?.id);
    assert.deepEqual(await store().resolveWorkerId(last.id), { found: "one", id: last.id });
  });

  test("silent workers are listed without those that were heard or never were", async () => {
    const [silent, exact, heard, never] = [
      await insert(store()),
      await insert(store()),
      await insert(store()),
      await insert(store()),
    ];
    await store().changeWorker({ workerId: silent.id, lastHeartbeatAtMs: 99 });
    await store().changeWorker({ workerId: exact.id, lastHeartbeatAtMs: 100 });
    await store().changeWorker({ workerId: heard.id, lastHeartbeatAtMs: 101 });
    const filter = { includeTerminated: false, heardBeforeMs: 100 };
    const { items } = await store().listWorkers(filter, { limit: 1_000, cursor: null });
    const mine = [silent.id, exact.id, heard.id, never.id];
    assert.deepEqual(
      items.map(({ id }) => id).filter((id) => mine.includes(id)),
      [silent.id],
    );
  });
}

async function insert(store: Store, expiresAtMs = T0 + 1_000): Promise<{ id: string; tokenHash: string }> {
  const id = newId();
  const token = { hash: `token-${id}`, expiresAtMs };
  await store.insertWorker({ id, name: "w", provider: "fake", pool: "p", nowMs: T0, token });
  return { id, tokenHash: token.hash };
}

function registrationOf(tokenHash: string, changes: Partial<Registration> = {}): Registration {
  return {
    tokenHash,
    registrationKey: "key",
    sessionTokenHash: `session-${newId()}`,
    info: infoOf(),
    nowMs: T0,
    ...changes,
  };
}
