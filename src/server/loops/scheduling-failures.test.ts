import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Job } from "../../core/job.ts";
import type { Taint } from "../../core/labels.ts";
import { SchedulingState } from "../scheduling/scheduling-state.ts";
import { makeControlPlane } from "./loop-fixtures.ts";
import { Scheduler } from "./scheduling.ts";

function setup(t: TestContext) {
  const plane = makeControlPlane();
  const state = new SchedulingState({ ...plane, plannedPools: () => [] });
  const onJobChanged = (job: Job): void => state.onJobChanged(job);
  const onWanted = (job: Job): void => {
    plane.connections.jobSeen(job);
    onJobChanged(job);
  };
  const scheduler = new Scheduler({ ...plane, state, onJobChanged, onWanted, provision() {}, hint() {} });
  t.after(() => scheduler.stop());
  const round = (): Promise<void> => scheduler.round(new AbortController().signal);
  const statesOf = async (ids: readonly string[]) =>
    (await Promise.all(ids.map((id) => plane.job(id)))).map((job) => job.state);
  return { ...plane, round, statesOf };
}

test("an assignment that was stored without an answer holds its concurrency key in the next round", async (t) => {
  const { addWorker, connect, queue, round, statesOf, store, clock } = setup(t);
  const { connection } = connect(await addWorker());
  const concurrency = { key: "deploy", limit: 1 };
  const ids = [await queue({ concurrency })];
  clock.advance(1);
  ids.push(await queue({ concurrency }));
  const apply = store.applyInput.bind(store);
  store.applyInput = async (record) => {
    await apply(record);
    connection.close();
    throw new AppError("unavailable", "the connection broke before the answer came");
  };
  await assert.rejects(round(), { code: "unavailable" });
  store.applyInput = apply;
  connect(await addWorker());
  await round();
  assert.deepEqual(await statesOf(ids), ["scheduled", "pending"]);
});

test("a round in which an assignment fails is over when the others are stored", async (t) => {
  const { addWorker, connect, queue, round, statesOf, store, job } = setup(t);
  for (let index = 0; index < 2; index += 1) connect(await addWorker(), { capacity: { jobs: 1 } });
  const ids = [await queue(), await queue()];
  const apply = store.applyInput.bind(store);
  let calls = 0;
  store.applyInput = async (record) => {
    calls += 1;
    if (calls === 1) throw new AppError("internal", "this one fails");
    for (let look = 0; look < 50; look += 1) await job(record.jobId);
    return apply(record);
  };
  await assert.rejects(round(), { code: "internal" });
  assert.deepEqual((await statesOf(ids)).toSorted(), ["pending", "scheduled"]);
});

test("a taint that sends attempts away does so while no job waits", async (t) => {
  const { addWorker, connect, queue, round, statesOf } = setup(t);
  const taints: Taint[] = [];
  connect(await addWorker(), { taints });
  const id = await queue();
  await round();
  assert.deepEqual(await statesOf([id]), ["scheduled"]);
  taints.push({ key: "repair", value: "", effect: "NoExecute" });
  await round();
  assert.deepEqual(await statesOf([id]), ["cancelling"]);
});
