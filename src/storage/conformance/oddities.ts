/** Conformance of a store: what no reasonable user submits. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { JobInput } from "../../core/job-input.ts";
import { placementKey } from "../../core/placement.ts";
import { waitKey } from "../../core/plan.ts";
import type { PendingQuery, Store } from "../store.ts";
import { T0, newId, newJobOf, submit, apply, startJob, resultOf } from "./samples.ts";

export function oddityTests(store: () => Store): void {
  const odd = "nul:\0 half pair:\ud800 quotes:'\"\\ braces:{,} NULL";

  test("odd strings in a job survive, and do not harm the jobs beside it", async () => {
    const strange = newJobOf(
      { env: { [odd]: odd }, name: odd, queue: odd, labels: { [odd]: odd }, selector: { [odd]: odd } },
      { idempotencyKey: odd + newId() },
    );
    const plain = newJobOf();
    const [first] = await Promise.all([store().insertJobs([strange]), store().insertJobs([plain])]);
    assert.deepEqual(first, [{ jobId: strange.id, created: true }]);
    assert.deepEqual((await store().getJob(strange.id))?.definition, strange.definition);
    for (const filter of [{ name: odd }, { queue: odd }, { labels: { [odd]: odd } }]) {
      const { items } = await store().listJobs(filter, { limit: 10, cursor: null });
      assert.ok(items.some(({ id }) => id === strange.id));
    }
    await store().setWaitReasons(new Map([[placementKey(strange.definition), odd]]));
    assert.match((await store().getJob(strange.id))?.message ?? "", /^nul:/);
    const attemptId = await startJob(store(), strange.id);
    const finish: JobInput = {
      type: "finish",
      attemptId,
      result: resultOf({ message: odd, outputs: { [odd]: odd } }),
    };
    const [done] = await Promise.all([apply(store(), strange.id, finish), startJob(store(), plain.id)]);
    assert.ok(done.ok);
    assert.deepEqual((await store().getJob(strange.id))?.outputs, { [odd]: odd });
    assert.equal((await store().getAttempt(attemptId))?.message, odd);
  });

  test("odd queues and concurrency keys of listed jobs can be left out, and have reasons to wait", async () => {
    for (const text of [odd, "x".repeat(100_000)]) {
      const id = await submit(store(), { queue: text, concurrency: { key: text, limit: 1 } });
      const all = {
        nowMs: T0,
        perQueue: 10_000,
        withoutKeys: [],
        withoutQueues: [],
        withoutConcurrencyKeys: [],
      };
      const listed = async (query: Partial<PendingQuery>) =>
        (await store().listPending({ ...all, ...query })).find((job) => job.id === id);
      const job = await listed({});
      assert.ok(job?.concurrency);
      assert.equal(await listed({ withoutQueues: [job.queue] }), undefined);
      assert.equal(await listed({ withoutConcurrencyKeys: [job.concurrency.key] }), undefined);
      for (const key of [waitKey.concurrency(job.concurrency.key), waitKey.queue(job.queue)]) {
        await store().setWaitReasons(new Map([[key, key.slice(0, 8)]]));
        assert.equal((await store().getJob(id))?.message, key.slice(0, 8));
        await store().setWaitReasons(new Map([[key, ""]]));
        assert.equal((await store().getJob(id))?.message, "");
      }
    }
  });

  test("very long names, keys and selectors are stored", async () => {
    const long = "x".repeat(100_000);
    const added = newJobOf(
      { name: long, queue: long, selector: { a: long }, labels: { l: long } },
      { idempotencyKey: long + newId() },
    );
    assert.deepEqual(await store().insertJobs([added]), [{ jobId: added.id, created: true }]);
    await store().setWaitReasons(new Map([[placementKey(added.definition), long]]));
    assert.equal((await store().getJob(added.id))?.definition.name, long);
  });

  test("a version and a ping answer", async () => {
    assert.match(await store().version(), /^(memory|PostgreSQL \d+\.\d+)$/);
    await store().ping();
  });
}
