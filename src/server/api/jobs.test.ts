import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import type { AttemptResult } from "../../core/job.ts";
import { sampleResult } from "../../core/session-fixtures.ts";
import { Cause, JobService, JobState } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService, WorkerState } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { command, rejectsWith } from "./api-fixtures.ts";
import { startTestApi, TEST_TOKEN } from "./test-api.ts";

async function setup(t: TestContext, options: Parameters<typeof startTestApi>[1] = {}) {
  const api = await startTestApi(t, options);
  const jobs = api.client(JobService);
  const queue = async (name = "hello"): Promise<string> =>
    (await jobs.queueJob({ definition: { name, command } })).jobId;
  const run = async (jobId: string): Promise<string> => {
    const attemptId = api.newId();
    await api.apply(jobId, { type: "assign", attemptId, workerId: api.newId() });
    await api.apply(jobId, { type: "start", attemptId, startedAtMs: systemClock.nowMs() });
    return attemptId;
  };
  const finish = (jobId: string, attemptId: string, changes: Partial<AttemptResult> = {}) =>
    api.apply(jobId, {
      type: "finish",
      attemptId,
      result: sampleResult({
        startedAtMs: null,
        finishedAtMs: systemClock.nowMs(),
        usage: { peakMemoryBytes: 1, cpuMicros: 2, ioReadBytes: 3, ioWriteBytes: 4, leftoverProcesses: 0 },
        outputs: { answer: "42" },
        summary: "# done",
        ...changes,
      }),
    });
  return { ...api, jobs, queue, run, finish };
}

test("a job that was queued can be read with its defaults, in every protocol", async (t) => {
  const { client, protocols, queued } = await setup(t);
  for (const protocol of protocols) {
    const jobs = client(JobService, protocol);
    const { jobId } = await jobs.queueJob({ definition: { name: protocol, command } });
    const { job } = await jobs.getJob({ jobId });
    assert.equal(job?.id, jobId);
    assert.equal(job.state, JobState.PENDING);
    assert.equal(job.definition?.name, protocol);
    assert.equal(job.definition.timeout?.seconds, 3600n);
    assert.equal(job.definition.queue, "default");
    assert.deepEqual(job.attempts, []);
    assert.equal(queued.at(-1)?.id, jobId);
  }
});

test("a job can be submitted and read as JSON with nothing but an HTTP client", async (t) => {
  const { web } = await setup(t);
  const call = async (method: string, body: unknown): Promise<Record<string, unknown>> => {
    const response = await fetch(`${web.url}/hodei.v1.JobService/${method}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${TEST_TOKEN}` },
      body: JSON.stringify(body),
    });
    assert.equal(response.status, 200);
    return (await response.json()) as Record<string, unknown>;
  };
  const definition = {
    name: "json",
    command: { script: { content: "echo hi" } },
    selector: { nobody: "has-this" },
  };
  const { jobId } = await call("QueueJob", { definition });
  const { job } = await call("GetJob", { jobId });
  assert.equal((job as { state: string }).state, "JOB_STATE_PENDING");
});

test("two hundred single submissions at once all get a job of their own", async (t) => {
  const { jobs, store, queued } = await setup(t);
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, index) =>
      jobs.queueJob({ definition: { name: `job ${index}`, command } }),
    ),
  );
  assert.equal(new Set(answers.map(({ jobId }) => jobId)).size, 200);
  for (const [index, { jobId }] of answers.entries()) {
    assert.equal((await store.getJob(jobId))?.definition.name, `job ${index}`);
  }
  assert.equal(queued.length, 200);
});

test("an idempotency key makes a second submission harmless, and nobody is told of it twice", async (t) => {
  const { jobs, queued } = await setup(t);
  const request = { definition: { name: "x", command }, idempotencyKey: "key-1" };
  const first = await jobs.queueJob(request);
  const second = await jobs.queueJob(request);
  assert.equal(second.jobId, first.jobId);
  const both = await Promise.all([
    jobs.queueJob({ ...request, idempotencyKey: "key-2" }),
    jobs.queueJob({ ...request, idempotencyKey: "key-2" }),
  ]);
  assert.equal(both[0].jobId, both[1].jobId);
  assert.equal(queued.length, 2);
});

