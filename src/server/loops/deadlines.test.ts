import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { JOB_DEFAULTS } from "../../core/job.ts";
import {
  CANCEL_VERIFY_MS,
  HEARTBEAT_INTERVAL_MS,
  PAUSE_MAX_MS,
  START_CONFIRM_MS,
  TIMEOUT_SLACK_MS,
  UNREACHABLE_AFTER_MS,
} from "../../core/lease.ts";
import { sampleResult } from "../../core/session-fixtures.ts";
import { deadlineRound } from "./deadlines.ts";
import { makeControlPlane } from "./loop-fixtures.ts";

type Plane = ReturnType<typeof makeControlPlane>;

/** Rounds so far apart that a day is soon over, and close enough for a server that is there. */
const ROUND_MS = HEARTBEAT_INTERVAL_MS - 1;

async function pass(plane: Plane, ms: number): Promise<void> {
  const endMs = plane.clock.nowMs() + ms;
  do {
    plane.clock.advance(Math.min(ROUND_MS, endMs - plane.clock.nowMs()));
    await deadlineRound(plane);
  } while (plane.clock.nowMs() < endMs);
}

/** A control plane that has run for long. */
async function setup() {
  const plane = makeControlPlane();
  await pass(plane, UNREACHABLE_AFTER_MS);
  return { ...plane, after: (ms: number) => pass(plane, ms) };
}

test("a job that waits too long fails with queue_timeout", async () => {
  const { queue, job, after } = await setup();
  const id = await queue({ queueTimeoutMs: 1_000 });
  await after(1_000);
  assert.equal((await job(id)).state, "pending");
  await after(1);
  const { state, cause } = await job(id);
  assert.deepEqual([state, cause], ["failed", "queue_timeout"]);
});

test("a job whose start nobody confirms is unreachable, and lost at the end of the lease", async () => {
  const { queue, job, apply, addWorker, newId, after, clock, store } = await setup();
  const workerId = await addWorker();
  const id = await queue();
  await apply(id, { type: "assign", attemptId: newId(), workerId });
  await after(START_CONFIRM_MS);
  await store.changeWorker({ workerId, lastHeartbeatAtMs: clock.nowMs() });
  await after(1);
  assert.equal((await job(id)).state, "unreachable");
  await after(JOB_DEFAULTS.leaseMs - 1);
  assert.equal((await job(id)).state, "unreachable");
  await after(1);
  const { state, infrastructureRetries } = await job(id);
  assert.deepEqual([state, infrastructureRetries], ["pending", 1]);
});

test("a running job whose worker does not keep the time-out is cancelled on the worker too", async () => {
  const { addWorker, connect, running, job, after, clock } = await setup();
  const workerId = await addWorker();
  const { connection, messages } = connect(workerId);
  const { jobId, attemptId } = await running(workerId, { timeoutMs: 1_000 });
  connection.assign({ attemptId, attemptNumber: 1, job: await job(jobId), logDurable: 0, runnerId: "" });
  await after(1_000 + JOB_DEFAULTS.graceMs + TIMEOUT_SLACK_MS);
  await after(1);
  // It has just fallen silent, and may have kept the time-out.
  assert.equal((await job(jobId)).state, "running");
  connection.session.heardAtMs = clock.nowMs();
  await after(1);
  assert.equal((await job(jobId)).state, "cancelling");
  await eventually(() =>
    messages.some((message) => message.type === "control" && message.action === "cancel"),
  );
});

test("a running job does not time out because its worker is away", async () => {
  const { addWorker, running, job, apply, after } = await setup();
  const { jobId, attemptId } = await running(await addWorker(), { timeoutMs: 1_000 });
  await after(1_000 + JOB_DEFAULTS.graceMs + TIMEOUT_SLACK_MS + 1);
  assert.equal((await job(jobId)).state, "unreachable");
  await apply(jobId, { type: "finish", attemptId, result: sampleResult() });
  assert.equal((await job(jobId)).state, "succeeded");
});

