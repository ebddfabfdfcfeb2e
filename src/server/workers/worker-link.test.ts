import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { sha256Hex, systemRandom, uuidV4, uuidV7 } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import { encodeRecord } from "../../core/log-record.ts";
import { sampleDefinition, sampleResult } from "../../core/session-fixtures.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createMemoryBlobStore } from "../../storage/memory/memory-blob-store.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import type { JobInputRecord, Store } from "../../storage/store.ts";
import { workersApi } from "../api/workers.ts";
import { errorInterceptor } from "../http/error-interceptor.ts";
import { startGrpcServer } from "../http/grpc-server.ts";
import { openLogStore } from "../logs/log-store.ts";
import { assignJob } from "../scheduling/assign-job.ts";
import { FakeWorker } from "./fake-worker.ts";
import { HeartbeatWriter } from "./heartbeat-writer.ts";
import { linkApi } from "./link-api.ts";
import { removeStaticWorker } from "./remove-static-worker.ts";
import { WorkerConnections } from "./worker-connections.ts";

const newId = (): string => uuidV7(systemClock, systemRandom);

async function setup(t: TestContext, options: { takesOneJob?: boolean } = {}) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-worker-link-"));
  const store = createMemoryStore({ random: systemRandom });
  const logs = await openLogStore({
    directory,
    blobs: createMemoryBlobStore(),
    store,
    clock: systemClock,
    log: silentLogger,
  });
  // No pool is known: what a worker may have is a matter of its own.
  const connections = new WorkerConnections(() => null);
  const heartbeats = new HeartbeatWriter({ store, clock: systemClock, log: silentLogger });
  const common = { clock: systemClock, random: systemRandom, log: silentLogger, connections };
  const link = linkApi({
    ...common,
    store,
    logs,
    heartbeats,
    onJobChanged() {},
    onRoom() {},
    onIdle() {},
  });
  const grpc = await startGrpcServer({
    ...common,
    host: "127.0.0.1",
    port: 0,
    routes: (router) =>
      router.service(WorkerService, {
        ...workersApi({
          ...common,
          store,
          workerPort: { port: 9_090 },
          onDrained: (id, reason) => connections.get(id)?.drain(reason),
          onCordoned: (id) => connections.noteCordon(id, store),
          removeWorker: async () => false,
          removeStatic: (worker, reason) =>
            removeStaticWorker({ worker, reason }, { ...common, store, connections }),
        }),
        ...link,
      }),
    interceptors: [errorInterceptor(common)],
    auth: () => null,
    health: () => ({ ready: true, problems: [] }),
    drainMs: 1_000,
  });
  const workers: FakeWorker[] = [];
  t.after(async () => {
    await connections.stop();
    for (const worker of workers) worker.close();
    await grpc.stop();
    await heartbeats.stop();
    await logs.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /** A worker that was made, with its one-time token. */
  const makeWorker = async (tokenLifetimeMs = 60_000) => {
    const worker = new FakeWorker(`http://127.0.0.1:${grpc.port}`, newId());
    workers.push(worker);
    const token = uuidV4();
    const nowMs = systemClock.nowMs();
    await store.insertWorker({
      id: worker.workerId,
      name: "test",
      provider: "test",
      pool: "test",
      nowMs,
      takesOneJob: options.takesOneJob ?? false,
      token: { hash: sha256Hex(token), expiresAtMs: nowMs + tokenLifetimeMs },
    });
    return { worker, token };
  };
  const registered = async (): Promise<FakeWorker> => {
    const { worker, token } = await makeWorker();
    await worker.register(token);
    return worker;
  };
  const queue = async (): Promise<string> => {
    const id = newId();
    await store.insertJobs([
      { id, definition: sampleDefinition, idempotencyKey: null, nowMs: systemClock.nowMs() },
    ]);
    return id;
  };
  const job = async (jobId: string): Promise<Job> => (await store.getJob(jobId)) as Job;
  const jobIs = async (jobId: string, state: Job["state"]): Promise<Job> =>
    eventually(async () => ((await job(jobId)).state === state ? job(jobId) : null), {
      what: `job ${state}`,
    });
  return { store, logs, connections, makeWorker, registered, queue, job, jobIs };
}

/** Stores an attempt and sends it, as the scheduler does. */
async function assign(
  parts: { store: Store; connections: WorkerConnections },
  workerId: string,
  jobId: string,
): Promise<string> {
  const { signal } = new AbortController();
  const others = { clock: systemClock, random: systemRandom, signal, onJobChanged: () => undefined };
  return (await assignJob({ jobId, workerId }, { ...parts, ...others }))?.attemptId ?? "";
}

const record = Buffer.from(encodeRecord({ stream: "stdout", timeMs: 1, data: Buffer.from("hello\n") }));

describe("registration", () => {
  test("trades a token once, and again only for the same key", async (t) => {
    const { makeWorker, store } = await setup(t);
    const { worker, token } = await makeWorker();
    const registrationKey = uuidV4();
    await worker.register(token, { registrationKey });
    const first = worker.sessionToken;
    await worker.register(token, { registrationKey });
    assert.notEqual(worker.sessionToken, first);
    await assert.rejects(worker.register(token), /used already/);
    assert.equal((await store.getWorker(worker.workerId))?.state, "connecting");
  });

  test("refuses a token that is unknown, too old, or of another worker", async (t) => {
    const { makeWorker } = await setup(t);
    const { worker, token } = await makeWorker();
    await assert.rejects(worker.register(uuidV4()), /unknown/);
    await assert.rejects(worker.register(token, { workerId: newId() }), /another worker/);
    const old = await makeWorker(-1);
    await assert.rejects(old.worker.register(old.token), /too old/);
  });

  test("refuses a stream without a session", async (t) => {
    const { makeWorker } = await setup(t);
    const { worker } = await makeWorker();
    const stream = worker.open();
    await stream.ended();
    assert.match(String(stream.error), /unauthenticated/);
  });
});

describe("the worker stream", () => {
  test("runs a job: order, start, log with its acknowledgement, result", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    await eventually(async () => (await parts.store.getWorker(worker.workerId))?.state === "ready");
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    const order = await stream.next("run_job");
    assert.deepEqual([order.attemptId, order.jobId, order.attemptNumber], [attemptId, jobId, 1]);

    stream.send({ type: "accepted", attemptId });
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    await parts.jobIs(jobId, "running");
    stream.send({ type: "log_batch", attemptId, offset: 0, data: record });
    assert.equal((await stream.next("log_ack")).logAcked, record.length);
    stream.send({ type: "result", attemptId, result: sampleResult({ logEnd: record.length }) });
    await stream.next("result_ack");
    assert.equal((await parts.job(jobId)).state, "succeeded");
    assert.equal((await parts.store.getSealedLog(attemptId))?.logBytes, record.length);
  });

  test("holds a result back until the whole log is there", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    stream.send({ type: "result", attemptId, result: sampleResult({ logEnd: record.length }) });
    stream.send({
      type: "heartbeat",
      sequence: 1,
      usage: null,
      attempts: [{ attemptId, phase: "finished", logEnd: record.length }],
      draining: false,
    });
    await stream.next("heartbeat_ack");
    await parts.jobIs(jobId, "running");
    stream.send({ type: "log_batch", attemptId, offset: 0, data: record });
    await stream.next("result_ack");
    assert.equal((await parts.job(jobId)).state, "succeeded");
  });

  test("goes on after a reconnect from where the log ends on the server", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    stream.send({ type: "log_batch", attemptId, offset: 0, data: record });
    await stream.next("log_ack");
    stream.cut();
    await eventually(() => parts.connections.all().length === 0);

    const again = await worker.connect([{ attemptId, phase: "running", logEnd: 2 * record.length }]);
    const welcome = await again.next("welcome");
    assert.deepEqual(welcome.attempts, [{ attemptId, proceed: true, logAcked: record.length }]);
    again.send({ type: "log_batch", attemptId, offset: record.length, data: record });
    again.send({ type: "result", attemptId, result: sampleResult({ logEnd: 2 * record.length }) });
    await again.next("result_ack");
    assert.equal((await parts.job(jobId)).attemptCount, 1);
  });

  test("sends the worker away when log is missing in between", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const attemptId = await assign(parts, worker.workerId, await parts.queue());
    stream.send({ type: "log_batch", attemptId, offset: 500, data: record });
    await stream.next("goaway");
    await stream.ended();
  });

  test("has a stale attempt killed, in the welcome and later", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const jobId = await parts.queue();
    const stream = await worker.connect([{ attemptId: newId(), phase: "running", logEnd: 0 }]);
    assert.equal((await stream.next("welcome")).attempts[0]?.proceed, false);
    const attemptId = await assign(parts, worker.workerId, jobId);
    await stream.next("run_job");
    const input = { type: "lose", attemptId, cause: "worker_lost", message: "" } as const;
    await parts.store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    const control = await stream.next("control");
    assert.deepEqual([control.attemptId, control.action], [attemptId, "kill"]);
    assert.equal((await parts.job(jobId)).state, "pending");
  });

  test("has a worker let go of an attempt whose log was sealed without the rest", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    const input = { type: "lose", attemptId, cause: "worker_lost", message: "" } as const;
    await parts.store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
    await parts.logs.finish(attemptId);
    stream.send({ type: "log_batch", attemptId, offset: 0, data: record });
    const control = await stream.next("control");
    assert.deepEqual([control.attemptId, control.action], [attemptId, "kill"]);
    assert.equal(parts.connections.get(worker.workerId)?.session.attempts.size, 0);
  });

  test("puts a second stream of a worker in the place of the first", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const first = await worker.connect();
    await eventually(() => parts.connections.get(worker.workerId) !== null);
    const second = await worker.connect();
    await first.next("goaway");
    await first.ended();
    await eventually(() => parts.connections.get(worker.workerId) !== null);
    const attemptId = await assign(parts, worker.workerId, await parts.queue());
    assert.equal((await second.next("run_job")).attemptId, attemptId);
    assert.ok(!first.heard.some(({ type }) => type === "run_job"));
  });

  test("gives up no attempt for the hello of a stream that the worker has left", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const jobId = await parts.queue();
    const stream = await worker.connect();
    await eventually(() => parts.connections.get(worker.workerId) !== null);
    const attemptId = await assign(parts, worker.workerId, jobId);
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    await parts.jobIs(jobId, "running");
    // Said before the attempt came, and on its way since then.
    const late = await worker.connect([]);
    await stream.ended();
    late.cut();
    const held = { attemptId, phase: "running", logEnd: 0 } as const;
    const back = await worker.connect([held]);
    assert.equal((await back.next("welcome")).attempts[0]?.proceed, true);
    assert.equal((await parts.job(jobId)).attemptId, attemptId);
  });

  test("brings an attempt to a worker that reconnects while it is being stored", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const first = await worker.connect();
    await eventually(() => parts.connections.get(worker.workerId) !== null);
    const jobId = await parts.queue();
    let store = (): void => {};
    const mayStore = new Promise<void>((resolve) => (store = resolve));
    const attemptId = newId();
    const assigning = parts.connections.assign(worker.workerId, async () => {
      await mayStore;
      const input = { type: "assign", attemptId, workerId: worker.workerId } as const;
      const applied = await parts.store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
      return applied.ok
        ? { attemptId, attemptNumber: 1, job: applied.job, logDurable: 0, runnerId: "" }
        : null;
    });
    const second = worker.open();
    await first.ended();
    store();
    await assigning;
    assert.equal((await second.next("run_job")).attemptId, attemptId);
  });

  test("does not list a worker whose welcome could not be completed", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const change = parts.store.changeWorker.bind(parts.store);
    parts.store.changeWorker = () => Promise.reject(new AppError("unavailable", "no database"));
    const stream = worker.open();
    await stream.ended();
    assert.deepEqual(parts.connections.all(), []);
    parts.store.changeWorker = change;
    await worker.connect();
  });

  test("keeps the order of what it stores when the database fails for a while", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    const apply = parts.store.applyInput.bind(parts.store);
    const tried: string[] = [];
    let failures = 3;
    parts.store.applyInput = (input: JobInputRecord) => {
      tried.push(input.input.type);
      failures -= 1;
      return failures >= 0 ? Promise.reject(new AppError("unavailable", "no database")) : apply(input);
    };
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    stream.send({ type: "result", attemptId, result: sampleResult() });
    await stream.next("result_ack");
    assert.deepEqual(tried.slice(-2), ["start", "finish"]);
    assert.equal((await parts.job(jobId)).startedAtMs, 1_000);
    assert.ok(!stream.heard.some(({ type }) => type === "control"));
  });

  test("keeps what is said again and again once while the database is away", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const attemptId = await assign(parts, worker.workerId, await parts.queue());
    const apply = parts.store.applyInput.bind(parts.store);
    const stored: string[] = [];
    let isAway = true;
    parts.store.applyInput = (input: JobInputRecord) => {
      if (isAway) return Promise.reject(new AppError("unavailable", "no database"));
      stored.push(input.input.type);
      return apply(input);
    };
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    for (let count = 0; count < 50; count += 1) {
      stream.send({ type: "control_ack", attemptId, action: "pause", error: "" });
    }
    stream.send({ type: "result", attemptId, result: sampleResult() });
    // What comes after all of it has been heard when this is answered.
    stream.send({ type: "heartbeat", sequence: 7, usage: null, draining: false, attempts: [] });
    await stream.next("heartbeat_ack", ({ sequence }) => sequence === 7);
    isAway = false;
    await stream.next("result_ack");
    assert.deepEqual(stored, ["start", "pause", "finish"]);
  });

  test("acknowledges an end that is stored and of which only the answer was lost", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    const apply = parts.store.applyInput.bind(parts.store);
    const lost = new Set<string>();
    parts.store.applyInput = async (input: JobInputRecord) => {
      const applied = await apply(input);
      if (lost.has(input.input.type)) return applied;
      lost.add(input.input.type);
      throw new AppError("unavailable", "the connection broke before the answer came");
    };
    stream.send({ type: "started", attemptId, startedAtMs: 5 });
    stream.send({ type: "log_batch", attemptId, offset: 0, data: record });
    stream.send({ type: "result", attemptId, result: sampleResult({ logEnd: record.byteLength }) });
    await stream.next("result_ack");
    assert.deepEqual([...lost], ["start", "finish"]);
    const { state, attemptCount, version } = await parts.job(jobId);
    assert.deepEqual({ state, attemptCount, version }, { state: "succeeded", attemptCount: 1, version: 4 });
    assert.equal((await parts.store.getSealedLog(attemptId))?.logBytes, record.byteLength);
    assert.ok(!stream.heard.some(({ type }) => type === "control"));
  });

  test("tells a worker for one job to leave right after its order, and on each later stream", async (t) => {
    const parts = await setup(t, { takesOneJob: true });
    const worker = await parts.registered();
    const stream = await worker.connect();
    await eventually(() => takers(parts.connections).length === 1);
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    await stream.next("drain");
    assert.deepEqual(
      stream.heard.map(({ type }) => type),
      ["welcome", "run_job", "drain"],
    );
    stream.cut();
    const input = { type: "lose", attemptId, cause: "worker_lost", message: "its lease is over" } as const;
    await parts.store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
    // By the welcome it forgets the job, and the drain after that may be lost with the stream.
    const second = await worker.connect([{ attemptId, phase: "running", logEnd: 0 }]);
    await second.next("welcome", ({ attempts: [verdict] }) => verdict?.proceed === false);
    assert.deepEqual(takers(parts.connections), []);
    second.cut();
    const third = await worker.connect([]);
    await third.next("drain");
    assert.deepEqual(takers(parts.connections), []);
  });

  test("gives a worker for one job no other after its agent and its runner have died with the first", async (t) => {
    const parts = await setup(t, { takesOneJob: true });
    const worker = await parts.registered();
    const stream = await worker.connect();
    await eventually(() => takers(parts.connections).length === 1);
    const attemptId = await assign(parts, worker.workerId, await parts.queue());
    stream.cut();
    const input = { type: "lose", attemptId, cause: "worker_lost", message: "its lease is over" } as const;
    const jobId = (await parts.store.listLiveAttempts(worker.workerId))[0]?.job.id ?? "";
    await parts.store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
    const second = await worker.connect([]);
    await second.next("drain");
    assert.deepEqual(takers(parts.connections), []);
  });

  test("gives a broken worker no job after a reconnect", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    await parts.store.changeWorker({ workerId: worker.workerId, state: "broken", message: "could not kill" });
    const stream = await worker.connect();
    await stream.next("drain");
    await eventually(() => parts.connections.all().length === 1);
    assert.deepEqual(takers(parts.connections), []);
    assert.equal((await parts.store.getWorker(worker.workerId))?.state, "broken");
  });

  test("lets a worker go that holds nothing, and knows it no more", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    await eventually(() => parts.connections.all().length === 1);
    const jobId = await parts.queue();
    const attemptId = await assign(parts, worker.workerId, jobId);
    await assert.rejects(worker.unregister(), /still holds/);
    stream.send({ type: "result", attemptId, result: sampleResult() });
    await stream.next("result_ack");
    await worker.unregister();
    assert.equal((await parts.store.getWorker(worker.workerId))?.state, "terminated");
    const late = worker.open();
    await late.ended();
    assert.match(String(late.error), /unauthenticated/);
  });

  test("sends all workers away at a stop, and takes none back", async (t) => {
    const parts = await setup(t);
    const worker = await parts.registered();
    const stream = await worker.connect();
    await eventually(() => parts.connections.all().length === 1);
    await parts.connections.stop();
    await stream.next("goaway");
    const again = worker.open();
    await again.ended();
    assert.match(String(again.error), /the server stops/);
  });
});

function takers(connections: WorkerConnections): string[] {
  return connections.planned().flatMap(({ id, unavailable }) => (unavailable === null ? [id] : []));
}
