import assert from "node:assert/strict";
import { test } from "node:test";
import {
  LEASE_MS,
  NOW_MS,
  apply,
  finish,
  inputsOfEveryType,
  setup,
  withPolicy,
} from "./job-change-fixtures.ts";
import type { ChangeRefusal } from "./job-change-step.ts";
import { changeJob } from "./job-change.ts";
import type { JobInput } from "./job-input.ts";
import { FINAL_JOB_STATES, JOB_DEFAULTS, JOB_STATES, isFinal, type JobState } from "./job.ts";
import {
  CANCEL_VERIFY_MS,
  PAUSE_MAX_MS,
  START_CONFIRM_MS,
  TIMEOUT_SLACK_MS,
  WAITING_LEASE_MS,
} from "./lease.ts";

test("every input in every state is accepted or refused as the design says", () => {
  for (const state of JOB_STATES) {
    for (const [type, input] of inputsOfEveryType("a-1")) {
      const held = setup(state);
      const change = changeJob(held.job, input, { nowMs: NOW_MS, jitter: 0, attempt: held.attempt });
      assert.equal(
        change.ok ? change.job.state : change.refusal,
        expectedOutcome(state, type),
        `${type} in ${state}`,
      );
      if (!change.ok) assert.equal(change.job, held.job, "a refusal changes nothing");
    }
  }
});

test("whatever carries another attempt's id is refused as stale in every state", () => {
  for (const state of JOB_STATES) {
    for (const [type, input] of inputsOfEveryType("a-0")) {
      if (!("attemptId" in input) || type === "assign") continue;
      const held = setup(state);
      const change = changeJob(held.job, input, { nowMs: NOW_MS, jitter: 0, attempt: held.attempt });
      assert.equal(change.ok ? "accepted" : change.refusal, "stale_attempt", `${type} in ${state}`);
    }
  }
});

test("the attempt before is stale while the job waits for its next one", () => {
  const held = setup("running", { maxInfrastructureRetries: 5 });
  const waiting = apply(held, { type: "lose", attemptId: "a-1", cause: "worker_lost", message: "gone" });
  assert.equal(waiting.job.state, "pending");
  for (const [type, input] of inputsOfEveryType("a-1")) {
    if (!("attemptId" in input) || type === "assign") continue;
    const change = changeJob(waiting.job, input, { nowMs: NOW_MS, jitter: 0, attempt: waiting.attempt });
    assert.equal(change.ok ? "accepted" : change.refusal, "stale_attempt", type);
  }
});

test("the same result twice counts once", () => {
  const held = setup("running", { maxRetries: 1 });
  const failed = finish("a-1", { state: "failed", cause: "exit_code", exitCode: 1 });
  const waiting = apply(held, failed);
  assert.equal(waiting.job.userRetries, 1);
  const again = changeJob(waiting.job, failed, { nowMs: NOW_MS, jitter: 0, attempt: waiting.attempt });
  assert.equal(again.ok, false);
});

test("deadlines are those of the design", () => {
  const { timeoutMs, graceMs } = JOB_DEFAULTS;
  const expected: Partial<Record<JobState, number>> = {
    pending: NOW_MS + JOB_DEFAULTS.queueTimeoutMs,
    scheduled: NOW_MS + START_CONFIRM_MS,
    running: NOW_MS + timeoutMs + graceMs + TIMEOUT_SLACK_MS,
    paused: NOW_MS + PAUSE_MAX_MS,
    unreachable: NOW_MS + LEASE_MS,
    cancelling: NOW_MS + graceMs + CANCEL_VERIFY_MS,
  };
  for (const state of JOB_STATES) assert.equal(setup(state).job.deadlineAtMs, expected[state] ?? null, state);
});

test("a cancel of a job whose worker is silent waits for the end of the lease", () => {
  const unreachable = setup("unreachable");
  const cancelling = apply(unreachable, { type: "cancel", reason: "enough" });
  assert.equal(cancelling.job.deadlineAtMs, unreachable.job.deadlineAtMs);
});

test("silence that lasts moves the deadline of an unreachable or cancelled job, never back", () => {
  for (const state of ["unreachable", "cancelling"] as const) {
    const before = setup(state);
    const later = { type: "disconnect", attemptId: "a-1", heardAtMs: NOW_MS + 60_000 } as const;
    const moved = apply(before, later);
    assert.equal(moved.job.state, state);
    assert.equal(moved.job.deadlineAtMs, NOW_MS + 60_000 + LEASE_MS);
    const context = { nowMs: NOW_MS, jitter: 0, attempt: moved.attempt };
    const earlier = changeJob(moved.job, { ...later, heardAtMs: NOW_MS }, context);
    assert.equal(earlier.ok, false);
  }
});

