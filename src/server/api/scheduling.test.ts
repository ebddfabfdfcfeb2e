import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Code } from "@connectrpc/connect";
import { systemClock, type Clock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { sha256Hex } from "../../base/random.ts";
import { sampleWorker } from "../../core/session-fixtures.ts";
import { JobService, JobState } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import {
  BlockerKind,
  DecisionKind,
  SchedulerService,
  type SchedulingDecision,
} from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import { command, plannedPool, plannedWorker, rejectsWith } from "./api-fixtures.ts";
import { startTestApi, type TestApiOptions } from "./test-api.ts";

async function setup(t: TestContext, options: TestApiOptions = {}) {
  const api = await startTestApi(t, options);
  const { store, scheduler, newId } = api;
  const jobs = api.client(JobService);
  const scheduling = api.client(SchedulerService);
  const queue = async (fields: object = {}): Promise<string> => {
    const definition = { name: "x", command, ...fields };
    return (await jobs.queueJob({ definition, acceptUnplaceable: true })).jobId;
  };
  /** A registered worker, as the scheduler and the store know it. */
  const join = async (name: string, changes: Partial<Parameters<typeof plannedWorker>[0]> = {}) => {
    const id = newId();
    const token = { hash: sha256Hex(id), expiresAtMs: systemClock.nowMs() + 60_000 };
    await store.insertWorker({ id, name, provider: "static", pool: "", nowMs: systemClock.nowMs(), token });
    const registration = {
      tokenHash: token.hash,
      registrationKey: id,
      sessionTokenHash: sha256Hex(`s${id}`),
    };
    const info = { ...sampleWorker, workerId: "", name };
    await store.registerWorker({ ...registration, info, nowMs: systemClock.nowMs() });
    await store.changeWorker({ workerId: id, state: "ready" });
    scheduler.workers.push(plannedWorker({ id, name, ...changes }));
    return id;
  };
  return { ...api, jobs, scheduling, queue, join };
}

const full = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0, jobs: 0 };

// ── ScheduleJob ────────────────────────────────────────────────────────────────────────────────

test("a job is queued and answered with the first decision on it", async (t) => {
  const { scheduling, scheduler, queued } = await setup(t);
  const call = scheduling.scheduleJob({ job: { definition: { name: "x", command, queue: "q" } } });
  const job = await eventually(() => queued[0], { what: "the job" });
  await eventually(() => scheduler.listeners.size === 1, { what: "the wait for a decision" });
  scheduler.decide({ jobId: "another", kind: "assigned" });
  scheduler.decide({ jobId: job.id, kind: "provisioning", pool: "p", queue: "q", reason: "one is made" });
  const { jobId, decision } = await call;
  assert.equal(jobId, job.id);
  assert.deepEqual(
    [decision?.jobId, decision?.kind, decision?.pool],
    [jobId, DecisionKind.PROVISIONING, "p"],
  );
  assert.deepEqual([decision?.reason, decision?.queue], ["one is made", "q"]);
  assert.equal(scheduler.listeners.size, 0);
});

test("a decision that was made before anybody asked is answered at once", async (t) => {
  const { scheduling, scheduler, queued } = await setup(t);
  const push = queued.push.bind(queued);
  queued.push = (...jobs) => {
    for (const { id } of jobs) scheduler.decide({ jobId: id, kind: "waiting", reason: "full" });
    return push(...jobs);
  };
  const { decision } = await scheduling.scheduleJob({ job: { definition: { name: "x", command } } });
  assert.equal(decision?.reason, "full");
});

test("without a decision in two seconds the answer is how it stands", async (t) => {
  const hastyClock: Clock = {
    ...systemClock,
    schedule: (delayMs, run) => systemClock.schedule(delayMs / 100, run),
  };
  const { scheduling, scheduler, join } = await setup(t, { clock: hastyClock });
  await join("full", { free: full });
  const { jobId, decision } = await scheduling.scheduleJob({ job: { definition: { name: "x", command } } });
  assert.notEqual(jobId, "");
  assert.equal(decision?.kind, DecisionKind.WAITING);
  assert.notEqual(decision?.reason, "");
  assert.equal(scheduler.listeners.size, 0);
});

