import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../../base/eventually.ts";
import type { Plan, PlannedPool } from "../../core/planner.ts";
import { makeControlPlane } from "./loop-fixtures.ts";
import { scheduleRound } from "./scheduling.ts";

function setup() {
  const plane = makeControlPlane();
  const pools: PlannedPool[] = [];
  const provisioned: Plan["provision"] = [];
  const provisioner = {
    plannedPools: () => pools,
    provision: (wanted: Plan["provision"]) => void provisioned.push(...wanted),
  };
  const round = (): Promise<boolean> =>
    scheduleRound({ ...plane, provisioner }, new AbortController().signal);
  return { ...plane, pools, provisioned, round };
}

test("gives waiting jobs to workers up to their capacity, each once", async () => {
  const { addWorker, connect, queue, job, round } = setup();
  const workerId = await addWorker();
  const { messages } = connect(workerId, { capacity: { jobs: 2 } });
  const ids = [await queue(), await queue(), await queue()];
  assert.equal(await round(), true);
  assert.equal(await round(), false);
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

test("finds the job that fits behind a thousand that do not", async () => {
  const { addWorker, connect, queue, job, round } = setup();
  connect(await addWorker());
  const misfits: string[] = [];
  for (let index = 0; index < 1_100; index += 1) misfits.push(await queue({ selector: { os: "plan9" } }));
  const fitting = await queue();
  await round();
  assert.equal((await job(fitting)).state, "scheduled");
  const { state, message } = await job(misfits[0] ?? "");
  assert.equal(state, "pending");
  assert.match(message, /no worker and no pool has the label os=plan9/);
});

test("gives nothing to workers that drain or have left", async () => {
  const { addWorker, connect, queue, job, round } = setup();
  const draining = connect(await addWorker());
  draining.connection.drain("test");
  const closed = connect(await addWorker());
  closed.connection.close();
  const id = await queue();
  assert.equal(await round(), false);
  assert.equal((await job(id)).attemptCount, 0);
});

test("asks for workers where none has room", async () => {
  const { queue, pools, provisioned, round, job } = setup();
  pools.push({
    name: "local",
    labels: { os: "linux" },
    capacity: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, gpu: 0, jobs: 2 },
    room: 5,
    arriving: 0,
    problem: null,
  });
  const ids = [await queue(), await queue(), await queue()];
  await round();
  assert.deepEqual(provisioned, [{ pool: "local", count: 2 }]);
  assert.match((await job(ids[0] ?? "")).message, /being made/);
});
