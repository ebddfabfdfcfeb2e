import assert from "node:assert/strict";
import { test } from "node:test";
import { explainJob } from "../../core/explain.ts";
import { aJob, aSnapshot } from "../../core/planner-fixtures.ts";
import { sampleWorker } from "../../core/session-fixtures.ts";
import type { Worker } from "../../core/worker.ts";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { AbsentWorkers } from "./absent-workers.ts";

/** What `hodei explain` says of a worker without a stream, alone in the cluster. */
async function explained(state: Worker["state"], provider: string) {
  const { store, clock, newId } = makeControlPlane();
  const workerId = newId();
  await store.insertWorker({ id: workerId, name: "away", provider, pool: "p", nowMs: 0, token: null });
  const info = { ...sampleWorker, workerId, name: "away" };
  await store.changeWorker({ workerId, state, info, lastHeartbeatAtMs: Date.UTC(2026, 0, 2, 3, 4, 5) });
  const absent = new AbsentWorkers(store, clock);
  await absent.refresh();
  const { reason, workers } = explainJob(aJob("j"), aSnapshot({ workers: absent.list(() => false) }));
  const [blocker] = workers[0]?.blockers ?? [];
  return { workerId, reason, message: blocker?.message, change: blocker?.change ?? "" };
}

test("a worker that is unreachable says since when, what brings it back, and until when that is awaited", async () => {
  const { reason, message, change } = await explained("unreachable", "docker");
  const why = "it is unreachable: nothing was heard of it since 2026-01-02T03:04:05Z";
  assert.equal(reason, `worker away, the only one that fits, takes no jobs: ${why}`);
  assert.equal(message, `takes no jobs: ${why}`);
  assert.match(change, /^it takes jobs again as soon as it is heard: see that its machine runs/);
  assert.match(change, /silent until 2026-01-02T03:14:05Z, it is removed, and its pool can make another$/);
});

test("a machine of somebody's own is waited for until it is removed by hand", async () => {
  const { workerId, change } = await explained("unreachable", "static");
  assert.ok(change.endsWith(`if it never will: hodei workers remove --force ${workerId}`), change);
});

test("nobody waits for a worker that drains, and one that is broken needs a person", async () => {
  assert.match((await explained("draining", "docker")).change, /^wait for another worker/);
  const { workerId, change } = await explained("broken", "docker");
  assert.ok(change.endsWith(`hodei workers remove ${workerId}`), change);
});