test("a dry run says what would be decided and queues nothing", async (t) => {
  const { scheduling, scheduler, join, queued, newId } = await setup(t);
  const dryRun = async (fields: object = {}): Promise<SchedulingDecision | undefined> => {
    const answer = await scheduling.scheduleJob({
      job: { definition: { name: "x", command, ...fields } },
      dryRun: true,
    });
    assert.equal(answer.jobId, "");
    assert.equal(answer.decision?.jobId, "");
    return answer.decision;
  };
  const workerId = await join("free");
  const assigned = await dryRun();
  assert.deepEqual([assigned?.kind, assigned?.workerId], [DecisionKind.ASSIGNED, workerId]);
  assert.equal((await dryRun({ selector: { gpu: "h100" } }))?.kind, DecisionKind.IMPOSSIBLE);
  scheduler.workers = [plannedWorker({ id: newId(), free: full })];
  assert.equal((await dryRun())?.kind, DecisionKind.WAITING);
  scheduler.pools = [plannedPool({ name: "p" })];
  const provisioning = await dryRun();
  assert.deepEqual([provisioning?.kind, provisioning?.pool], [DecisionKind.PROVISIONING, "p"]);
  assert.deepEqual(queued, []);
});

test("a dry run names the worker and the pool that the job would get, not just one that fits", async (t) => {
  const { scheduling, scheduler, join, newId } = await setup(t);
  const dryRun = async () =>
    (await scheduling.scheduleJob({ job: { definition: { name: "x", command } }, dryRun: true })).decision;
  scheduler.pools = [plannedPool({ name: "a-costly", rank: 1 }), plannedPool({ name: "b-cheap", rank: 0 })];
  const provisioning = await dryRun();
  assert.deepEqual([provisioning?.kind, provisioning?.pool], [DecisionKind.PROVISIONING, "b-cheap"]);
  assert.equal(provisioning?.reason, "pool b-cheap would make a worker");
  scheduler.workers = [
    plannedWorker({ id: newId(), name: "a-busy", free: { ...full, cpuMillis: 1_000, jobs: 1 } }),
  ];
  const roomy = await join("b-empty");
  assert.equal((await dryRun())?.workerId, roomy);
});

test("a job that could not be queued cannot be scheduled either", async (t) => {
  const { scheduling, join, queued } = await setup(t);
  await join("worker");
  const schedule = (fields: object, dryRun = false) =>
    scheduling.scheduleJob({ job: { definition: { name: "x", command, ...fields } }, dryRun });
  await rejectsWith(schedule({ selector: { gpu: "h100" } }), Code.FailedPrecondition, /gpu=h100/);
  for (const dryRun of [false, true]) {
    await rejectsWith(schedule({ name: "" }, dryRun), Code.InvalidArgument, /^job\.definition\.name: /);
    const preferences = [{ weight: 1 }];
    await rejectsWith(
      schedule({ preferences }, dryRun),
      Code.InvalidArgument,
      /^job\.definition\.preferences\[0\]: /,
    );
    await rejectsWith(scheduling.scheduleJob({ dryRun }), Code.InvalidArgument, /^job: /);
  }
  assert.deepEqual(queued, []);
});

// ── AssignJob and GetAvailableWorkers ──────────────────────────────────────────────────────────

test("a waiting job is given to a worker by hand", async (t) => {
  const { scheduling, jobs, queue, join } = await setup(t);
  const [jobId, workerId] = [await queue(), await join("mine")];
  const { attemptId } = await scheduling.assignJob({
    jobId: jobId.slice(0, 35),
    workerId: workerId.slice(0, 35).toUpperCase(),
  });
  const { job } = await jobs.getJob({ jobId });
  assert.deepEqual([job?.attempts[0]?.id, job?.workerId], [attemptId, workerId]);
  await rejectsWith(
    scheduling.assignJob({ jobId, workerId }),
    Code.FailedPrecondition,
    /the job is scheduled, and only a waiting one/,
  );
});

