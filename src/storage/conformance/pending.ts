/** Conformance of a store: which jobs wait, in which queues, and which are at work. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Job, JobDefinition } from "../../core/job.ts";
import { placementKey, placementOf } from "../../core/placement.ts";
import type { PendingJob, PendingQuery, Store } from "../store.ts";
import { T0, newId, newJobOf, definitionOf, submit, applyOk, startJob, resultOf } from "./samples.ts";

export function pendingTests(store: () => Store): void {
  orderTests(store);
  exclusionTests(store);
  retryTests(store);
  activeTests(store);
  queueTests(store);
}

function orderTests(store: () => Store): void {
  test("pending jobs of a queue are listed by priority, then by how long they wait", async () => {
    const queue = newId();
    const old = await submit(store(), { queue }, { nowMs: T0 - 1_000 });
    const young = await submit(store(), { queue }, { nowMs: T0 - 500 });
    const urgent = await submit(store(), { queue, priority: 5 });
    const humble = await submit(store(), { queue, priority: -5 }, { nowMs: T0 - 2_000 });
    assert.deepEqual(await listIds(store(), [queue]), [urgent, old, young, humble]);
    assert.deepEqual(await listIds(store(), [queue], { perQueue: 2 }), [urgent, old]);
  });

  test("jobs that began to wait in one millisecond are listed by id", async () => {
    const queue = newId();
    const jobs = Array.from({ length: 20 }, () => newJobOf({ queue }));
    await store().insertJobs(jobs);
    assert.deepEqual(await listIds(store(), [queue]), jobs.map(({ id }) => id).toSorted());
  });

  test("each queue gives its first jobs, queues by name, however many wait in the others", async () => {
    const base = newId();
    const names = ["-a", "-B", "-ab", "", "-é"].map((end) => `${base}${end}`);
    for (const [index, queue] of names.entries()) {
      const jobs = Array.from({ length: 3 + index * 4 }, (_, age) =>
        newJobOf({ queue, priority: index }, { nowMs: T0 - 100 + age }),
      );
      await store().insertJobs(jobs);
    }
    const listed = (await list(store(), { perQueue: 4 })).filter(({ queue }) => queue.startsWith(base));
    assert.deepEqual(
      listed.map(({ queue, pendingSinceMs }) => [queue, pendingSinceMs - T0 + 100]),
      names
        .toSorted()
        .flatMap((queue) => (queue === names[0] ? [0, 1, 2] : [0, 1, 2, 3]).map((age) => [queue, age])),
    );
  });

  test("a pending job comes with all that decides where it may run", async () => {
    const plain: Partial<JobDefinition> = { queue: newId() };
    const demanding: Partial<JobDefinition> = {
      queue: newId(),
      priority: 5,
      selector: { os: "linux", arch: "arm64" },
      selectorExpressions: [{ key: "zone", operator: "not_in", values: ["a"] }],
      tolerations: [{ key: "", operator: "exists", value: "", effect: "NoSchedule" }],
      capabilities: ["pause"],
      preferences: [
        { weight: -1, workerLabels: [{ key: "ssd", operator: "exists", values: [] }], jobLabels: {} },
      ],
      concurrency: { key: `deploy ${newId()}`, limit: 3 },
      preemptible: true,
    };
    for (const changes of [plain, demanding]) {
      const definition = definitionOf(changes);
      const id = await submit(store(), changes);
      const expected: PendingJob = {
        id,
        queue: definition.queue,
        priority: definition.priority,
        pendingSinceMs: T0,
        placementKey: placementKey(definition),
        placement: placementOf(definition),
        concurrency: definition.concurrency,
      };
      const listed = await list(store());
      assert.deepEqual(
        listed.find((job) => job.id === id),
        expected,
      );
    }
  });
}

function exclusionTests(store: () => Store): void {
  test("placement keys, queues and concurrency keys can be left out, and others move up", async () => {
    const [first, second] = [newId(), newId()];
    const key = `deploy ${newId()}`;
    const gpu = { resources: { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 4 } };
    const held = await submit(store(), { queue: first, concurrency: { key, limit: 1 } }, { nowMs: T0 - 9 });
    const big = await submit(store(), { queue: first, ...gpu }, { nowMs: T0 - 8 });
    const other = await submit(store(), { queue: first, concurrency: { key: newId(), limit: 1 } });
    const elsewhere = await submit(store(), { queue: second }, { nowMs: T0 });
    const both = [first, second];
    const inBoth = async (query: Partial<PendingQuery>) => new Set(await listIds(store(), both, query));
    assert.deepEqual(await inBoth({}), new Set([held, big, other, elsewhere]));
    const withoutKeys = [placementKey(definitionOf(gpu))];
    assert.deepEqual(await inBoth({ withoutKeys }), new Set([held, other, elsewhere]));
    assert.deepEqual(await inBoth({ withoutQueues: [first, newId()] }), new Set([elsewhere]));
    const withoutConcurrencyKeys = [key, newId()];
    assert.deepEqual(await inBoth({ withoutConcurrencyKeys }), new Set([big, other, elsewhere]));
    const query = { withoutKeys, withoutConcurrencyKeys, withoutQueues: [second], perQueue: 1 };
    assert.deepEqual(await inBoth(query), new Set([other]));
    const withoutQueues = [...new Set((await list(store())).map(({ queue }) => queue))];
    assert.deepEqual(await list(store(), { withoutQueues }), []);
  });

  test("assigned and ended jobs are not pending", async () => {
    const queue = newId();
    const ids = [await submit(store(), { queue }), await submit(store(), { queue })];
    const waiting = await submit(store(), { queue });
    await startJob(store(), ids[0] as string);
    await applyOk(store(), ids[1] as string, { type: "cancel", reason: "" });
    assert.deepEqual(await listIds(store(), [queue]), [waiting]);
  });
}

function retryTests(store: () => Store): void {
  test("a job that waits for its retry is listed when its time has come, and that time is known", async () => {
    const queue = newId();
    const jobId = await submit(store(), { queue });
    const waiting = await loseAttempt(store(), jobId, T0 + 10);
    assert.deepEqual(await listIds(store(), [queue], { nowMs: waiting.notBeforeMs - 1 }), []);
    assert.deepEqual(await listIds(store(), [queue], { nowMs: waiting.notBeforeMs }), [jobId]);
    const next = await store().nextPendingAtMs(waiting.notBeforeMs - 1);
    assert.equal(next, waiting.notBeforeMs);
    assert.equal(await store().nextPendingAtMs(T0 + 10 ** 11), null);
  });

  test("one that waits for its retry leaves its place to the next", async () => {
    const queue = newId();
    const retried = await submit(store(), { queue, priority: 1 });
    const next = await submit(store(), { queue });
    const { notBeforeMs } = await loseAttempt(store(), retried, T0);
    assert.deepEqual(await listIds(store(), [queue], { nowMs: notBeforeMs - 1, perQueue: 1 }), [next]);
    assert.deepEqual(await listIds(store(), [queue], { nowMs: notBeforeMs, perQueue: 1 }), [retried]);
  });
}

function activeTests(store: () => Store): void {
  test("jobs at work are listed with queue, concurrency key and version, others are not", async () => {
    const [queue, key] = [newId(), newId()];
    const waiting = await submit(store(), { queue });
    const plain = await submit(store(), { queue });
    const limited = await submit(store(), { queue, concurrency: { key, limit: 2 } });
    const ending = await submit(store(), { queue });
    const own = async () => (await store().listActive()).filter((job) => job.queue === queue);
    assert.deepEqual(await own(), []);
    await applyOk(store(), plain, { type: "assign", attemptId: newId(), workerId: newId() });
    const attemptId = await startJob(store(), limited);
    await startJob(store(), ending);
    await applyOk(store(), ending, { type: "cancel", reason: "" });
    assert.deepEqual(
      new Map((await own()).map((job) => [job.jobId, job])),
      new Map([
        [plain, { jobId: plain, queue, concurrencyKey: null, version: 2 }],
        [limited, { jobId: limited, queue, concurrencyKey: key, version: 3 }],
        [ending, { jobId: ending, queue, concurrencyKey: null, version: 4 }],
      ]),
    );
    await applyOk(store(), limited, { type: "finish", attemptId, result: resultOf() });
    const left = (await own()).map(({ jobId }) => jobId);
    assert.deepEqual(new Set(left), new Set([plain, ending]));
    assert.ok(!left.includes(waiting));
  });
}

function queueTests(store: () => Store): void {
  test("queues in which jobs wait are listed by name with how many and since when", async () => {
    const base = newId();
    const [first, second, empty] = [`${base}-B`, `${base}-a`, `${base}-c`];
    await submit(store(), { queue: second }, { nowMs: T0 - 5 });
    await submit(store(), { queue: first, priority: 9 }, { nowMs: T0 - 1 });
    const retried = await submit(store(), { queue: first }, { nowMs: T0 - 3 });
    await startJob(store(), await submit(store(), { queue: empty }));
    const own = async () => (await store().listBacklogs()).filter(({ queue }) => queue.startsWith(base));
    const backlogOfSecond = { queue: second, pending: 1, oldestPendingSinceMs: T0 - 5 };
    assert.deepEqual(await own(), [
      { queue: first, pending: 2, oldestPendingSinceMs: T0 - 3 },
      backlogOfSecond,
    ]);
    const { pendingSinceMs } = await loseAttempt(store(), retried, T0 + 7);
    assert.equal(pendingSinceMs, T0 + 7);
    assert.deepEqual(await own(), [
      { queue: first, pending: 2, oldestPendingSinceMs: T0 - 1 },
      backlogOfSecond,
    ]);
  });

  test("ahead of a waiting job are those of its queue with a higher priority, and older ones of the same", async () => {
    const [queue, other] = [newId(), newId()];
    const jobs = [
      newJobOf({ queue, priority: 2 }),
      newJobOf({ queue, priority: 1 }, { nowMs: T0 - 1 }),
      newJobOf({ queue, priority: 1 }),
      newJobOf({ queue, priority: 1 }),
      newJobOf({ queue, priority: 0 }, { nowMs: T0 - 9 }),
      newJobOf({ queue: other, priority: 3 }, { nowMs: T0 - 9 }),
    ];
    await store().insertJobs(jobs);
    const inOrder = await listIds(store(), [queue]);
    assert.equal(inOrder.length, 5);
    for (const [index, jobId] of inOrder.entries()) {
      assert.equal(await store().countAhead((await store().getJob(jobId)) as Job), index);
    }
    const last = (await store().getJob(inOrder[4] as string)) as Job;
    await startJob(store(), inOrder[0] as string);
    assert.equal(await store().countAhead(last), 3);
    const started = (await store().getJob(inOrder[0] as string)) as Job;
    assert.equal(await store().countAhead(started), 0);
  });
}

async function loseAttempt(store: Store, jobId: string, nowMs: number): Promise<Job> {
  const attemptId = await startJob(store, jobId);
  return applyOk(store, jobId, { type: "lose", attemptId, cause: "worker_lost", message: "" }, nowMs);
}

function list(store: Store, query: Partial<PendingQuery> = {}): Promise<PendingJob[]> {
  const all = { nowMs: T0, perQueue: 10_000, withoutKeys: [], withoutQueues: [], withoutConcurrencyKeys: [] };
  return store.listPending({ ...all, ...query });
}

/** Of the jobs that may start, those in queues of one test: a store is shared by many. */
async function listIds(
  store: Store,
  queues: readonly string[],
  query: Partial<PendingQuery> = {},
): Promise<string[]> {
  const listed = await list(store, query);
  return listed.filter(({ queue }) => queues.includes(queue)).map(({ id }) => id);
}