test("a batch is stored as a whole and answered in its order", async (t) => {
  const { jobs, store } = await setup(t);
  const { jobIds } = await jobs.queueJobs({
    jobs: Array.from({ length: 1000 }, (_, index) => ({ definition: { name: `job ${index}`, command } })),
  });
  assert.equal(jobIds.length, 1000);
  assert.equal((await store.getJob(jobIds[999] ?? ""))?.definition.name, "job 999");
  assert.deepEqual(jobIds, jobIds.toSorted());
  const bad = [{ definition: { name: "good", command } }, { definition: { name: "", command } }];
  await rejectsWith(jobs.queueJobs({ jobs: bad }), Code.InvalidArgument, /jobs\[1\]\.definition\.name/);
  assert.equal((await jobs.listJobs({ name: "good" })).jobs.length, 0);
  await rejectsWith(jobs.queueJobs({ jobs: [] }), Code.InvalidArgument, /^jobs: /);
});

test("a job is found by the beginning of its id, in any case, if it is the only one", async (t) => {
  const { jobs, queue } = await setup(t);
  const first = await queue();
  const second = await queue();
  assert.equal((await jobs.getJob({ jobId: first.toUpperCase() })).job?.id, first);
  assert.equal((await jobs.getJob({ jobId: first.slice(0, 35) })).job?.id, first);
  await assert.rejects(jobs.getJob({ jobId: first.slice(0, 4) }), (error) => {
    assert.ok(error instanceof ConnectError);
    assert.equal(error.code, Code.InvalidArgument);
    assert.match(error.rawMessage, /ambiguous/);
    assert.ok(error.rawMessage.includes(first) && error.rawMessage.includes(second));
    return true;
  });
  for (const id of ["ffff", "ffffffff-ffff-7fff-8fff-ffffffffffff", "------------------------------------"]) {
    await rejectsWith(jobs.getJob({ jobId: id }), Code.NotFound, new RegExp(`job ${id} not found`));
    await rejectsWith(jobs.cancelJob({ jobId: id }), Code.NotFound, /not found/);
    await rejectsWith(jobs.retryJob({ jobId: id }), Code.NotFound, /not found/);
    await rejectsWith(jobs.getJobEvents({ jobId: id }), Code.NotFound, /not found/);
  }
});

test("pages list every job once, newest first, also while jobs are added", async (t) => {
  const { jobs, queue } = await setup(t);
  const ids: string[] = [];
  for (let index = 0; index < 7; index++) ids.push(await queue());
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await jobs.listJobs({ pageSize: 3, pageToken });
    seen.push(...page.jobs.map(({ id }) => id));
    pageToken = page.nextPageToken;
    await queue("later");
  } while (pageToken !== "");
  assert.deepEqual(seen, ids.toReversed());
});

test("lists are filtered by state, cause, queue, name, labels and time", async (t) => {
  const { jobs, run, finish } = await setup(t);
  const beforeMs = systemClock.nowMs() - 1;
  const one = (
    await jobs.queueJob({ definition: { name: "one", command, queue: "q1", labels: { team: "a" } } })
  ).jobId;
  const two = (
    await jobs.queueJob({ definition: { name: "two", command, queue: "q2", labels: { team: "b", x: "y" } } })
  ).jobId;
  await finish(two, await run(two), { state: "failed", cause: "exit_code", exitCode: 3 });
  const list = async (filter: Parameters<typeof jobs.listJobs>[0]): Promise<string[]> =>
    (await jobs.listJobs(filter)).jobs.map(({ id }) => id);
  assert.deepEqual(await list({}), [two, one]);
  assert.deepEqual(await list({ states: [JobState.PENDING, JobState.RUNNING] }), [one]);
  assert.deepEqual(await list({ causes: [Cause.EXIT_CODE] }), [two]);
  assert.deepEqual(await list({ causes: [Cause.WORKER_LOST] }), []);
  assert.deepEqual(await list({ queue: "q1" }), [one]);
  assert.deepEqual(await list({ name: "two" }), [two]);
  assert.deepEqual(await list({ labels: { team: "b" } }), [two]);
  assert.deepEqual(await list({ labels: { team: "a", x: "y" } }), []);
  assert.deepEqual(await list({ createdBefore: timestampFromMs(beforeMs) }), []);
  assert.deepEqual(await list({ createdAfter: timestampFromMs(beforeMs) }), [two, one]);
  const [failed] = (await jobs.listJobs({ name: "two" })).jobs;
  assert.equal(failed?.attempts[0]?.exitCode, 3);
});