test("a job is not given to a worker on which it does not fit, and the refusal says why", async (t) => {
  const { scheduling, scheduler, queue, join, store, newId } = await setup(t);
  const big = await queue({ resources: { cpuMillis: 64_000 } });
  const small = await join("small");
  await rejectsWith(
    scheduling.assignJob({ jobId: big, workerId: small }),
    Code.FailedPrecondition,
    /^assign job .* to worker small .*: .*64/,
  );
  const cordoned = await join("cordoned", { unavailable: "it is cordoned" });
  const jobId = await queue();
  await rejectsWith(
    scheduling.assignJob({ jobId, workerId: cordoned }),
    Code.FailedPrecondition,
    /it is cordoned/,
  );
  const unknown = newId();
  await store.insertWorker({ id: unknown, name: "new", provider: "p", pool: "", nowMs: 1, token: null });
  await rejectsWith(
    scheduling.assignJob({ jobId, workerId: unknown }),
    Code.FailedPrecondition,
    /the worker is creating and takes no jobs/,
  );
  scheduler.concurrency.set("deploy", 1);
  const held = await queue({ concurrency: { key: "deploy" } });
  await rejectsWith(
    scheduling.assignJob({ jobId: held, workerId: small }),
    Code.FailedPrecondition,
    /1 job is at work with the concurrency key deploy, and 1 may be/,
  );
  await rejectsWith(scheduling.assignJob({ jobId: "ffff", workerId: small }), Code.NotFound, /job ffff/);
  await rejectsWith(scheduling.assignJob({ jobId, workerId: "ffff" }), Code.NotFound, /worker ffff/);
  await rejectsWith(scheduling.assignJob({ jobId: "", workerId: small }), Code.InvalidArgument, /^job_id: /);
  await rejectsWith(scheduling.assignJob({ jobId, workerId: "-" }), Code.InvalidArgument, /^worker_id: /);
});

test("available are the workers with room, and of a job those on which it fits", async (t) => {
  const { scheduling, queue, join } = await setup(t);
  const b = await join("b", { labels: { zone: "z" } });
  const a = await join("a");
  await join("full", { free: full });
  await join("drained", { unavailable: "it is draining" });
  const { workers } = await scheduling.getAvailableWorkers({});
  assert.deepEqual(
    workers.map(({ worker }) => worker?.info?.workerId),
    [a, b],
  );
  assert.deepEqual([workers[0]?.free?.cpuMillis, workers[0]?.free?.jobs], [4_000, 4]);
  const jobId = await queue({ selector: { zone: "z" } });
  const fitting = await scheduling.getAvailableWorkers({ jobId });
  assert.deepEqual(
    fitting.workers.map(({ worker }) => [worker?.info?.workerId, worker?.info?.labels]),
    [[b, { zone: "z" }]],
  );
  await rejectsWith(scheduling.getAvailableWorkers({ jobId: "ffff" }), Code.NotFound, /job ffff/);
  await rejectsWith(scheduling.getAvailableWorkers({ jobId: "x" }), Code.InvalidArgument, /^job_id: /);
});

// ── GetSchedulingDecision ──────────────────────────────────────────────────────────────────────