test("a job that shall wait for its worker has no lease worth the name, and one that shall fail is not retried", () => {
  const lost: JobInput = { type: "lose", attemptId: "a-1", cause: "worker_lost", message: "" };
  const waiting = apply(withPolicy(setup("running"), "wait"), {
    type: "disconnect",
    attemptId: "a-1",
    heardAtMs: NOW_MS,
  });
  assert.equal(waiting.job.deadlineAtMs, NOW_MS + WAITING_LEASE_MS);
  assert.equal(apply(withPolicy(setup("unreachable"), "fail"), lost).job.state, "failed");
  assert.equal(apply(withPolicy(setup("unreachable"), "retry"), lost).job.state, "pending");
  assert.equal(apply(setup("unreachable"), { ...lost, isFinal: true }).job.state, "failed");
});

test("a pause is wanted until the worker has done or refused it, and no longer than the attempt", () => {
  const wanted = apply(setup("running"), { type: "request_pause" });
  assert.deepEqual([wanted.job.state, wanted.job.pauseWanted], ["running", true]);
  const refused = apply(wanted, { type: "refuse_pause", attemptId: "a-1", message: "no freezer" });
  assert.deepEqual([refused.job.state, refused.job.pauseWanted], ["running", false]);
  assert.match(refused.job.message, /could not be paused: no freezer/);
  const paused = apply(wanted, { type: "pause", attemptId: "a-1" });
  assert.deepEqual([paused.job.state, paused.job.pauseWanted], ["paused", true]);
  const resuming = apply(paused, { type: "request_resume" });
  assert.deepEqual([resuming.job.state, resuming.job.pauseWanted], ["paused", false]);
  assert.equal(apply(resuming, { type: "resume", attemptId: "a-1" }).job.state, "running");
  const lost = apply(wanted, { type: "lose", attemptId: "a-1", cause: "worker_lost", message: "" });
  assert.deepEqual([lost.job.state, lost.job.pauseWanted], ["pending", false]);
});

test("a job that its worker ran for too long ends as timed out", () => {
  const late = apply(setup("running"), { type: "cancel", cause: "timeout", reason: "too long" });
  const ended = apply(late, finish("a-1", { state: "cancelled", cause: "cancelled" }));
  assert.deepEqual(
    [ended.job.state, ended.job.cause, ended.job.message],
    ["timed_out", "timeout", "too long"],
  );
});

test("a start that crosses a cancel keeps the deadline of the cancel", () => {
  const cancelling = setup("cancelling");
  const started = apply(
    cancelling,
    { type: "start", attemptId: "a-1", startedAtMs: NOW_MS + 5 },
    NOW_MS + 10,
  );
  assert.equal(started.job.state, "cancelling");
  assert.equal(started.job.deadlineAtMs, cancelling.job.deadlineAtMs);
});

test("a job is not assigned before its backoff is over", () => {
  const waiting = apply(setup("running"), {
    type: "lose",
    attemptId: "a-1",
    cause: "worker_lost",
    message: "",
  });
  const { notBeforeMs } = waiting.job;
  assert.ok(notBeforeMs > NOW_MS);
  const assign: JobInput = { type: "assign", attemptId: "a-2", workerId: "w-2" };
  const early = changeJob(waiting.job, assign, {
    nowMs: notBeforeMs - 1,
    jitter: 0,
    attempt: waiting.attempt,
  });
  assert.equal(early.ok, false);
  assert.equal(apply(waiting, assign, notBeforeMs).job.attemptCount, 2);
});

test("a job that was cancelled while its worker was lost ends as cancelled, with the worker as cause", () => {
  const lost = apply(setup("cancelling"), {
    type: "lose",
    attemptId: "a-1",
    cause: "worker_lost",
    message: "",
  });
  assert.deepEqual([lost.job.state, lost.job.cause], ["cancelled", "worker_lost"]);
});

test("an attempt that is given up for its time-out ends the job as timed out", () => {
  const lost = apply(setup("running"), { type: "lose", attemptId: "a-1", cause: "timeout", message: "" });
  assert.deepEqual(
    [lost.job.state, lost.job.cause, lost.attempt?.state],
    ["timed_out", "timeout", "timed_out"],
  );
});

test("a result without a cause gets one, and a success with a cause loses it", () => {
  const ends = FINAL_JOB_STATES.map((state) => {
    const held = setup(state === "cancelled" ? "cancelling" : "running", { maxInfrastructureRetries: 0 });
    return apply(held, finish("a-1", { state, cause: state === "succeeded" ? "signal" : null })).job.cause;
  });
  assert.deepEqual(ends, [null, "server_error", "cancelled", "timeout"]);
});

