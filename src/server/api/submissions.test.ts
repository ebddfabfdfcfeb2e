import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Code } from "@connectrpc/connect";
import { systemClock, type Clock } from "../../base/clock.ts";
import { JobService, LabelOperator } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { command, plannedPool, plannedWorker, rejectsWith } from "./api-fixtures.ts";
import { startTestApi } from "./test-api.ts";

async function setup(t: TestContext, options: { clock?: Clock } = {}) {
  const api = await startTestApi(t, options);
  const jobs = api.client(JobService);
  const limit = (name: string, maxPending: number) =>
    api.scheduler.configureQueues({
      set: [{ name, weight: 1, maxRunning: null, maxPending, paused: false }],
      reset: [],
    });
  const count = async (): Promise<number> =>
    (await api.store.listBacklogs()).reduce((sum, { pending }) => sum + pending, 0);
  return { ...api, jobs, limit, count };
}

/** A clock whose monotonic time stands still until it is told otherwise. */
function standingClock() {
  const time = { nowMs: 1_000 };
  const clock: Clock = { ...systemClock, monotonicMs: () => time.nowMs };
  return { clock, time };
}

test("conditions that no proto constraint can say are refused by the path of their field", async (t) => {
  const { jobs, count } = await setup(t);
  const picky = (fields: object) => jobs.queueJob({ definition: { name: "x", command, ...fields } });
  const requirement = (operator: LabelOperator, values: string[]) => ({
    selectorExpressions: [
      { key: "ok", operator: LabelOperator.EXISTS },
      { key: "zone", operator, values },
    ],
  });
  const wrong: [object, RegExp][] = [
    [requirement(LabelOperator.IN, []), /^definition\.selector_expressions\[1\]: ./],
    [requirement(LabelOperator.EXISTS, ["a"]), /^definition\.selector_expressions\[1\]: ./],
    [requirement(LabelOperator.GT, ["many"]), /^definition\.selector_expressions\[1\]: ./],
    [requirement(LabelOperator.LT, ["1", "2"]), /^definition\.selector_expressions\[1\]: ./],
    [{ tolerations: [{ key: "", exists: false, value: "v" }] }, /^definition\.tolerations\[0\]: ./],
    [{ preferences: [{ weight: 1 }] }, /^definition\.preferences\[0\]: ./],
    // These the constraints know.
    [requirement(LabelOperator.UNSPECIFIED, []), /^definition\.selector_expressions\[1\]\.operator: /],
    [{ tolerations: [{ key: "k", effect: "Never" }] }, /^definition\.tolerations\[0\]\.effect: /],
    [{ preferences: [{ weight: 101 }] }, /^definition\.preferences\[0\]\.weight: /],
    [{ concurrency: { key: "" } }, /^definition\.concurrency\.key: /],
    [{ capabilities: [""] }, /^definition\.capabilities\[0\]: /],
  ];
  for (const [fields, message] of wrong) await rejectsWith(picky(fields), Code.InvalidArgument, message);
  await rejectsWith(
    jobs.queueJobs({
      jobs: [
        { definition: { name: "fine", command } },
        { definition: { name: "x", command, ...requirement(LabelOperator.IN, []) } },
      ],
    }),
    Code.InvalidArgument,
    /^jobs\[1\]\.definition\.selector_expressions\[1\]: ./,
  );
  assert.equal(await count(), 0);
});

test("a job that nothing could ever take is refused with what comes closest, unless it is wanted so", async (t) => {
  const { jobs, scheduler, newId, count } = await setup(t);
  scheduler.workers = [plannedWorker({ id: newId(), labels: { gpu: "a100" } })];
  const request = { definition: { name: "x", command, selector: { gpu: "h100" } } };
  await rejectsWith(jobs.queueJob(request), Code.FailedPrecondition, /gpu=h100.*a100.*`accept_unplaceable`/);
  await rejectsWith(
    jobs.queueJobs({ jobs: [{ definition: { name: "fine", command } }, request] }),
    Code.FailedPrecondition,
    /^jobs\[1\]: .*gpu=h100/,
  );
  assert.equal(await count(), 0);
  await jobs.queueJob({ ...request, acceptUnplaceable: true });
  await jobs.queueJobs({ jobs: [{ ...request, acceptUnplaceable: true }] });
  assert.equal(await count(), 2);
});