test("a job that is paused for too long is cancelled", async () => {
  const { addWorker, running, apply, job, after } = await setup();
  const { jobId, attemptId } = await running(await addWorker());
  await apply(jobId, { type: "pause", attemptId });
  await after(PAUSE_MAX_MS + 1);
  const { state, cancelReason } = await job(jobId);
  assert.deepEqual([state, cancelReason], ["cancelling", "paused for too long"]);
});

test("a cancel that a worker which is there does not confirm ends the job, and breaks the worker", async () => {
  const { addWorker, connect, running, apply, job, store, after, clock } = await setup();
  const workerId = await addWorker();
  const { connection, messages } = connect(workerId);
  const { jobId } = await running(workerId);
  await apply(jobId, { type: "cancel", reason: "" });
  await after(JOB_DEFAULTS.graceMs + CANCEL_VERIFY_MS);
  connection.session.heardAtMs = clock.nowMs();
  await after(1);
  const { state, cause } = await job(jobId);
  assert.deepEqual([state, cause], ["cancelled", "worker_lost"]);
  assert.equal((await store.getWorker(workerId))?.state, "broken");
  assert.equal(connection.session.draining, true);
  await eventually(() => messages.some(({ type }) => type === "drain"));
});

test("a cancel that a silent worker does not confirm waits for the lease, and breaks nobody", async () => {
  const { addWorker, running, apply, job, store, after, clock } = await setup();
  const workerId = await addWorker();
  const heardAtMs = clock.nowMs();
  const { jobId } = await running(workerId);
  await apply(jobId, { type: "cancel", reason: "" });
  await after(JOB_DEFAULTS.graceMs + CANCEL_VERIFY_MS + 1);
  const { state, deadlineAtMs } = await job(jobId);
  assert.deepEqual([state, deadlineAtMs], ["cancelling", heardAtMs + JOB_DEFAULTS.leaseMs]);
  await after(JOB_DEFAULTS.leaseMs);
  const ended = await job(jobId);
  assert.deepEqual([ended.state, ended.cause], ["cancelled", "worker_lost"]);
  assert.equal((await store.getWorker(workerId))?.state, "ready");
});

test("an attempt is not lost while its worker was heard within the lease, whatever the database says", async () => {
  const { addWorker, connect, running, apply, job, after, clock, connections } = await setup();
  const workerId = await addWorker();
  const { connection } = connect(workerId);
  const { jobId, attemptId } = await running(workerId, { leaseMs: 60_000 });
  connection.assign({ attemptId, attemptNumber: 1, job: await job(jobId), logDurable: 0, runnerId: "" });
  const storedAtMs = clock.nowMs();
  await after(50_000);
  // The last heartbeat came while the database was away.
  connection.session.heardAtMs = clock.nowMs();
  connections.remove(connection);
  await apply(jobId, { type: "disconnect", attemptId, heardAtMs: storedAtMs });
  await after(59_999);
  assert.equal((await job(jobId)).state, "unreachable");
  await after(2);
  assert.equal((await job(jobId)).state, "pending");
});

test("a server that has just started gives every worker a whole lease", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, apply, job } = plane;
  const { jobId, attemptId } = await running(await addWorker(), { leaseMs: 60_000 });
  await apply(jobId, { type: "disconnect", attemptId, heardAtMs: clock.nowMs() });
  clock.advance(10 * 60_000);
  await deadlineRound(plane);
  await pass(plane, 59_999);
  assert.equal((await job(jobId)).state, "unreachable");
  await pass(plane, 2);
  assert.equal((await job(jobId)).state, "pending");
});

test("after a start of the server, only jobs that wait for a worker are held to deadlines that have passed", async () => {
  const plane = makeControlPlane();
  const { clock, addWorker, running, apply, queue, job } = plane;
  const { jobId } = await running(await addWorker());
  await apply(jobId, { type: "cancel", reason: "" });
  const waiting = await queue({ queueTimeoutMs: 1_000 });
  // The server is away.
  clock.advance(10 * 60_000);
  await deadlineRound(plane);
  assert.equal((await job(jobId)).state, "cancelling");
  assert.equal((await job(waiting)).cause, "queue_timeout");
  await pass(plane, JOB_DEFAULTS.leaseMs + 1);
  assert.equal((await job(jobId)).state, "cancelled");
});

