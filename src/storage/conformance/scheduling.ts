/** Conformance of a store: what the scheduler and the watch over deadlines ask for. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { placementKey } from "../../core/job.ts";
import type { Store } from "../store.ts";
import { T0, newId, definitionOf, submit, applyOk, startJob, resultOf } from "./samples.ts";

export function schedulingTests(store: () => Store): void {
  pendingTests(store);
  reasonTests(store);
  deadlineTests(store);
}

function pendingTests(store: () => Store): void {
  test("pending jobs are listed by priority, then by how long they wait", async () => {
    const old = await submit(store(), {}, { nowMs: T0 - 1_000 });
    const young = await submit(store(), {}, { nowMs: T0 - 500 });
    const urgent = await submit(store(), { priority: 5 }, { nowMs: T0 });
    const humble = await submit(store(), { priority: -5 }, { nowMs: T0 - 2_000 });
    const ids = [old, young, urgent, humble];
    assert.deepEqual(await listOwn(store(), { ids }), [urgent, old, young, humble]);
    const listed = await store().listPending({ limit: 10_000, nowMs: T0, withoutKeys: [] });
    assert.deepEqual(
      listed.find(({ id }) => id === urgent),
      {
        id: urgent,
        placementKey: placementKey(definitionOf()),
        resources: definitionOf().resources,
        selector: {},
        priority: 5,
        pendingSinceMs: T0,
      },
    );
    assert.equal((await store().listPending({ limit: 2, nowMs: T0, withoutKeys: [] })).length, 2);
  });

  test("placement keys can be left out, and assigned jobs are not pending", async () => {
    const gpu = { resources: { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 4 } };
    const ids = [await submit(store(), gpu), await submit(store()), await submit(store())];
    await startJob(store(), ids[2] as string);
    assert.deepEqual(new Set(await listOwn(store(), { ids })), new Set(ids.slice(0, 2)));
    assert.deepEqual(await listOwn(store(), { ids, withoutKeys: [placementKey(definitionOf(gpu))] }), [
      ids[1],
    ]);
  });

  test("a job that waits for its retry is listed when its time has come, and that time is known", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const waiting = await applyOk(
      store(),
      jobId,
      { type: "lose", attemptId, cause: "worker_lost", message: "" },
      T0 + 10,
    );
    assert.deepEqual(await listOwn(store(), { ids: [jobId], nowMs: waiting.notBeforeMs - 1 }), []);
    assert.deepEqual(await listOwn(store(), { ids: [jobId], nowMs: waiting.notBeforeMs }), [jobId]);
    const next = await store().nextPendingAtMs(waiting.notBeforeMs - 1);
    assert.equal(next, waiting.notBeforeMs);
    assert.equal(await store().nextPendingAtMs(T0 + 10 ** 11), null);
  });
}

function reasonTests(store: () => Store): void {
  test("the reason why a job waits shows while it waits, and does not count as a change", async () => {
    const selector = { host: newId() };
    const key = placementKey(definitionOf({ selector }));
    const jobId = await submit(store(), { selector });
    await store().setWaitReasons(new Map([[key, "no worker"]]));
    assert.equal((await store().getJob(jobId))?.message, "no worker");
    await store().setWaitReasons(
      new Map([
        [key, "every worker is busy"],
        ["other", "x"],
      ]),
    );
    await store().setWaitReasons(new Map());
    const job = await store().getJob(jobId);
    assert.equal(job?.message, "every worker is busy");
    assert.equal(job?.version, 1);
    const { items } = await store().listJobs({ states: ["pending"] }, { limit: 1_000, cursor: null });
    assert.equal(items.find(({ id }) => id === jobId)?.message, "every worker is busy");
    await startJob(store(), jobId);
    assert.equal((await store().getJob(jobId))?.message, "");
  });
}

function deadlineTests(store: () => Store): void {
  test("jobs past their deadline are listed, longest first", async () => {
    const early = await submit(store(), { queueTimeoutMs: 1_000 }, { nowMs: T0 - 10 ** 9 });
    const late = await submit(store(), { queueTimeoutMs: 2_000 }, { nowMs: T0 - 10 ** 9 });
    const at = T0 - 10 ** 9;
    assert.deepEqual(
      (await store().listDue({ nowMs: at + 1_000, limit: 10 })).map(({ jobId }) => jobId),
      [],
    );
    const due = await store().listDue({ nowMs: at + 2_001, limit: 10 });
    assert.deepEqual(
      due.map(({ jobId }) => jobId),
      [early, late],
    );
    assert.deepEqual(due[0], {
      jobId: early,
      state: "pending",
      attemptId: null,
      workerId: null,
      deadlineAtMs: at + 1_000,
    });
    assert.equal((await store().listDue({ nowMs: at + 2_001, limit: 1 })).length, 1);
    for (const jobId of [early, late])
      await applyOk(store(), jobId, { type: "reject", cause: "queue_timeout", message: "" });
    assert.deepEqual(await store().listDue({ nowMs: at + 2_001, limit: 10 }), []);
  });

  test("the live attempts of a worker come with their jobs, oldest first", async () => {
    const workerId = newId();
    const jobs = [await submit(store()), await submit(store()), await submit(store())];
    const attempts: string[] = [];
    for (const jobId of jobs) attempts.push(await startJob(store(), jobId, workerId));
    await applyOk(store(), jobs[1] as string, {
      type: "finish",
      attemptId: attempts[1] as string,
      result: resultOf(),
    });
    const live = await store().listLiveAttempts(workerId);
    // Ids of one millisecond are in the order of chance.
    assert.deepEqual(
      live.map(({ attempt }) => attempt.id),
      [attempts[0], attempts[2]].toSorted(compareText),
    );
    for (const { attempt, job } of live) {
      assert.equal(job.attemptId, attempt.id);
      assert.deepEqual(job, await store().getJob(attempt.jobId));
    }
  });
}

/** Of the jobs that may start, those of one test: a store is shared by many. */
async function listOwn(
  store: Store,
  options: { nowMs?: number; withoutKeys?: string[]; ids: readonly string[] },
): Promise<string[]> {
  const { nowMs = T0, withoutKeys = [], ids } = options;
  const listed = await store.listPending({ limit: 10_000, nowMs, withoutKeys });
  return listed.filter(({ id }) => ids.includes(id)).map(({ id }) => id);
}

function compareText(a = "", b = ""): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
