import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { UNREACHABLE_AFTER_MS } from "../../core/lease.ts";
import { livenessRound } from "./liveness.ts";
import { makeControlPlane } from "./loop-fixtures.ts";

test("makes the jobs of a silent worker unreachable, with a deadline that counts from its last word", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, job, store } = plane;
  await livenessRound(plane);
  const workerId = await addWorker();
  const heardAtMs = clock.nowMs();
  const { jobId } = await running(workerId);
  clock.advance(UNREACHABLE_AFTER_MS);
  await livenessRound(plane);
  assert.equal((await job(jobId)).state, "running");
  clock.advance(1);
  await livenessRound(plane);
  const { state, deadlineAtMs, definition } = await job(jobId);
  assert.deepEqual([state, deadlineAtMs], ["unreachable", heardAtMs + definition.leaseMs]);
  assert.equal((await store.getWorker(workerId))?.state, "unreachable");
});

test("gives workers time to come back to a server that was away", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, job } = plane;
  const { jobId } = await running(await addWorker());
  clock.advance(20 * 60_000);
  await livenessRound(plane);
  assert.equal((await job(jobId)).state, "running");
  clock.advance(UNREACHABLE_AFTER_MS + 1);
  await livenessRound(plane);
  assert.equal((await job(jobId)).state, "unreachable");
});

test("closes a stream that is open but silent, and leaves one alone that speaks", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, connect, running, job } = plane;
  const silent = connect(await addWorker());
  const busyId = await addWorker();
  const busy = connect(busyId);
  const { jobId } = await running(busyId);
  await livenessRound(plane);
  clock.advance(UNREACHABLE_AFTER_MS + 1);
  // Heard, though that is not written down yet.
  await busy.connection.receive({
    type: "heartbeat",
    sequence: 1,
    usage: null,
    attempts: [],
    draining: false,
  });
  await livenessRound(plane);
  assert.ok(silent.connection.isClosed);
  await eventually(() => silent.messages.some(({ type }) => type === "goaway"));
  assert.ok(!busy.connection.isClosed);
  assert.equal((await job(jobId)).state, "running");
});

test("says once that a worker is silent, also of one that drains until its end", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, job, store } = plane;
  const said: string[] = [];
  const warn = (_fields: unknown, message?: string): void => void said.push(message ?? "");
  const deps = { ...plane, log: { ...silentLogger, warn } };
  await livenessRound(deps);
  const workerId = await addWorker();
  await store.changeWorker({ workerId, state: "draining", message: "it takes one job only" });
  const { jobId } = await running(workerId);
  clock.advance(UNREACHABLE_AFTER_MS + 1);
  for (let round = 0; round < 3; round += 1) await livenessRound(deps);
  assert.equal((await job(jobId)).state, "unreachable");
  assert.deepEqual(said, ["worker is unreachable"]);
});

test("tries again when the database fails in the middle", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, job, store } = plane;
  await livenessRound(plane);
  const { jobId } = await running(await addWorker());
  clock.advance(UNREACHABLE_AFTER_MS + 1);
  const apply = store.applyInput.bind(store);
  store.applyInput = () => Promise.reject(new AppError("unavailable", "no database"));
  await assert.rejects(livenessRound(plane), /no database/);
  store.applyInput = apply;
  await livenessRound(plane);
  assert.equal((await job(jobId)).state, "unreachable");
});
