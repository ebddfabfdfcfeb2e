import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { systemClock } from "../../base/clock.ts";
import { sha256Hex } from "../../base/random.ts";
import { sampleWorker } from "../../core/session-fixtures.ts";
import { JobService } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { WorkerService, WorkerState } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { command, rejectsWith } from "./api-fixtures.ts";
import { startTestApi, TEST_WORKER_PORT } from "./test-api.ts";

const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

async function setup(t: TestContext) {
  const api = await startTestApi(t);
  const workers = api.client(WorkerService);
  const { store } = api;
  const register = (token: string) =>
    store.registerWorker({
      tokenHash: sha256Hex(token),
      registrationKey: "a-key-of-the-worker",
      sessionTokenHash: sha256Hex("session"),
      info: { ...sampleWorker, workerId: "", labels: { os: "linux" } },
      nowMs: systemClock.nowMs(),
    });
  /** A worker that a person started. */
  const join = async (): Promise<string> => {
    const { workerId, token } = await workers.createWorkerToken({});
    assert.ok((await register(token)).ok);
    return workerId;
  };
  const assign = async (workerId: string): Promise<{ jobId: string; attemptId: string }> => {
    const { jobId } = await api.client(JobService).queueJob({ definition: { name: "x", command } });
    const attemptId = api.newId();
    await api.apply(jobId, { type: "assign", attemptId, workerId });
    return { jobId, attemptId };
  };
  return { ...api, workers, register, join, assign };
}

test("a token lets one worker in, under the id that was told, for five minutes", async (t) => {
  const { workers, register, store } = await setup(t);
  const beforeMs = systemClock.nowMs();
  const { workerId, token, expiresAt, workerPort } = await workers.createWorkerToken({});
  assert.match(token, UUID_V4);
  const lifetimeMs = (expiresAt ? timestampMs(expiresAt) : 0) - beforeMs;
  assert.ok(lifetimeMs >= 300_000 && lifetimeMs < 330_000, `${lifetimeMs} ms`);
  assert.equal(workerPort, TEST_WORKER_PORT);
  const unused = (await workers.getWorkerInfo({ workerId })).worker;
  assert.deepEqual([unused?.info?.name, unused?.provider, unused?.pool], ["static", "static", ""]);
  const outcome = await register(token);
  assert.ok(outcome.ok);
  assert.equal(outcome.worker.id, workerId);
  const again = await store.registerWorker({
    tokenHash: sha256Hex(token),
    registrationKey: "a-key-of-another-worker",
    sessionTokenHash: sha256Hex("other"),
    info: { ...sampleWorker, workerId: "" },
    nowMs: systemClock.nowMs(),
  });
  assert.deepEqual(again, { ok: false, refusal: "used_token" });
});

test("a token lives as long as somebody says, and no longer than a day", async (t) => {
  const { workers } = await setup(t);
  const nowMs = systemClock.nowMs();
  const { workerId, expiresAt } = await workers.createWorkerToken({
    name: "mine",
    lifetime: { seconds: 60n },
  });
  assert.ok(expiresAt && timestampMs(expiresAt) - nowMs < 90_000);
  assert.equal((await workers.getWorkerInfo({ workerId })).worker?.info?.name, "mine");
  for (const seconds of [0n, -1n, 86_401n]) {
    await rejectsWith(
      workers.createWorkerToken({ lifetime: { seconds } }),
      Code.InvalidArgument,
      /^lifetime: /,
    );
  }
  await rejectsWith(workers.createWorkerToken({ name: "a\nb" }), Code.InvalidArgument, /^name: /);
});

test("a list shows load, labels, version and what a worker holds", async (t) => {
  const { workers, join, assign, store } = await setup(t);
  const workerId = await join();
  const { attemptId } = await assign(workerId);
  const usage = {
    cpuMillis: 1_500,
    memoryBytes: 1_024,
    diskFreeBytes: 2_048,
    loadMillis: 700,
    measuredAtMs: 9_000,
    eventLoopDelayMaxMicros: 5,
  };
  await store.changeWorker({ workerId, state: "ready", usage, madeAtMs: 4_000 });
  const [worker] = (await workers.listWorkers({})).workers;
  assert.deepEqual(worker?.attemptIds, [attemptId]);
  assert.deepEqual(worker.info?.labels, { os: "linux", provider: "static" });
  assert.deepEqual([worker.info.version, worker.usage?.loadMillis], [sampleWorker.version, 700]);
  assert.equal(worker.madeAt?.seconds, 4n);
});

test("a worker is cordoned and let free again, and the server is told of both", async (t) => {
  const { workers, join, cordoned, store } = await setup(t);
  const workerId = await join();
  const prefix = workerId.slice(0, 35).toUpperCase();
  assert.equal((await workers.cordonWorker({ workerId: prefix })).worker?.cordoned, true);
  assert.equal((await store.getWorker(workerId))?.cordoned, true);
  assert.equal((await workers.cordonWorker({ workerId, uncordon: true })).worker?.cordoned, false);
  assert.deepEqual(cordoned, [workerId, workerId]);
  await store.changeWorker({ workerId, state: "terminated" });
  await rejectsWith(
    workers.cordonWorker({ workerId }),
    Code.FailedPrecondition,
    /cordon worker .*: it is gone/,
  );
  await rejectsWith(workers.cordonWorker({ workerId: "ffff" }), Code.NotFound, /worker ffff not found/);
  await rejectsWith(workers.cordonWorker({ workerId: "?" }), Code.InvalidArgument, /^worker_id: /);
  assert.equal(cordoned.length, 2);
});

test("a worker that holds an attempt is removed by force only", async (t) => {
  const { workers, join, assign, removed, pools } = await setup(t);
  const workerId = await join();
  await assign(workerId);
  await rejectsWith(
    workers.removeWorker({ workerId }),
    Code.FailedPrecondition,
    /it holds 1 attempt; drain it to let them end, or set `force`/,
  );
  assert.deepEqual(removed, []);
  const { worker } = await workers.removeWorker({ workerId, force: true, reason: "old" });
  assert.equal(worker?.state, WorkerState.TERMINATED);
  assert.deepEqual(
    removed.map(({ worker: { id }, reason }) => [id, reason]),
    [[workerId, "old"]],
  );
  assert.deepEqual(pools.removed, []);
  await rejectsWith(workers.removeWorker({ workerId }), Code.FailedPrecondition, /it is gone/);
  await rejectsWith(workers.removeWorker({ workerId: "ffff" }), Code.NotFound, /worker ffff not found/);
  await rejectsWith(workers.removeWorker({ workerId: "no" }), Code.InvalidArgument, /^worker_id: /);
});

test("a worker of a pool is removed through its provider", async (t) => {
  const { workers, join, removed, pools } = await setup(t);
  const workerId = await join();
  pools.made.add(workerId);
  await workers.removeWorker({ workerId });
  assert.deepEqual(pools.removed, [{ workerId, reason: "removed by hand" }]);
  assert.deepEqual(removed, []);
});