test("a page token that is not of this server is refused by name", async (t) => {
  const { jobs, client } = await setup(t);
  const forged = (content: unknown): string => Buffer.from(JSON.stringify(content)).toString("base64url");
  const tokens = [
    "x",
    "%%%",
    forged({}),
    forged(null),
    forged([1]),
    forged({ v: 2, after: "0198" }),
    forged({ v: 1, after: "' or 1=1" }),
    forged({ v: 1, after: 7 }),
  ];
  for (const pageToken of tokens) {
    await rejectsWith(jobs.listJobs({ pageToken }), Code.InvalidArgument, /^page_token: /);
    await rejectsWith(
      client(WorkerService).listWorkers({ pageToken }),
      Code.InvalidArgument,
      /^page_token: /,
    );
  }
  await rejectsWith(jobs.listJobs({ pageSize: 1001 }), Code.InvalidArgument, /^page_size: /);
});

test("a pending job is cancelled at once, a running one is cancelling, and the server is told of both", async (t) => {
  const { jobs, queue, run, wanted } = await setup(t);
  const pending = await queue();
  const { job } = await jobs.cancelJob({ jobId: pending, reason: "not needed" });
  assert.equal(job?.state, JobState.CANCELLED);
  assert.equal(job.message, "not needed");
  const running = await queue();
  await run(running);
  for (let time = 0; time < 2; time++) {
    const answer = await jobs.cancelJob({ jobId: running });
    assert.equal(answer.job?.state, JobState.CANCELLING);
    assert.equal(answer.job.attempts.length, 1);
  }
  assert.deepEqual(
    wanted.map(({ id }) => id),
    [pending, running, running],
  );
  await rejectsWith(
    jobs.cancelJob({ jobId: pending }),
    Code.FailedPrecondition,
    /ended already and is cancelled/,
  );
});

test("only a job that has ended can be retried, and one that succeeded only by force", async (t) => {
  const { jobs, queue, run, finish, queued } = await setup(t);
  const jobId = await queue();
  await rejectsWith(jobs.retryJob({ jobId }), Code.FailedPrecondition, /it is pending/);
  await finish(jobId, await run(jobId));
  await rejectsWith(jobs.retryJob({ jobId }), Code.FailedPrecondition, /succeeded; set `force`/);
  const { job } = await jobs.retryJob({ jobId, force: true });
  assert.equal(job?.state, JobState.PENDING);
  assert.deepEqual(
    queued.map(({ id }) => id),
    [jobId, jobId],
  );
});

test("events are listed from where the caller stopped", async (t) => {
  const { jobs, queue, run, finish } = await setup(t);
  const jobId = await queue();
  await finish(jobId, await run(jobId));
  const { events } = await jobs.getJobEvents({ jobId });
  assert.deepEqual(
    events.map(({ type }) => type),
    ["queued", "assigned", "started", "succeeded"],
  );
  const rest = await jobs.getJobEvents({ jobId, afterSequence: events[1]?.sequence ?? 0n });
  assert.deepEqual(
    rest.events.map(({ type }) => type),
    ["started", "succeeded"],
  );
  assert.deepEqual((await jobs.getJobEvents({ jobId, afterSequence: 2n ** 64n - 1n })).events, []);
});

