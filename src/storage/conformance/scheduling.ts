/** Conformance of a store: what the scheduler and the watch over deadlines ask for. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { placementKey } from "../../core/placement.ts";
import { waitKey } from "../../core/plan.ts";
import type { Store } from "../store.ts";
import { T0, newId, definitionOf, submit, applyOk, startJob, resultOf } from "./samples.ts";

export function schedulingTests(store: () => Store): void {
  reasonTests(store);
  deadlineTests(store);
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

  test("the reason of the queue goes before that of the concurrency key, and that before the placement's", async () => {
    const [queue, key, selector] = [newId(), newId(), { host: newId() }];
    const jobId = await submit(store(), { queue, concurrency: { key, limit: 1 }, selector });
    const placement = placementKey(definitionOf({ selector }));
    const shown = async (reasons: [string, string][]): Promise<string | undefined> => {
      await store().setWaitReasons(new Map(reasons));
      const { items } = await store().listJobs({ queue }, { limit: 10, cursor: null });
      const message = (await store().getJob(jobId))?.message;
      assert.equal(items[0]?.message, message);
      return message;
    };
    assert.equal(await shown([[placement, "too big"]]), "too big");
    assert.equal(await shown([[waitKey.concurrency(key), "held"]]), "held");
    assert.equal(await shown([[waitKey.queue(queue), "paused"]]), "paused");
    assert.equal(await shown([[waitKey.concurrency(key), ""]]), "paused");
    assert.equal(await shown([[waitKey.queue(queue), ""]]), "too big");
    const both: [string, string][] = [
      [placement, ""],
      [waitKey.concurrency(key), "held again"],
    ];
    assert.equal(await shown(both), "held again");
    assert.equal(await shown([[waitKey.concurrency(key), ""]]), "");
  });

  test("a job between two attempts says first how the last one ended, then why it waits", async () => {
    const queue = newId();
    const jobId = await submit(store(), { queue });
    const attemptId = await startJob(store(), jobId);
    const lost = { type: "lose", attemptId, cause: "worker_lost", message: "gone" } as const;
    const { message } = await applyOk(store(), jobId, lost);
    assert.notEqual(message, "");
    await store().setWaitReasons(new Map([[waitKey.queue(queue), "paused"]]));
    assert.equal((await store().getJob(jobId))?.message, `${message}; paused`);
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

function compareText(a = "", b = ""): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
