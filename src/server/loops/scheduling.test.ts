import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { Job } from "../../core/job.ts";
import type { Plan, PlannedPool } from "../../core/plan.ts";
import { SchedulingState } from "../scheduling/scheduling-state.ts";
import { makeControlPlane, samplePool } from "./loop-fixtures.ts";
import { Scheduler } from "./scheduling.ts";

function setup(t: TestContext) {
  const plane = makeControlPlane();
  const pools: PlannedPool[] = [];
  const provisioned: Plan["provision"] = [];
  const state = new SchedulingState({ ...plane, plannedPools: () => pools });
  const onJobChanged = (job: Job): void => {
    plane.onJobChanged(job);
    state.onJobChanged(job);
  };
  const onWanted = (job: Job): void => {
    plane.connections.jobSeen(job);
    onJobChanged(job);
  };
  const provision = (wanted: Plan["provision"]): void => void provisioned.push(...wanted);
  const scheduler = new Scheduler({ ...plane, state, provision, onJobChanged, onWanted, hint() {} });
  t.after(() => scheduler.stop());
  const round = (): Promise<void> => scheduler.round(new AbortController().signal);
  return { ...plane, pools, provisioned, state, scheduler, round };
}

test("gives waiting jobs to workers up to their capacity, each once", async (t) => {
  const { addWorker, connect, queue, job, round, clock } = setup(t);
  const workerId = await addWorker();
  const { messages } = connect(workerId, { capacity: { jobs: 2 } });
  const ids: string[] = [];
  for (let index = 0; index < 3; index += 1) {
    ids.push(await queue());
    clock.advance(1);
  }
  await round();
  await round();
  const jobs = await Promise.all(ids.map(job));
  assert.deepEqual(
    jobs.map(({ state }) => state),
    ["scheduled", "scheduled", "pending"],
  );
  await eventually(() => messages.length === 2);
  assert.deepEqual(
    messages.map((message) => message.type === "run_job" && message.jobId),
    ids.slice(0, 2),
  );
});

test("finds the job that fits behind a thousand that do not", async (t) => {
  const { addWorker, connect, queue, job, round } = setup(t);
  connect(await addWorker());
  const misfits: string[] = [];
  for (let index = 0; index < 1_100; index += 1) misfits.push(await queue({ selector: { os: "plan9" } }));
  const fitting = await queue();
  await round();
  assert.equal((await job(fitting)).state, "scheduled");
  const { state, message } = await job(misfits[0] ?? "");
  assert.equal(state, "pending");
  assert.match(message, /os=plan9/);
});

test("gives nothing to workers that drain or have left", async (t) => {
  const { addWorker, connect, queue, job, round } = setup(t);
  const draining = connect(await addWorker());
  draining.connection.drain("test");
  const closed = connect(await addWorker());
  closed.connection.close();
  const id = await queue();
  await round();
  assert.equal((await job(id)).attemptCount, 0);
});

test("asks for workers where none has room", async (t) => {
  const { queue, pools, provisioned, round, job } = setup(t);
  pools.push(samplePool());
  const ids = [await queue(), await queue(), await queue()];
  await round();
  assert.deepEqual(
    provisioned.map(({ pool, count }) => [pool, count]),
    [["local", 2]],
  );
  assert.match((await job(ids[0] ?? "")).message, /being made/);
});

test("an attempt that is stored and of which the answer was lost is made once, and reaches its worker", async (t) => {
  const { addWorker, connect, queue, job, attempts, round, clock, store } = setup(t);
  const { messages } = connect(await addWorker());
  const jobId = await queue();
  const apply = store.applyInput.bind(store);
  let losses = 0;
  store.applyInput = async (record) => {
    const applied = await apply(record);
    if (losses === 3) return applied;
    losses += 1;
    throw new AppError("unavailable", "the connection broke before the answer came");
  };
  const scheduling = round();
  await eventually(() => {
    clock.advance(1_000);
    return messages.length > 0;
  });
  await scheduling;
  assert.equal(losses, 3);
  assert.equal((await job(jobId)).state, "scheduled");
  const [attempt, ...others] = await attempts(jobId);
  assert.deepEqual(others, []);
  assert.deepEqual(
    messages.map((message) => message.type === "run_job" && message.attemptId),
    [attempt?.id],
  );
});

test("a worker that leaves while the store does not answer ends the wait for it", async (t) => {
  const { addWorker, connect, queue, round, store } = setup(t);
  const { connection, messages } = connect(await addWorker());
  await queue();
  store.applyInput = async () => {
    connection.close();
    throw new AppError("unavailable", "no database");
  };
  await assert.rejects(round(), { code: "unavailable" });
  assert.deepEqual(messages, []);
});

test("a server that stops does not wait for a store that does not answer", async (t) => {
  const { addWorker, connect, queue, scheduler, store } = setup(t);
  connect(await addWorker());
  await queue();
  const stopped = new AbortController();
  store.applyInput = async () => {
    queueMicrotask(() => stopped.abort());
    throw new AppError("unavailable", "no database");
  };
  await assert.rejects(scheduler.round(stopped.signal), { code: "unavailable" });
});