test("a server that stood still calls nothing lost before workers could say a word", async () => {
  const { addWorker, connect, running, apply, job, after, clock, store } = await setup();
  const workerId = await addWorker();
  connect(workerId);
  const { jobId, attemptId } = await running(workerId, { leaseMs: 60_000 });
  await apply(jobId, { type: "disconnect", attemptId, heardAtMs: clock.nowMs() });
  clock.advance(10 * 60_000);
  await after(UNREACHABLE_AFTER_MS);
  assert.equal((await job(jobId)).state, "unreachable");
  assert.equal((await store.getWorker(workerId))?.state, "ready");
  await after(60_000);
  assert.equal((await job(jobId)).state, "pending");
});

test("a cancel that nobody has told the worker is told at its deadline, and breaks nobody", async () => {
  const { addWorker, connect, running, apply, job, after, store, clock } = await setup();
  const workerId = await addWorker();
  const { connection, messages } = connect(workerId);
  const { jobId, attemptId } = await running(workerId);
  connection.assign({ attemptId, attemptNumber: 1, job: await job(jobId), logDurable: 0, runnerId: "" });
  // The answer of the database was lost, and the one who asked has gone.
  await apply(jobId, { type: "cancel", reason: "" });
  await after(JOB_DEFAULTS.graceMs + CANCEL_VERIFY_MS);
  connection.session.heardAtMs = clock.nowMs();
  await after(1);
  assert.equal((await job(jobId)).state, "cancelling");
  assert.equal((await store.getWorker(workerId))?.state, "ready");
  await eventually(() =>
    messages.some((message) => message.type === "control" && message.action === "cancel"),
  );
});

test("an attempt that has ended and whose log cannot be stored is waited for, and breaks nobody", async () => {
  const { addWorker, connect, running, apply, job, after, store, clock } = await setup();
  const workerId = await addWorker();
  const { connection } = connect(workerId);
  const { jobId, attemptId } = await running(workerId, { timeoutMs: 1_000 });
  connection.assign({ attemptId, attemptNumber: 1, job: await job(jobId), logDurable: 0, runnerId: "" });
  const result = sampleResult({ logEnd: 1_000 });
  await connection.receive({ type: "result", attemptId, result });
  for (let passedMs = 0; passedMs < 2 * JOB_DEFAULTS.leaseMs; passedMs += 5_000) {
    connection.session.heardAtMs = clock.nowMs();
    await after(5_000);
  }
  const waiting = await job(jobId);
  assert.deepEqual(
    [waiting.state, waiting.message],
    ["unreachable", "the attempt has ended; its log is not stored yet"],
  );
  assert.equal((await store.getWorker(workerId))?.state, "ready");
  await apply(jobId, { type: "finish", attemptId, result });
  assert.equal((await job(jobId)).state, "succeeded");
});

test("after a time without the database, workers first get the time to say what they could not", async () => {
  const plane = await setup();
  const { addWorker, connect, queue, apply, job, newId, after, clock, store } = plane;
  const workerId = await addWorker();
  const { connection, messages } = connect(workerId);
  const id = await queue();
  const attemptId = newId();
  await apply(id, { type: "assign", attemptId, workerId });
  connection.assign({ attemptId, attemptNumber: 1, job: await job(id), logDurable: 0, runnerId: "" });
  const listDue = store.listDue.bind(store);
  store.listDue = () => Promise.reject(new AppError("unavailable", "no database"));
  await assert.rejects(deadlineRound(plane));
  clock.advance(START_CONFIRM_MS + 1);
  store.listDue = listDue;
  await after(0);
  // The worker has started it, and says so once more in a moment.
  assert.equal((await job(id)).state, "scheduled");
  assert.ok(messages.every(({ type }) => type === "run_job"));
  await after(UNREACHABLE_AFTER_MS);
  assert.equal((await job(id)).state, "unreachable");
});
