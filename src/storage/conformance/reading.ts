/** Conformance of a store: finding jobs: ids, pages, filters, prefixes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Job } from "../../core/job.ts";
import type { Store } from "../store.ts";
import { T0, newId, newJobOf, submit, applyOk } from "./samples.ts";

export function readingTests(store: () => Store): void {
  idTests(store);
  pageTests(store);
  filterTests(store);
  prefixTests(store);
}

function idTests(store: () => Store): void {
  test("unknown and malformed ids are not found", async () => {
    for (const id of [newId(), "", "zz", "' OR 1=1"]) {
      assert.equal(await store().getJob(id), null);
      assert.equal(await store().getAttempt(id), null);
      assert.equal(await store().getWorker(id), null);
      assert.equal(await store().getSealedLog(id), null);
      assert.deepEqual(await store().listAttempts(id), []);
      assert.deepEqual(await store().listEvents(id, 0), []);
      assert.deepEqual(await store().listLiveAttempts(id), []);
      assert.deepEqual([...(await store().latestAttempts([id]))], []);
    }
  });

  test("what is returned is a copy", async () => {
    const jobId = await submit(store(), { env: { A: "1" } });
    const job = (await store().getJob(jobId)) as Job;
    job.definition.env["A"] = "changed";
    assert.equal((await store().getJob(jobId))?.definition.env["A"], "1");
  });
}

function pageTests(store: () => Store): void {
  test("pages hold every job once, newest first", async () => {
    const queue = `paged-${newId()}`;
    const jobs = Array.from({ length: 25 }, () => newJobOf({ queue }));
    await store().insertJobs(jobs);
    const seen: string[] = [];
    const sizes: number[] = [];
    let cursor: string | null = null;
    do {
      const page = await store().listJobs({ queue }, { limit: 10, cursor });
      seen.push(...page.items.map(({ id }) => id));
      sizes.push(page.items.length);
      cursor = page.nextCursor;
    } while (cursor !== null);
    assert.deepEqual(
      seen,
      jobs
        .map(({ id }) => id)
        .toSorted()
        .toReversed(),
    );
    assert.deepEqual(sizes, [10, 10, 5]);
    const exact = await store().listJobs({ queue }, { limit: 25, cursor: null });
    assert.equal(exact.nextCursor, null);
  });

  test("a malformed cursor is refused as an invalid argument", async () => {
    await assert.rejects(store().listJobs({}, { limit: 1, cursor: "x" }), { code: "invalid_argument" });
    await assert.rejects(store().listWorkers({ includeTerminated: true }, { limit: 1, cursor: "x" }), {
      code: "invalid_argument",
    });
  });
}

function filterTests(store: () => Store): void {
  test("each filter selects, and filters are joined by and", async () => {
    const queue = `filtered-${newId()}`;
    const plain = await submit(store(), { queue, name: "plain" });
    const labelled = await submit(
      store(),
      { queue, name: "labelled", labels: { a: "1", b: "2" } },
      { nowMs: T0 + 100 },
    );
    const failed = await submit(store(), { queue, name: "failing", labels: { a: "1" } });
    await applyOk(store(), failed, { type: "reject", cause: "invalid", message: "no" });
    const list = async (filter: Parameters<Store["listJobs"]>[0]) =>
      (await store().listJobs({ queue, ...filter }, { limit: 10, cursor: null })).items
        .map(({ id }) => id)
        .toSorted();
    const sorted = (...ids: string[]) => ids.toSorted();
    assert.deepEqual(await list({}), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ states: ["pending"] }), sorted(plain, labelled));
    assert.deepEqual(await list({ states: ["failed", "timed_out"] }), [failed]);
    assert.deepEqual(await list({ states: ["failed", "pending"] }), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ states: [] }), []);
    assert.deepEqual(await list({ causes: ["invalid", "timeout"] }), [failed]);
    assert.deepEqual(await list({ causes: ["timeout"] }), []);
    assert.deepEqual(await list({ name: "plain" }), [plain]);
    assert.deepEqual(await list({ labels: { a: "1" } }), sorted(labelled, failed));
    assert.deepEqual(await list({ labels: { a: "1", b: "2" } }), [labelled]);
    assert.deepEqual(await list({ labels: { a: "2" } }), []);
    assert.deepEqual(await list({ labels: {} }), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ labels: { a: "1" }, states: ["pending"] }), [labelled]);
    assert.deepEqual(await list({ createdAfterMs: T0 }), [labelled]);
    assert.deepEqual(await list({ createdBeforeMs: T0 + 100 }), sorted(plain, failed));
  });
}

function prefixTests(store: () => Store): void {
  test("a prefix resolves to one id, to none, or to at most five examples", async () => {
    // A time far from now, which the ids of other tests do not share.
    const start = `0${newId().slice(-7)}`;
    const ids = Array.from({ length: 7 }, (_, index) => `${start}-aaaa-7aaa-8aaa-aaaaaaaaaa0${index}`);
    const alone = `${start}-bbbb-7bbb-8bbb-bbbbbbbbbbbb`;
    await store().insertJobs([...ids, alone].map((id) => newJobOf({}, { id })));
    assert.deepEqual(await store().resolveJobId(`${start}-b`), { found: "one", id: alone });
    assert.deepEqual(await store().resolveJobId(alone), { found: "one", id: alone });
    assert.deepEqual(await store().resolveJobId(`${start}-aaaa-7aaa-8aaa-aaaaaaaaaa03`), {
      found: "one",
      id: ids[3],
    });
    const many = await store().resolveJobId(`${start}-aaaa`);
    assert.equal(many.found, "many");
    assert.deepEqual(many.found === "many" && many.examples, ids.slice(0, 5));
    for (const prefix of [`${start}-c`, `${start}b`, "----", "0-0-0-0", `${alone}0`]) {
      assert.deepEqual(await store().resolveJobId(prefix), { found: "none" });
    }
  });
}