test("a job that waits is explained worker by worker and pool by pool", async (t) => {
  const { scheduling, scheduler, queue, join } = await setup(t);
  await join("far", { labels: { gpu: "a100" }, free: full });
  const near = await join("near", { labels: { gpu: "h100" }, free: full });
  scheduler.pools = [plannedPool({ name: "p", labels: { gpu: "h100" }, room: 0, problem: "no engine" })];
  await queue({ selector: { gpu: "h100" } });
  const jobId = await queue({ name: "second", selector: { gpu: "h100" } });
  const explained = await scheduling.getSchedulingDecision({ jobId: jobId.slice(0, 35) });
  assert.deepEqual(
    [explained.jobId, explained.jobName, explained.state],
    [jobId, "second", JobState.PENDING],
  );
  assert.equal(explained.decision?.kind, DecisionKind.WAITING);
  assert.notEqual(explained.decision.reason, "");
  assert.equal(explained.ahead, 1n);
  assert.equal(explained.workers[0]?.workerId, near);
  assert.equal(explained.workers.length, 2);
  const kinds = explained.workers[1]?.blockers.map(({ kind }) => kind) ?? [];
  assert.ok(kinds.includes(BlockerKind.LABEL), String(kinds));
  assert.equal(explained.pools[0]?.name, "p");
  assert.equal(explained.pools[0].fits, false);
  assert.match(explained.pools[0].blockers.map(({ message }) => message).join(), /no engine/);
  scheduler.pools = [];
  scheduler.workers = scheduler.workers.slice(0, 1);
  const impossible = await scheduling.getSchedulingDecision({ jobId });
  assert.equal(impossible.decision?.kind, DecisionKind.IMPOSSIBLE);
});

test("a job for which there is room waits for its turn alone", async (t) => {
  const { scheduling, queue, join } = await setup(t);
  await join("free");
  const { decision } = await scheduling.getSchedulingDecision({ jobId: await queue() });
  assert.equal(decision?.kind, DecisionKind.WAITING);
  assert.match(decision.reason, /^it fits on worker free now, and starts when its turn comes$/);
});

test("what only the scheduler knows of a waiting job is told with it", async (t) => {
  const { scheduling, scheduler, queue, join } = await setup(t);
  await join("full", { free: full });
  const jobId = await queue();
  scheduler.decide({ jobId, kind: "provisioning", pool: "p" });
  const { decision } = await scheduling.getSchedulingDecision({ jobId });
  assert.deepEqual([decision?.kind, decision?.pool], [DecisionKind.PROVISIONING, "p"]);
});

test("a held queue is named as what holds the job", async (t) => {
  const { scheduling, scheduler, queue, join } = await setup(t);
  await join("free");
  const jobId = await queue({ queue: "q" });
  const paused = { name: "q", weight: 1, maxRunning: null, maxPending: null, paused: true };
  await scheduler.configureQueues({ set: [paused], reset: [] });
  const { heldBy, decision } = await scheduling.getSchedulingDecision({ jobId });
  assert.match(heldBy, /paused/);
  assert.equal(decision?.kind, DecisionKind.WAITING);
});

test("a job that waits for its next attempt says until when, and why", async (t) => {
  const { scheduling, queue, join, apply, newId } = await setup(t);
  const workerId = await join("free");
  const jobId = await queue({
    retry: { maxRetries: 1, backoff: { seconds: 1_000n }, maxBackoff: { seconds: 1_000n } },
  });
  const attemptId = newId();
  await apply(jobId, { type: "assign", attemptId, workerId });
  await apply(jobId, { type: "lose", attemptId, cause: "worker_lost", message: "it burnt" });
  const { decision, notBefore, state } = await scheduling.getSchedulingDecision({ jobId });
  assert.deepEqual([state, decision?.kind], [JobState.PENDING, DecisionKind.WAITING]);
  assert.match(decision?.reason ?? "", /tried again in \d+ s: .*it burnt/);
  assert.notEqual(notBefore, undefined);
});