test("a watch shows each state until the job ends, in every protocol", async (t) => {
  const { client, protocols, queue, run, finish, events } = await setup(t);
  for (const protocol of protocols) {
    const jobId = await queue();
    const seen: JobState[] = [];
    for await (const { job } of client(JobService, protocol).watchJob({ jobId: jobId.toUpperCase() })) {
      assert.equal(job?.id, jobId);
      seen.push(job.state);
      if (job.state === JobState.PENDING) void run(jobId).then((attemptId) => finish(jobId, attemptId));
    }
    assert.equal(seen[0], JobState.PENDING);
    assert.equal(seen.at(-1), JobState.SUCCEEDED);
    assert.deepEqual(
      seen,
      seen.toSorted((a, b) => a - b),
      protocol,
    );
  }
  assert.equal(events.subscribers, 0);
});

test("a watch of a job that has ended says so and closes; of one that is not there, not_found", async (t) => {
  const { jobs, queue } = await setup(t);
  const jobId = await queue();
  await jobs.cancelJob({ jobId });
  const states: unknown[] = [];
  for await (const { job } of jobs.watchJob({ jobId })) states.push(job?.state);
  assert.deepEqual(states, [JobState.CANCELLED]);
  await rejectsWith(
    jobs.watchJob({ jobId: "ffffffff" })[Symbol.asyncIterator]().next(),
    Code.NotFound,
    /job ffffffff not found/,
  );
});

test("a change that nobody announced is found all the same", async (t) => {
  const hastyClock = {
    ...systemClock,
    sleep: (delayMs: number, signal?: AbortSignal) => systemClock.sleep(delayMs / 100, signal),
  };
  const { jobs, queue, store } = await setup(t, { clock: hastyClock });
  const jobId = await queue();
  const states: unknown[] = [];
  for await (const { job } of jobs.watchJob({ jobId })) {
    states.push(job?.state);
    await store.applyInput({ jobId, input: { type: "cancel", reason: "" }, nowMs: systemClock.nowMs() });
  }
  assert.deepEqual(states, [JobState.PENDING, JobState.CANCELLED]);
});

test("a watcher that leaves is forgotten", async (t) => {
  const { client, protocols, queue, events } = await setup(t);
  for (const protocol of protocols) {
    const leave = new AbortController();
    const watchCall = client(JobService, protocol).watchJob(
      { jobId: await queue() },
      { signal: leave.signal },
    );
    const watch = watchCall[Symbol.asyncIterator]();
    await watch.next();
    assert.equal(events.subscribers, 1);
    leave.abort();
    await assert.rejects(watch.next());
    await eventually(() => events.subscribers === 0, { what: `the end of the subscription (${protocol})` });
  }
});

test("workers are listed and found by the beginning of their id", async (t) => {
  const { client, store, newId } = await setup(t);
  const workers = client(WorkerService);
  const ids = [newId(), newId()].toSorted();
  for (const id of ids) {
    await store.insertWorker({
      id,
      name: `w-${id}`,
      provider: "process",
      pool: "default",
      nowMs: systemClock.nowMs(),
      token: null,
    });
  }
  const list = await workers.listWorkers({ pageSize: 1 });
  assert.equal(list.workers[0]?.info?.workerId, ids[1]);
  const rest = await workers.listWorkers({ pageSize: 1, pageToken: list.nextPageToken });
  assert.equal(rest.workers[0]?.info?.workerId, ids[0]);
  const { worker } = await workers.getWorkerInfo({ workerId: ids[0]?.slice(0, 35) ?? "" });
  assert.equal(worker?.info?.name, `w-${ids[0]}`);
  assert.equal(worker.state, WorkerState.CREATING);
  await rejectsWith(workers.getWorkerInfo({ workerId: "ffff" }), Code.NotFound, /worker ffff not found/);
});

test("the server says what it is", async (t) => {
  const { client } = await setup(t);
  const info = await client(ServerService).getServerInfo({});
  assert.deepEqual([info.version, info.instanceId, info.databaseVersion], ["1.2.3", "i-1", "memory"]);
});
