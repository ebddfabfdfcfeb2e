import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { NOW_MS, finish, pendingJob, type Held } from "./job-change-fixtures.ts";
import { changeJob } from "./job-change.ts";
import type { JobInput } from "./job-input.ts";
import { CAUSES, FINAL_JOB_STATES, isFinal, type Job } from "./job.ts";

test("no sequence of inputs, however stale, late or repeated, breaks a rule of the contract", () => {
  fc.assert(
    fc.property(policy, fc.array(move, { maxLength: 60 }), (retry, moves) => {
      let held = pendingJob(retry);
      const ended = new Set<string>();
      let nowMs = NOW_MS;
      let nextAttempt = 1;
      for (const { advanceMs, make, age } of moves) {
        nowMs += advanceMs;
        const attemptId = `a-${Math.max(0, nextAttempt - age)}`;
        const input = make(attemptId, nowMs);
        if (input.type === "assign") input.attemptId = `a-${nextAttempt}`;
        const after = check(held, { input, nowMs, ended });
        if (after !== held && input.type === "assign") nextAttempt += 1;
        held = after;
      }
    }),
    { numRuns: 3_000 },
  );
});

/** Applies one input and holds what came out against every rule. Returns `held` itself if refused. */
function check(held: Held, step: { input: JobInput; nowMs: number; ended: Set<string> }): Held {
  const { input, nowMs, ended } = step;
  const before = structuredClone(held);
  const change = changeJob(held.job, input, { nowMs, jitter: 0.5, attempt: held.attempt });
  assert.deepEqual(held, before, "the arguments are not changed");
  if (!change.ok) {
    assert.equal(change.job, held.job);
    return held;
  }
  const { job, event } = change;
  checkFencing(before, { input, job, ended });
  checkShape(job);
  assert.equal(job.version, before.job.version + 1, "the version grows by one");
  assert.deepEqual([event.sequence, event.state, event.jobId], [job.version, job.state, job.id]);
  assert.equal(event.attemptId, job.attemptId);

  const attempt = change.attempt ?? held.attempt;
  if (attempt) assert.deepEqual([attempt.id, attempt.number], [job.attemptId, job.attemptCount]);
  if (attempt && isFinal(attempt.state)) ended.add(attempt.id);
  const isOver = job.state === "pending" || isFinal(job.state);
  assert.ok(isOver || attempt?.state === job.state, `attempt ${attempt?.state} of a job ${job.state}`);
  assert.ok(!isOver || attempt === null || isFinal(attempt.state), "no attempt outlives its job's end");
  return { job, attempt };
}

function checkFencing(before: Held, after: { input: JobInput; job: Job; ended: Set<string> }): void {
  const { input, job, ended } = after;
  if (isFinal(before.job.state)) assert.equal(input.type, "retry", "a final state is left by a retry only");
  if (input.type === "assign") {
    assert.equal(job.attemptCount, before.job.attemptCount + 1);
    assert.ok(before.attempt === null || isFinal(before.attempt.state), "one attempt at a time");
    return;
  }
  assert.equal(job.attemptCount, before.job.attemptCount);
  if (!("attemptId" in input)) return;
  assert.equal(input.attemptId, before.job.attemptId, "a stale attempt has no effect");
  assert.ok(!ended.has(input.attemptId), "an attempt that ended has no effect");
}

function checkShape(job: Job): void {
  const { retry } = job.definition;
  assert.ok(job.userRetries <= retry.maxRetries);
  assert.ok(job.infrastructureRetries <= retry.maxInfrastructureRetries);
  assert.equal(job.deadlineAtMs === null, isFinal(job.state), `deadline in ${job.state}`);
  assert.equal(job.finishedAtMs === null, !isFinal(job.state), `finished in ${job.state}`);
  assert.equal(
    job.cause !== null,
    isFinal(job.state) && job.state !== "succeeded",
    `cause ${job.cause} in ${job.state}`,
  );
  if (job.state === "pending") assert.ok(job.deadlineAtMs !== null && job.deadlineAtMs >= job.notBeforeMs);
}

const policy = fc.record({
  maxRetries: fc.nat(3),
  maxInfrastructureRetries: fc.nat(3),
  exitCodes: fc.constantFrom<number[]>([], [1]),
});

const move = fc.record({
  advanceMs: fc.constantFrom(0, 1, 1_000, 400_000),
  /** 1 is the newest attempt. */
  age: fc.constantFrom(1, 1, 1, 1, 2, 3),
  make: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.constant((attemptId: string): JobInput => ({
        type: "assign",
        attemptId,
        workerId: "w-1",
      })),
    },
    {
      weight: 3,
      arbitrary: fc.constant((attemptId: string, nowMs: number): JobInput => ({
        type: "start",
        attemptId,
        startedAtMs: nowMs,
      })),
    },
    fc.constantFrom("pause" as const, "resume" as const).map((type) => (attemptId: string): JobInput => ({
      type,
      attemptId,
    })),
    fc.constant((attemptId: string, nowMs: number): JobInput => ({
      type: "disconnect",
      attemptId,
      heardAtMs: nowMs - 30_000,
    })),
    fc.constant((attemptId: string): JobInput => ({
      type: "progress",
      attemptId,
      progress: { percent: 50, message: "" },
    })),
    fc
      .record({
        state: fc.constantFrom(...FINAL_JOB_STATES),
        cause: fc.constantFrom(null, ...CAUSES),
        exitCode: fc.constantFrom(null, 1, 2),
      })
      .map(
        (result) =>
          (attemptId: string): JobInput =>
            finish(attemptId, result),
      ),
    fc.constantFrom(...CAUSES).map((cause) => (attemptId: string): JobInput => ({
      type: "lose",
      attemptId,
      cause,
      message: "",
    })),
    fc
      .constantFrom("cancelled" as const, "timeout" as const, "preempted" as const)
      .map((cause) => (): JobInput => ({
        type: "cancel",
        reason: "",
        cause,
      })),
    fc.constantFrom("request_pause" as const, "request_resume" as const).map((type) => (): JobInput => ({
      type,
    })),
    fc.constant((attemptId: string): JobInput => ({ type: "refuse_pause", attemptId, message: "" })),
    fc.constantFrom(...CAUSES).map((cause) => (): JobInput => ({ type: "reject", cause, message: "" })),
    fc.boolean().map((force) => (): JobInput => ({ type: "retry", force })),
  ),
});
