/** Conformance of a store: submitting jobs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { JOB_DEFAULTS } from "../../core/job.ts";
import { placementKey } from "../../core/placement.ts";
import type { NewJob, Store } from "../store.ts";
import { T0, newId, newJobOf, submit } from "./samples.ts";

const NOTHING_LEFT_OUT = { nowMs: T0, withoutKeys: [], withoutQueues: [], withoutConcurrencyKeys: [] };

export function submissionTests(store: () => Store): void {
  ownTests(store);
  mixedTests(store);
  repeatTests(store);
}

function ownTests(store: () => Store): void {
  test("a submitted job reads back as it was defined, pending, with version 1", async () => {
    const added = newJobOf({
      env: { A: "ä€😀" },
      selector: { os: "linux" },
      priority: -3,
      labels: { team: "x" },
      selectorExpressions: [{ key: "zone", operator: "in", values: ["a", "b"] }],
      tolerations: [{ key: "gpu", operator: "exists", value: "", effect: null }],
      capabilities: ["pause"],
      preferences: [{ weight: 10, workerLabels: [], jobLabels: { app: "db" } }],
      concurrency: { key: "deploy", limit: 2 },
      preemptible: true,
    });
    await store().insertJobs([added]);
    const job = await store().getJob(added.id);
    assert.deepEqual(job?.definition, added.definition);
    assert.equal(job?.state, "pending");
    assert.equal(job?.version, 1);
    assert.equal(job?.attemptId, null);
    assert.equal(job?.createdAtMs, T0);
    assert.equal(job?.deadlineAtMs, T0 + JOB_DEFAULTS.queueTimeoutMs);
    assert.equal(job?.placementKey, placementKey(added.definition));
    assert.deepEqual(job?.outputs, {});
  });

  test("a submission of many jobs answers in the order of the call", async () => {
    const added = Array.from({ length: 500 }, (_, index) => newJobOf({ name: `many-${index}` }));
    const inserted = await store().insertJobs(added);
    assert.deepEqual(
      inserted,
      added.map(({ id }) => ({ jobId: id, created: true })),
    );
    assert.equal((await store().getJob(added[321]?.id ?? ""))?.definition.name, "many-321");
  });

  test("an empty submission is answered with nothing", async () => {
    assert.deepEqual(await store().insertJobs([]), []);
  });
}

function mixedTests(store: () => Store): void {
  test("of the jobs of a submission each has what only it has", async () => {
    const queue = newId();
    const concurrency = { key: `deploy ${newId()}`, limit: 2 };
    const labels = { team: newId() };
    const added = [
      newJobOf({ queue, name: "plain before" }),
      newJobOf({ queue, name: "kept" }, { idempotencyKey: newId() }),
      newJobOf({ queue, name: "limited", concurrency, preemptible: true }),
      newJobOf({ queue, name: "labelled", labels }),
      newJobOf({ queue, name: "plain after", priority: -1 }),
    ];
    await store().insertJobs(added);
    const pending = (await store().listPending({ ...NOTHING_LEFT_OUT, perQueue: 100 })).filter(
      (job) => job.queue === queue,
    );
    const [before, kept, limited, labelled, after] = added.map(({ id }) => id);
    assert.deepEqual(
      new Map(pending.map((job) => [job.id, [job.concurrency, job.placement.preemptible]])),
      new Map([
        [before, [null, false]],
        [kept, [null, false]],
        [limited, [concurrency, true]],
        [labelled, [null, false]],
        [after, [null, false]],
      ]),
    );
    const found = await store().listJobs({ labels }, { limit: 10, cursor: null });
    assert.deepEqual(
      found.items.map(({ id }) => id),
      [labelled],
    );
    const again = { ...(added[1] as NewJob), id: newId() };
    assert.deepEqual(await store().insertJobs([again]), [{ jobId: kept, created: false }]);
    for (const { id, definition } of added) {
      assert.deepEqual((await store().getJob(id))?.definition, definition);
    }
  });
}

function repeatTests(store: () => Store): void {
  test("a known idempotency key gives the older job and creates none", async () => {
    const key = `key-${newId()}`;
    const first = await submit(store(), {}, { idempotencyKey: key });
    const again = newJobOf({}, { idempotencyKey: key });
    const other = newJobOf();
    assert.deepEqual(await store().insertJobs([other, again]), [
      { jobId: other.id, created: true },
      { jobId: first, created: false },
    ]);
    assert.equal(await store().getJob(again.id), null);
  });

  test("jobs are found by their idempotency keys, whatever is in these", async () => {
    const keys = [`key-${newId()}`, `odd \0 ${newId()} ${"x".repeat(5_000)}`];
    const ids: string[] = [];
    for (const idempotencyKey of keys) ids.push(await submit(store(), {}, { idempotencyKey }));
    const found = await store().findByIdempotencyKeys([...keys, `unknown-${newId()}`]);
    assert.deepEqual(found, new Map(keys.map((key, index) => [key, ids[index]])));
  });

  test("of two jobs with one idempotency key in a submission the first is created", async () => {
    const key = `key-${newId()}`;
    const [first, second] = [newJobOf({}, { idempotencyKey: key }), newJobOf({}, { idempotencyKey: key })];
    assert.deepEqual(await store().insertJobs([first, second]), [
      { jobId: first.id, created: true },
      { jobId: first.id, created: false },
    ]);
  });

  test("racing submissions with one idempotency key create one job", async () => {
    const key = `key-${newId()}`;
    const calls = Array.from({ length: 40 }, () =>
      store().insertJobs([newJobOf({}, { idempotencyKey: key })]),
    );
    const answers = (await Promise.all(calls)).flat();
    assert.equal(answers.filter(({ created }) => created).length, 1);
    assert.equal(new Set(answers.map(({ jobId }) => jobId)).size, 1);
  });

  test("a repeated submission of the same ids creates nothing twice", async () => {
    const added = newJobOf();
    await store().insertJobs([added]);
    assert.deepEqual(await store().insertJobs([added]), [{ jobId: added.id, created: false }]);
  });

  test("an id that is no UUID is refused, and the submissions beside it are stored", async () => {
    const good = newJobOf();
    const [bad, ok] = await Promise.allSettled([
      store().insertJobs([newJobOf({}, { id: "x" })]),
      store().insertJobs([good]),
    ]);
    assert.equal(bad.status, "rejected");
    assert.equal(ok.status, "fulfilled");
    assert.notEqual(await store().getJob(good.id), null);
  });
}
