import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { Job, JobDefinition } from "../../core/job.ts";
import type { PlannedJob } from "../../core/plan.ts";
import { plannedJob } from "../api/job-decision.ts";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { Scheduler } from "../loops/scheduling.ts";
import { createSchedulerView } from "./scheduling-desk.ts";
import { SchedulingState } from "./scheduling-state.ts";

/** Rounds of scheduling, and a store whose writes wait until they are let go. */
function setup(t: TestContext) {
  const plane = makeControlPlane();
  const { store, queue, job, connect, addWorker } = plane;
  const scheduling = new SchedulingState({ ...plane, plannedPools: () => [] });
  const onJobChanged = (changed: Job): void => scheduling.onJobChanged(changed);
  const deps = { ...plane, onJobChanged, onWanted: onJobChanged, provision() {}, hint() {} };
  const scheduler = new Scheduler({ ...deps, state: scheduling });
  const view = createSchedulerView({ ...deps, scheduling });
  t.after(() => scheduler.stop());

  let letGo = (): void => {};
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const writes: string[] = [];
  const apply = store.applyInput.bind(store);
  store.applyInput = async (record) => {
    writes.push(record.jobId);
    await held;
    return apply(record);
  };

  const reads = { count: 0 };
  const list = store.listPending.bind(store);
  store.listPending = (options) => {
    reads.count += 1;
    return list(options);
  };

  const workerId = async (jobs: number): Promise<string> => {
    const id = await addWorker();
    connect(id, { capacity: { jobs } });
    return id;
  };
  const planned = async (changes: Partial<JobDefinition> = {}): Promise<PlannedJob> =>
    plannedJob(await job(await queue(changes)));
  const round = (signal = new AbortController().signal): Promise<void> => scheduler.round(signal);
  const byHand = (one: PlannedJob, id: string) => view.assignByHand(one, { id, state: "ready" });
  const stateOf = async ({ id }: PlannedJob) => (await job(id)).state;
  return { store, workerId, planned, round, byHand, stateOf, reads, writes, letGo: () => letGo() };
}

test("a worker for one job is not given a second one by hand while a round gives it the first", async (t) => {
  const { workerId, planned, round, byHand, stateOf, writes, letGo } = setup(t);
  const worker = await workerId(1);
  const [first, second] = [await planned({ priority: 1 }), await planned()];
  const scheduled = round();
  await eventually(() => writes.length === 1);
  const given = byHand(second, worker);
  letGo();
  await scheduled;
  assert.deepEqual(await given, { refusal: "runs as many jobs as it may, 1" });
  assert.deepEqual([await stateOf(first), await stateOf(second)], ["scheduled", "pending"]);
});

test("a worker for one job is not given a second one by a round while a person gives it the first", async (t) => {
  const { workerId, planned, round, byHand, stateOf, writes, letGo } = setup(t);
  const worker = await workerId(1);
  const [first, second] = [await planned(), await planned({ priority: 1 })];
  const given = byHand(first, worker);
  await eventually(() => writes.length === 1);
  const scheduled = round();
  letGo();
  assert.ok("attemptId" in (await given));
  await scheduled;
  assert.deepEqual([await stateOf(first), await stateOf(second)], ["scheduled", "pending"]);
});

test("a concurrency key is held from the moment a round gives a job with it away", async (t) => {
  const { workerId, planned, round, byHand, writes, letGo } = setup(t);
  const worker = await workerId(2);
  const concurrency = { key: "deploy", limit: 1 };
  await planned({ concurrency, priority: 1 });
  const second = await planned({ concurrency });
  const scheduled = round();
  await eventually(() => writes.length === 1);
  const given = byHand(second, worker);
  letGo();
  await scheduled;
  assert.deepEqual(await given, {
    refusal: "1 job is at work with the concurrency key deploy, and 1 may be",
  });
});

test("nothing is given by hand while a round reads again what an assignment has left in doubt", async (t) => {
  const { store, workerId, planned, round, byHand, letGo } = setup(t);
  const worker = await workerId(2);
  const concurrency = { key: "deploy", limit: 1 };
  const second = await planned({ concurrency });
  await planned({ concurrency, priority: 1 });
  const apply = store.applyInput;
  letGo();
  store.applyInput = async (record) => {
    await apply(record);
    throw new AppError("internal", "the answer was lost");
  };
  await assert.rejects(round(), /the answer was lost/);
  store.applyInput = apply;
  const list = store.listActive.bind(store);
  let answer: (() => void) | null = null;
  store.listActive = async () => {
    await new Promise<void>((resolve) => (answer = resolve));
    return list();
  };
  const scheduled = round();
  const answerNow = await eventually(() => answer);
  const given = byHand(second, worker);
  systemClock.schedule(20, answerNow);
  assert.ok("refusal" in (await given));
  await scheduled;
});

test("a round that is called off does not wait for its turn", async (t) => {
  const { workerId, planned, round, byHand, reads, writes, letGo } = setup(t);
  const worker = await workerId(1);
  const [first] = [await planned(), await planned()];
  const given = byHand(first, worker);
  await eventually(() => writes.length === 1);
  const stopped = new AbortController();
  const scheduled = round(stopped.signal);
  await eventually(() => reads.count === 1);
  stopped.abort();
  await assert.rejects(scheduled, /called off/);
  letGo();
  assert.ok("attemptId" in (await given));
});
