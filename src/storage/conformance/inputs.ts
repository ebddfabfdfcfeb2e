/** Conformance of a store: changing jobs, from one server and from two. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { JobInput } from "../../core/job-input.ts";
import { START_CONFIRM_MS } from "../../core/lease.ts";
import type { Store } from "../store.ts";
import { T0, newId, newJobOf, submit, apply, applyOk, startJob, resultOf } from "./samples.ts";

export function inputTests(store: () => Store, second: () => Store): void {
  lifeTests(store);
  orderTests(store);
  raceTests(store, second);
  attemptTests(store);
}

function lifeTests(store: () => Store): void {
  test("a job goes from assigned to succeeded, with its attempt and its events", async () => {
    const jobId = await submit(store());
    const workerId = newId();
    const attemptId = newId();
    const assigned = await applyOk(store(), jobId, { type: "assign", attemptId, workerId });
    assert.equal(assigned.state, "scheduled");
    assert.equal(assigned.deadlineAtMs, T0 + START_CONFIRM_MS);
    await applyOk(store(), jobId, { type: "start", attemptId, startedAtMs: T0 + 5 });
    await applyOk(store(), jobId, {
      type: "progress",
      attemptId,
      progress: { percent: 40, message: "half" },
    });
    const done = await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() }, T0 + 60);
    assert.equal(done.state, "succeeded");

    const job = await store().getJob(jobId);
    assert.deepEqual(job, done);
    assert.deepEqual(job?.outputs, { version: "1.2" });
    assert.equal(job?.deadlineAtMs, null);
    const [attempt, ...others] = await store().listAttempts(jobId);
    assert.deepEqual(others, []);
    assert.equal(attempt?.state, "succeeded");
    assert.equal(attempt?.logBytes, 42);
    assert.deepEqual(attempt, await store().getAttempt(attemptId));
    const events = await store().listEvents(jobId, 0);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["queued", "assigned", "started", "progress", "succeeded"],
    );
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      [1, 2, 3, 4, 5],
    );
    assert.equal(events[0]?.atMs, T0);
    assert.deepEqual(await store().listEvents(jobId, 3), events.slice(3));
  });

  test("inputs of unknown jobs are refused as not found", async () => {
    for (const jobId of [newId(), "no-uuid"]) {
      assert.deepEqual(await apply(store(), jobId, { type: "cancel", reason: "" }), {
        ok: false,
        refusal: "not_found",
        job: null,
      });
    }
  });

  test("an input of a stale attempt is refused and changes nothing", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const refused = await apply(store(), jobId, { type: "finish", attemptId: newId(), result: resultOf() });
    assert.equal(refused.ok, false);
    assert.equal(!refused.ok && refused.refusal, "stale_attempt");
    const job = await store().getJob(jobId);
    assert.equal(job?.state, "running");
    assert.equal(job?.attemptId, attemptId);
    assert.equal((await store().listEvents(jobId, 0)).length, 3);
  });

  test("a second finish is refused as already final", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() });
    const again = await apply(store(), jobId, {
      type: "finish",
      attemptId,
      result: resultOf({ exitCode: 1 }),
    });
    assert.equal(!again.ok && again.refusal, "already_final");
    assert.equal((await store().getJob(jobId))?.exitCode, 0);
  });
}

function orderTests(store: () => Store): void {
  test("inputs of one job that arrive together keep their order", async () => {
    const jobId = await submit(store());
    const attemptId = newId();
    const inputs: JobInput[] = [
      { type: "assign", attemptId, workerId: newId() },
      { type: "start", attemptId, startedAtMs: T0 },
      ...Array.from({ length: 100 }, (_, index) => ({
        type: "progress" as const,
        attemptId,
        progress: { percent: index, message: `step ${index}` },
      })),
      { type: "finish", attemptId, result: resultOf() },
    ];
    const applied = await Promise.all(inputs.map((input) => apply(store(), jobId, input)));
    assert.ok(applied.every(({ ok }) => ok));
    assert.deepEqual(
      applied.map((one) => one.job?.version),
      inputs.map((_, index) => index + 2),
    );
    const events = await store().listEvents(jobId, 0);
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      Array.from({ length: 104 }, (_, index) => index + 1),
    );
    assert.equal(events.at(-1)?.type, "succeeded");
    assert.equal((await store().getJob(jobId))?.progress?.percent, 99);
  });

  test("a hundred jobs take their inputs at the same time", async () => {
    const jobs = Array.from({ length: 100 }, () => newJobOf());
    await store().insertJobs(jobs);
    const workerId = newId();
    const lives = jobs.map(async ({ id }) => {
      const attemptId = await startJob(store(), id, workerId);
      return applyOk(store(), id, { type: "finish", attemptId, result: resultOf() });
    });
    const done = await Promise.all(lives);
    assert.ok(done.every(({ state, version }) => state === "succeeded" && version === 4));
  });
}

function raceTests(store: () => Store, second: () => Store): void {
  test("of two servers that assign one job at the same time exactly one wins", async () => {
    const jobs = Array.from({ length: 30 }, () => newJobOf());
    await store().insertJobs(jobs);
    const races = jobs.map(({ id }) => {
      const assign = (by: Store) => apply(by, id, { type: "assign", attemptId: newId(), workerId: newId() });
      return Promise.all([assign(store()), assign(second())]);
    });
    for (const [index, answers] of (await Promise.all(races)).entries()) {
      assert.equal(answers.filter(({ ok }) => ok).length, 1);
      const winner = answers.find(({ ok }) => ok);
      const jobId = jobs[index]?.id ?? "";
      assert.equal((await store().getJob(jobId))?.attemptId, winner?.job?.attemptId);
      assert.equal((await store().listAttempts(jobId)).length, 1);
    }
  });

  test("changes of one job by two servers at once all take effect, each with a version of its own", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const calls = Array.from({ length: 100 }, (_, index) =>
      apply(index % 2 === 0 ? store() : second(), jobId, {
        type: "progress",
        attemptId,
        progress: { percent: index, message: "" },
      }),
    );
    const versions = (await Promise.all(calls)).map((applied) => (applied.ok ? applied.job.version : -1));
    assert.deepEqual(
      versions.toSorted((a, b) => a - b),
      Array.from({ length: 100 }, (_, index) => index + 4),
    );
    assert.equal((await store().listEvents(jobId, 3)).length, 100);
  });
}

function attemptTests(store: () => Store): void {
  test("a lost attempt is followed by another one, and both are kept", async () => {
    const jobId = await submit(store());
    const first = await startJob(store(), jobId);
    const waiting = await applyOk(
      store(),
      jobId,
      { type: "lose", attemptId: first, cause: "worker_lost", message: "gone" },
      T0 + 10,
    );
    assert.equal(waiting.state, "pending");
    assert.ok(waiting.notBeforeMs > T0 + 10);
    const attemptId = newId();
    const early = await apply(store(), jobId, { type: "assign", attemptId, workerId: newId() }, T0 + 11);
    assert.equal(early.ok, false);
    await applyOk(store(), jobId, { type: "assign", attemptId, workerId: newId() }, waiting.notBeforeMs);
    const attempts = await store().listAttempts(jobId);
    assert.deepEqual(
      attempts.map(({ id, number, state, queuedAtMs }) => [id, number, state, queuedAtMs]),
      [
        [first, 1, "failed", T0],
        [attemptId, 2, "scheduled", T0 + 10],
      ],
    );
    const latest = await store().latestAttempts([jobId, newId()]);
    assert.deepEqual(
      [...latest.entries()].map(([id, attempt]) => [id, attempt.id]),
      [[jobId, attemptId]],
    );
  });
}