test("a job that waits no more says where it went, also when the server has forgotten", async (t) => {
  const { scheduling, scheduler, jobs, queue, join, apply, newId } = await setup(t);
  const workerId = await join("mine");
  const jobId = await queue();
  await apply(jobId, { type: "assign", attemptId: newId(), workerId });
  const forgotten = await scheduling.getSchedulingDecision({ jobId });
  assert.deepEqual(
    [forgotten.decision?.kind, forgotten.decision?.workerId],
    [DecisionKind.ASSIGNED, workerId],
  );
  assert.match(forgotten.decision?.reason ?? "", /given to worker mine as attempt 1/);
  assert.deepEqual([forgotten.state, forgotten.ahead, forgotten.workers], [JobState.SCHEDULED, 0n, []]);
  scheduler.decide({ jobId, kind: "assigned", workerId, reason: "the most room" });
  const known = await scheduling.getSchedulingDecision({ jobId });
  assert.equal(known.decision?.reason, "the most room");
  const never = await queue();
  await jobs.cancelJob({ jobId: never, reason: "not needed" });
  const { decision } = await scheduling.getSchedulingDecision({ jobId: never });
  assert.deepEqual([decision?.kind, decision?.reason], [DecisionKind.ENDED, "not needed"]);
  await rejectsWith(scheduling.getSchedulingDecision({ jobId: "ffff" }), Code.NotFound, /job ffff/);
  await rejectsWith(scheduling.getSchedulingDecision({ jobId: "" }), Code.InvalidArgument, /^job_id: /);
});

// ── The stream ─────────────────────────────────────────────────────────────────────────────────

test("decisions are sent as they are made, by queue and job, in every protocol", async (t) => {
  const { client, protocols, scheduler, queue } = await setup(t);
  const jobId = await queue();
  for (const protocol of protocols) {
    const leave = new AbortController();
    const request = { queue: "q", jobId: jobId.toUpperCase() };
    const { signal } = leave;
    const stream = client(SchedulerService, protocol).watchSchedulingDecisions(request, { signal });
    const watch = stream[Symbol.asyncIterator]();
    const first = watch.next();
    await eventually(() => scheduler.listeners.size === 1, { what: `the watch (${protocol})` });
    scheduler.decide({ jobId, kind: "waiting", queue: "other" });
    scheduler.decide({ jobId: "j-2", kind: "waiting", queue: "q" });
    scheduler.decide({ jobId, kind: "assigned", queue: "q", workerId: "w" });
    const { value } = await first;
    assert.deepEqual([value?.decision?.jobId, value?.decision?.workerId, value?.lost], [jobId, "w", 0n]);
    leave.abort();
    await assert.rejects(watch.next());
    await eventually(() => scheduler.listeners.size === 0, { what: `the end of the watch (${protocol})` });
  }
});

test("what no decision can ever be about is refused and not waited for", async (t) => {
  const { scheduling, scheduler } = await setup(t);
  const first = (request: { queue?: string; jobId?: string }) =>
    scheduling.watchSchedulingDecisions(request)[Symbol.asyncIterator]().next();
  await rejectsWith(first({ jobId: "ffff" }), Code.NotFound, /^job ffff not found$/);
  await rejectsWith(
    first({ queue: "not a name" }),
    Code.InvalidArgument,
    /^queue: "not a name" must be letters/,
  );
  await rejectsWith(scheduling.getQueueStatus({ queue: "a\0b" }), Code.InvalidArgument, /^queue: /);
  for (const name of ["", "-x", "a\0b", "x".repeat(129)]) {
    const reset = scheduling.configureScheduler({ resetQueues: ["fine", name] });
    await rejectsWith(reset, Code.InvalidArgument, /^reset_queues\[1\]: /);
  }
  assert.equal(scheduler.listeners.size, 0);
});

test("a reader that is too slow loses the oldest decisions and is told how many", async (t) => {
  const { scheduling, scheduler } = await setup(t);
  const watch = scheduling.watchSchedulingDecisions({})[Symbol.asyncIterator]();
  const first = watch.next();
  await eventually(() => scheduler.listeners.size === 1, { what: "the watch" });
  // All in one turn, so that nothing can be taken in between.
  for (let index = 0; index < 300; index += 1) scheduler.decide({ jobId: `j-${index}`, kind: "waiting" });
  const { value } = await first;
  assert.deepEqual([value?.lost, value?.decision?.jobId], [44n, "j-44"]);
  for (let index = 45; index < 300; index += 1) {
    const next = await watch.next();
    assert.deepEqual([next.value?.lost, next.value?.decision?.jobId], [0n, `j-${index}`]);
  }
  await watch.return?.();
});