test("a submission that is sent again is answered with its jobs, even if there is no place for them any more", async (t) => {
  const { jobs, scheduler, newId, count } = await setup(t);
  const keyed = (idempotencyKey: string) => ({
    definition: { name: "x", command, selector: { gpu: "a100" } },
    idempotencyKey,
  });
  scheduler.workers = [plannedWorker({ id: newId(), labels: { gpu: "a100" } })];
  const { jobId } = await jobs.queueJob(keyed("one"));
  const { jobIds } = await jobs.queueJobs({ jobs: [keyed("two"), keyed("three")] });
  scheduler.workers = [plannedWorker({ id: newId(), labels: { gpu: "h100" } })];
  const later = { ...keyed("one"), definition: { name: "x", command, selector: { gpu: "a100", os: "x" } } };
  assert.equal((await jobs.queueJob(later)).jobId, jobId);
  const again = {
    jobs: [keyed("two"), keyed("three")].map((job) => ({ ...job, definition: later.definition })),
  };
  assert.deepEqual((await jobs.queueJobs(again)).jobIds, jobIds);
  await rejectsWith(
    jobs.queueJobs({ jobs: [...again.jobs, { ...later, idempotencyKey: "four" }] }),
    Code.FailedPrecondition,
    /^jobs\[0\]: /,
  );
  assert.equal(await count(), 3);
});

test("a pool that is made for a refused job lets it in at once", async (t) => {
  const { jobs, scheduler, count } = await setup(t);
  const request = { definition: { name: "x", command, resources: { cpuMillis: 64_000 } } };
  scheduler.pools = [plannedPool({ name: "small" })];
  await rejectsWith(jobs.queueJob(request), Code.FailedPrecondition, /64.*small/);
  const capacity = { cpuMillis: 64_000, memoryBytes: 2 ** 33, diskBytes: 2 ** 40, gpu: 0, jobs: 1 };
  scheduler.pools = [...scheduler.pools, plannedPool({ name: "big", capacity })];
  await jobs.queueJob(request);
  assert.equal(await count(), 1);
});

test("alike jobs are held against the workers once in a second, however many come", async (t) => {
  const { clock, time } = standingClock();
  const { jobs, scheduler } = await setup(t, { clock });
  const request = { definition: { name: "x", command } };
  await jobs.queueJobs({ jobs: Array.from({ length: 100 }, () => request) });
  await jobs.queueJob(request);
  assert.equal(scheduler.snapshots, 1);
  time.nowMs += 1_000;
  await jobs.queueJob(request);
  assert.equal(scheduler.snapshots, 2);
});

test("a full queue refuses, and lets in again when there is room", async (t) => {
  const { clock, time } = standingClock();
  const { jobs, limit, store, apply, newId } = await setup(t, { clock });
  await limit("small", 3);
  const request = (queue: string) => ({ definition: { name: "x", command, queue } });
  const first = await jobs.queueJob(request("small"));
  await rejectsWith(
    jobs.queueJobs({ jobs: [request("small"), request("small"), request("small")] }),
    Code.ResourceExhausted,
    /queue small is full, no more than 3/,
  );
  await jobs.queueJobs({ jobs: [request("small"), request("small")] });
  await rejectsWith(jobs.queueJob(request("small")), Code.ResourceExhausted, /queue small is full/);
  await jobs.queueJob(request("other"));
  await apply(first.jobId, { type: "assign", attemptId: newId(), workerId: newId() });
  time.nowMs += 100;
  await jobs.queueJob(request("small"));
  await rejectsWith(jobs.queueJob(request("small")), Code.ResourceExhausted, /queue small is full/);
  const [, small] = await store.listBacklogs();
  assert.deepEqual([small?.queue, small?.pending], ["small", 3]);
});

test("of many submissions at once to a queue with a limit just as many get in", async (t) => {
  const { jobs, limit, count } = await setup(t);
  await limit("default", 20);
  const answers = await Promise.allSettled(
    Array.from({ length: 100 }, () => jobs.queueJob({ definition: { name: "x", command } })),
  );
  assert.equal(answers.filter(({ status }) => status === "fulfilled").length, 20);
  assert.equal(await count(), 20);
});
