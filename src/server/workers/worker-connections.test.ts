import assert from "node:assert/strict";
import { test } from "node:test";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { assignJob } from "../scheduling/assign-job.ts";

function setup() {
  const plane = makeControlPlane();
  const { store, connections, queue } = plane;
  const { signal } = new AbortController();
  const shown = async (workerId: string): Promise<string> => {
    const worker = await store.getWorker(workerId);
    return worker ? connections.shownState(worker) : assert.fail("there is no such worker");
  };
  const give = async (workerId: string): Promise<unknown> =>
    assignJob({ jobId: await queue(), workerId }, { ...plane, signal });
  return { ...plane, shown, give };
}

test("a worker is shown as busy while it runs as many jobs as it may, and as draining once it shall leave", async () => {
  const { addWorker, connect, shown, give } = setup();
  const workerId = await addWorker();
  const { connection } = connect(workerId, { capacity: { jobs: 2 } });
  assert.equal(await shown(workerId), "ready");
  assert.ok(await give(workerId));
  assert.equal(await shown(workerId), "ready");
  assert.ok(await give(workerId));
  assert.equal(await shown(workerId), "busy");
  connection.drain("its pool has changed");
  assert.equal(await shown(workerId), "draining");
});

test("a worker is shown as connecting from when its provider has made it until it connects", async () => {
  const { store, clock, newId, shown, connect } = setup();
  const id = newId();
  await store.insertWorker({
    id,
    name: "w",
    provider: "test",
    pool: "local",
    nowMs: clock.nowMs(),
    token: null,
  });
  assert.equal(await shown(id), "creating");
  await store.changeWorker({ workerId: id, madeAtMs: clock.nowMs() });
  assert.equal(await shown(id), "connecting");
  await store.changeWorker({ workerId: id, state: "ready" });
  connect(id);
  assert.equal(await shown(id), "ready");
});

test("what the database says of a worker that is away, broken or gone is shown as it is", async () => {
  const { store, addWorker, connect, shown } = setup();
  for (const state of ["unreachable", "broken", "terminated"] as const) {
    const workerId = await addWorker();
    connect(workerId, { capacity: { jobs: 1 } });
    await store.changeWorker({ workerId, state });
    assert.equal(await shown(workerId), state);
  }
});