test("a worker that was stopped is lost, and does not pass for a cancel that nobody asked for", () => {
  const stopped = apply(setup("running"), finish("a-1", { state: "cancelled", cause: "cancelled" }));
  assert.deepEqual([stopped.job.state, stopped.job.infrastructureRetries], ["pending", 1]);
  assert.equal(stopped.attempt?.cause, "worker_lost");
  const asked = apply(setup("cancelling"), finish("a-1", { state: "cancelled", cause: "cancelled" }));
  assert.equal(asked.job.state, "cancelled");
});

test("a job that makes room waits again at once, and that costs none of its retries", () => {
  const making = apply(setup("running"), {
    type: "cancel",
    cause: "preempted",
    reason: "job j-9 goes first",
  });
  assert.equal(making.job.state, "cancelling");
  const { job, attempt } = apply(making, finish("a-1", { state: "cancelled", cause: "cancelled" }));
  assert.deepEqual(
    [job.state, job.cause, job.notBeforeMs, job.infrastructureRetries, job.cancelCause],
    ["pending", null, NOW_MS, 0, null],
  );
  assert.equal(job.message, "attempt 1 was ended: job j-9 goes first");
  assert.deepEqual([attempt?.state, attempt?.cause], ["failed", "preempted"]);
});

test("a job that makes room keeps an end that it came to by itself, and one that somebody asked for", () => {
  const making = apply(setup("running"), { type: "cancel", cause: "preempted", reason: "" });
  assert.equal(apply(making, finish("a-1", { state: "succeeded" })).job.state, "succeeded");
  const failed = finish("a-1", { state: "failed", cause: "exit_code", exitCode: 3 });
  assert.deepEqual(apply(making, failed).job.exitCode, 3);
  const unwanted = apply(making, { type: "cancel", reason: "enough" });
  const ended = apply(unwanted, finish("a-1", { state: "cancelled", cause: "cancelled" }));
  assert.deepEqual([ended.job.state, ended.job.cause], ["cancelled", "cancelled"]);
});

test("a job that does not run cannot make room", () => {
  for (const state of ["pending", "cancelling", "succeeded"] as const) {
    const { job, attempt } = setup(state);
    const input = { type: "cancel", cause: "preempted", reason: "" } as const;
    assert.equal(changeJob(job, input, { nowMs: NOW_MS, jitter: 0, attempt }).ok, false, state);
  }
});

test("a retry by hand begins anew, and of a success only by force", () => {
  const failed = setup("failed");
  const retried = apply(failed, { type: "retry", force: false });
  const { state, cause, exitCode, userRetries, infrastructureRetries, finishedAtMs, notBeforeMs } =
    retried.job;
  assert.deepEqual(
    [state, cause, exitCode, userRetries, infrastructureRetries, finishedAtMs],
    ["pending", null, null, 0, 0, null],
  );
  assert.equal(notBeforeMs, NOW_MS);
  assert.equal(apply(setup("succeeded"), { type: "retry", force: true }).job.state, "pending");
});

/** The state after each input, or how it is refused; for a job with infrastructure retries left. */
const OUTCOMES: { readonly [S in JobState]?: { readonly [T in JobInput["type"]]?: JobState } } = {
  pending: { assign: "scheduled", cancel: "cancelled", reject: "failed" },
  scheduled: {
    start: "running",
    disconnect: "unreachable",
    progress: "scheduled",
    finish: "succeeded",
    lose: "pending",
    cancel: "cancelling",
  },
  running: {
    request_pause: "running",
    pause: "paused",
    disconnect: "unreachable",
    progress: "running",
    finish: "succeeded",
    lose: "pending",
    cancel: "cancelling",
  },
  paused: {
    request_pause: "paused",
    request_resume: "paused",
    resume: "running",
    disconnect: "unreachable",
    progress: "paused",
    finish: "succeeded",
    lose: "pending",
    cancel: "cancelling",
  },
  unreachable: {
    start: "running",
    pause: "paused",
    progress: "unreachable",
    finish: "succeeded",
    lose: "pending",
    cancel: "cancelling",
  },
  cancelling: {
    start: "cancelling",
    disconnect: "cancelling",
    progress: "cancelling",
    finish: "succeeded",
    lose: "cancelled",
  },
  failed: { retry: "pending" },
  cancelled: { retry: "pending" },
  timed_out: { retry: "pending" },
};

function expectedOutcome(state: JobState, type: JobInput["type"]): JobState | ChangeRefusal {
  const next = OUTCOMES[state]?.[type];
  if (next) return next;
  if (state === "succeeded" && type === "retry") return "succeeded";
  const namesAttempt = !["assign", "cancel", "reject", "retry", "request_pause", "request_resume"].includes(
    type,
  );
  if (state === "pending" && namesAttempt) return "stale_attempt";
  return isFinal(state) ? "already_final" : "not_possible";
}
