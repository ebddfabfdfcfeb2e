import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { encodeRecord, type LogStreamName } from "../../core/log-record.ts";
import { JobService } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { openDirectoryBlobStore } from "../../storage/directory-blob-store.ts";
import type { Store } from "../../storage/store.ts";
import { openLogStore, type LogStore } from "../logs/log-store.ts";
import { command, rejectsWith } from "./api-fixtures.ts";
import type { LogReader } from "./logs.ts";
import { startTestApi } from "./test-api.ts";
import { jobTimeline } from "./timeline.ts";

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-timeline-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  let logs: LogStore | null = null;
  const openLogs = async (store: Store): Promise<LogStore> => {
    const blobs = openDirectoryBlobStore(join(directory, "blobs"));
    const common = { store, clock: systemClock, log: silentLogger };
    logs = await openLogStore({ directory: join(directory, "logs"), blobs, ...common });
    t.after(() => logs?.stop());
    return logs;
  };
  const api = await startTestApi(t, { logs: openLogs });
  const jobs = api.client(JobService);
  const append = async (attemptId: string, records: [LogStreamName, number][]): Promise<void> => {
    let offset = 0;
    for (const [stream, timeMs] of records) {
      const data = encodeRecord({ stream, timeMs, data: Buffer.from("x\n") });
      const result = await logs?.append(attemptId, offset, data);
      assert.ok(result?.ok);
      offset += data.byteLength;
    }
  };
  const queue = async (): Promise<string> =>
    (await jobs.queueJob({ definition: { name: "x", command } })).jobId;
  return { ...api, jobs, append, queue };
}

const ms = (time: Timestamp | undefined): number | null => (time ? timestampMs(time) : null);

test("a timeline has the worker's way and the first byte of the command, not of the system", async (t) => {
  const { jobs, store, newId, apply, append, queue } = await setup(t);
  const workerId = newId();
  await store.insertWorker({
    id: workerId,
    name: "w",
    provider: "process",
    pool: "local",
    nowMs: 1_000,
    token: null,
  });
  await store.changeWorker({ workerId, madeAtMs: 2_000 });
  const jobId = await queue();
  const attemptId = newId();
  await apply(jobId, { type: "assign", attemptId, workerId });
  await apply(jobId, { type: "start", attemptId, startedAtMs: 5_000 });
  await append(attemptId, [
    ["system", 5_001],
    ["stderr", 5_007.6],
    ["stdout", 5_009],
  ]);
  const [attempt, ...others] = (await jobs.getJobTimeline({ jobId: jobId.slice(0, 35) })).attempts;
  assert.deepEqual(others, []);
  assert.deepEqual([attempt?.attemptId, attempt?.number, attempt?.workerId], [attemptId, 1, workerId]);
  const { job } = await jobs.getJob({ jobId });
  assert.equal(ms(attempt?.queuedAt), ms(job?.createdAt));
  assert.deepEqual([ms(attempt?.provisioningAt), ms(attempt?.createdAt)], [1_000, 2_000]);
  assert.equal(ms(attempt?.registeredAt), null);
  assert.equal(ms(attempt?.scheduledAt), ms(job?.attempts[0]?.scheduledAt));
  assert.deepEqual([ms(attempt?.startedAt), ms(attempt?.firstByteAt)], [5_000, 5_007]);
  assert.equal(ms(attempt?.finishedAt), null);
});

test("what has not come is not set, and a worker that nobody made was not provisioned", async (t) => {
  const { jobs, store, newId, apply, append, queue } = await setup(t);
  const jobId = await queue();
  assert.deepEqual((await jobs.getJobTimeline({ jobId })).attempts, []);
  const workerId = newId();
  await store.insertWorker({
    id: workerId,
    name: "w",
    provider: "static",
    pool: "",
    nowMs: 1_000,
    token: null,
  });
  const attemptId = newId();
  await apply(jobId, { type: "assign", attemptId, workerId });
  const [scheduled] = (await jobs.getJobTimeline({ jobId })).attempts;
  assert.deepEqual(
    [scheduled?.provisioningAt, scheduled?.startedAt, scheduled?.firstByteAt],
    [undefined, undefined, undefined],
  );
  await apply(jobId, { type: "start", attemptId, startedAtMs: 5_000 });
  await append(attemptId, [["system", 5_001]]);
  const [quiet] = (await jobs.getJobTimeline({ jobId })).attempts;
  assert.deepEqual([ms(quiet?.startedAt), quiet?.firstByteAt], [5_000, undefined]);
});

