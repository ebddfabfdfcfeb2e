import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, pendingJob, finish } from "../../core/job-change-fixtures.ts";
import type { Job } from "../../core/job.ts";
import type { ActiveJob } from "../../storage/store.ts";
import { ActiveJobs } from "./active-jobs.ts";

const KEY = "deploy";

function setup() {
  const stored: ActiveJob[] = [];
  const reading = { release: () => {}, isHeld: false };
  const active = new ActiveJobs({
    async listActive() {
      const read = [...stored];
      if (reading.isHeld) await new Promise<void>((resolve) => (reading.release = resolve));
      return read;
    },
  });
  const { job } = pendingJob({});
  const definition = { ...job.definition, concurrency: { key: KEY, limit: 1 } };
  const pending: Job = { ...job, definition };
  const assigned = apply(
    { job: pending, attempt: null },
    { type: "assign", attemptId: "a-1", workerId: "w-1" },
  );
  const ended = apply(assigned, finish("a-1", { state: "succeeded" }));
  const row: ActiveJob = { jobId: job.id, queue: "default", concurrencyKey: KEY, version: 2 };
  const counts = (): [number, number] => [active.running("default"), active.byConcurrencyKey.get(KEY) ?? 0];
  return { active, stored, reading, pending, assigned: assigned.job, ended: ended.job, row, counts };
}

test("a job counts from its assignment to its end, in its queue and under its key", () => {
  const { active, pending, assigned, ended, counts } = setup();
  active.noteJob(pending);
  assert.deepEqual(counts(), [0, 0]);
  active.noteJob(assigned);
  active.noteJob(assigned);
  assert.deepEqual(counts(), [1, 1]);
  active.noteJob(ended);
  assert.deepEqual(counts(), [0, 0]);
  assert.deepEqual([...active.byConcurrencyKey], []);
});

test("what comes late of a job that counts says nothing of it", () => {
  const { active, pending, assigned, counts } = setup();
  active.noteJob(assigned);
  active.noteJob(pending);
  assert.deepEqual(counts(), [1, 1]);
});

test("the database puts right what nobody told of", async () => {
  const { active, stored, row, counts } = setup();
  stored.push(row);
  await active.reload();
  assert.deepEqual(counts(), [1, 1]);
  stored.length = 0;
  await active.reload();
  assert.deepEqual(counts(), [0, 0]);
});

test("a change while the database is being read counts, not what was read before it", async () => {
  const { active, stored, reading, row, assigned, ended, counts } = setup();
  reading.isHeld = true;
  const empty = active.reload();
  active.noteJob(assigned);
  reading.release();
  await empty;
  assert.deepEqual(counts(), [1, 1]);
  stored.push(row);
  const old = active.reload();
  active.noteJob(ended);
  reading.release();
  await old;
  assert.deepEqual(counts(), [0, 0]);
});

test("what comes late of a job that has ended does not make it count again", () => {
  const { active, assigned, ended, counts } = setup();
  active.noteJob(assigned);
  active.noteJob(ended);
  active.noteJob(assigned);
  assert.deepEqual(counts(), [0, 0]);
});