test("a filter that no queue or id can be is refused", async (t) => {
  const { scheduling } = await setup(t);
  const watch = (request: object) =>
    scheduling.watchSchedulingDecisions(request)[Symbol.asyncIterator]().next();
  await rejectsWith(watch({ queue: "x".repeat(129) }), Code.InvalidArgument, /^queue: /);
  await rejectsWith(watch({ jobId: "x".repeat(37) }), Code.InvalidArgument, /^job_id: /);
});

// ── Queues and start times ─────────────────────────────────────────────────────────────────────

test("queues are configured, shown with what waits in them, and forgotten", async (t) => {
  const { scheduling, queue } = await setup(t);
  await queue({ queue: "busy" });
  await queue({ queue: "busy" });
  const set = await scheduling.configureScheduler({
    queues: [{ name: "deploy", weight: 3, maxRunning: 0, paused: true }, { name: "build" }],
  });
  assert.deepEqual(
    set.queues.map(({ name, weight, maxRunning, paused }) => [name, weight, maxRunning, paused]),
    [
      ["build", 1, undefined, false],
      ["deploy", 3, 0, true],
    ],
  );
  const { queues } = await scheduling.getQueueStatus({});
  assert.deepEqual(
    queues.map(({ config, pending, oldestWait }) => [config?.name, pending, oldestWait !== undefined]),
    [
      ["build", 0n, false],
      ["busy", 2n, true],
      ["deploy", 0n, false],
    ],
  );
  const only = (await scheduling.getQueueStatus({ queue: "deploy" })).queues;
  assert.deepEqual(
    only.map(({ config }) => config?.name),
    ["deploy"],
  );
  const reset = await scheduling.configureScheduler({ resetQueues: ["deploy", "deploy", "unknown"] });
  assert.deepEqual(
    reset.queues.map(({ name }) => name),
    ["build"],
  );
});

test("a limit of waiting jobs holds from the call on that sets it", async (t) => {
  const { scheduling, jobs, queue } = await setup(t);
  await queue();
  await scheduling.configureScheduler({ queues: [{ name: "default", maxPending: 1 }] });
  const call = jobs.queueJob({ definition: { name: "x", command } });
  await rejectsWith(call, Code.ResourceExhausted, /queue default is full/);
  await scheduling.configureScheduler({ resetQueues: ["default"] });
  await queue();
});

test("a configuration that contradicts itself or breaks a limit is refused, and nothing is set", async (t) => {
  const { scheduling, scheduler } = await setup(t);
  const wrong: [object, RegExp][] = [
    [{ queues: [{ name: "a" }, { name: "a", weight: 2 }] }, /^queues\[1\]\.name: a is configured twice/],
    [{ queues: [{ name: "a" }], resetQueues: ["b", "a"] }, /^reset_queues\[1\]: a is configured/],
    [{ queues: [{ name: "" }] }, /^queues\[0\]\.name: /],
    [{ queues: [{ name: "a b" }] }, /^queues\[0\]\.name: /],
    [{ queues: [{ name: "a", weight: 1_001 }] }, /^queues\[0\]\.weight: /],
  ];
  for (const [request, message] of wrong) {
    await rejectsWith(scheduling.configureScheduler(request), Code.InvalidArgument, message);
  }
  assert.equal(scheduler.configs.size, 0);
  await rejectsWith(scheduling.getQueueStatus({ queue: "x".repeat(129) }), Code.InvalidArgument, /^queue: /);
});

test("start times are told part by part", async (t) => {
  const startTimes = [{ name: "waiting", count: 3, p50Ms: 1.4, p95Ms: 2_000, p99Ms: 2_500 }];
  const { scheduling } = await setup(t, { startTimes });
  const { parts } = await scheduling.getStartTimes({});
  assert.deepEqual([parts[0]?.name, parts[0]?.count, parts.length], ["waiting", 3n, 1]);
  assert.deepEqual([parts[0]?.p50?.nanos, parts[0]?.p99?.seconds], [1_000_000, 2n]);
});