test("a worker that is not known any more, and one with a broken clock, hide only their own times", async (t) => {
  const { jobs, newId, apply, append, queue } = await setup(t);
  const jobId = await queue();
  const attemptId = newId();
  await apply(jobId, { type: "assign", attemptId, workerId: newId() });
  await apply(jobId, { type: "start", attemptId, startedAtMs: 5_000 });
  await append(attemptId, [["stdout", 1e300]]);
  const [attempt] = (await jobs.getJobTimeline({ jobId })).attempts;
  assert.deepEqual([ms(attempt?.startedAt), ms(attempt?.provisioningAt)], [5_000, null]);
});

/** A job with many attempts, whose logs say how many of them are read, and wait for `go`. */
async function manyAttempts(t: TestContext, count: number) {
  const reads = { open: 0, most: 0, all: 0 };
  let go: () => void = () => {};
  const gone = new Promise<void>((resolve) => {
    go = resolve;
  });
  const logs: LogReader = {
    wake() {},
    async *read() {
      reads.open += 1;
      reads.all += 1;
      reads.most = Math.max(reads.most, reads.open);
      await gone;
      reads.open -= 1;
      const record = { stream: "stdout", timeMs: 7_000, data: Buffer.from("x") } as const;
      yield { records: [record], nextOffset: 1, complete: false };
    },
  };
  const { client, store, apply, newId } = await startTestApi(t, { logs: async () => logs });
  const jobs = client(JobService);
  const { jobId } = await jobs.queueJob({ definition: { name: "x", command } });
  for (let number = 1; number <= count; number += 1) {
    const attemptId = newId();
    await apply(jobId, { type: "assign", attemptId, workerId: newId() });
    await apply(jobId, { type: "start", attemptId, startedAtMs: 5_000 });
    await apply(jobId, { type: "lose", attemptId, cause: "worker_lost", message: "gone", isFinal: true });
    if (number < count) await apply(jobId, { type: "retry", force: true });
  }
  return { jobs, store, logs, jobId, reads, go };
}

test("of a job with many attempts few logs are read at a time, and only the newest ones", async (t) => {
  const { jobs, jobId, reads, go } = await manyAttempts(t, 210);
  go();
  const { attempts } = await jobs.getJobTimeline({ jobId });
  assert.deepEqual(
    attempts.map(({ number }) => number),
    Array.from({ length: 210 }, (_, index) => index + 1),
  );
  assert.equal(reads.most, 4);
  assert.equal(reads.all, 200);
  const firstBytes = attempts.map(({ firstByteAt }) => ms(firstByteAt));
  assert.deepEqual([firstBytes[9], firstBytes[10], firstBytes[209]], [null, 7_000, 7_000]);
});

test("a caller that leaves ends the look at the logs of many attempts", async (t) => {
  const { store, logs, jobId, reads, go } = await manyAttempts(t, 20);
  const job = await store.getJob(jobId);
  assert.ok(job);
  const leaving = new AbortController();
  const answer = jobTimeline({ store, logs }, job, leaving.signal);
  await eventually(() => reads.open === 4);
  leaving.abort(new Error("the caller has left"));
  go();
  await assert.rejects(answer, /the caller has left/);
  await eventually(() => reads.open === 0);
  assert.equal(reads.all, 4);
});

test("the timeline of a job that is not there is not_found", async (t) => {
  const { jobs } = await setup(t);
  await rejectsWith(jobs.getJobTimeline({ jobId: "ffffffff" }), Code.NotFound, /job ffffffff not found/);
  await rejectsWith(jobs.getJobTimeline({ jobId: "no" }), Code.InvalidArgument, /^job_id: /);
});
