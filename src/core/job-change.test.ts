import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { changeJob, type ChangeRefusal, type JobInput } from "./job-change.ts";
import {
  CAUSES,
  FINAL_JOB_STATES,
  isFinal,
  JOB_DEFAULTS,
  JOB_STATES,
  type Attempt,
  type AttemptResult,
  type Job,
  type JobState,
  type RetryPolicy,
} from "./job.ts";
import { CANCEL_VERIFY_MS, PAUSE_MAX_MS, START_CONFIRM_MS, TIMEOUT_SLACK_MS } from "./lease.ts";

const NOW_MS = 1_700_000_000_000;
const LEASE_MS = JOB_DEFAULTS.leaseMs;

/** A job with its newest attempt, as the storage holds them. */
interface Held {
  job: Job;
  attempt: Attempt | null;
}

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
  const { timeoutMs, graceMs, queueTimeoutMs } = JOB_DEFAULTS;
  const expected: Partial<Record<JobState, number>> = {
    pending: NOW_MS + queueTimeoutMs,
    scheduled: NOW_MS + START_CONFIRM_MS,
    running: NOW_MS + timeoutMs + graceMs + TIMEOUT_SLACK_MS,
    paused: NOW_MS + PAUSE_MAX_MS,
    unreachable: NOW_MS - 30_000 + LEASE_MS,
    cancelling: NOW_MS + graceMs + CANCEL_VERIFY_MS,
  };
  for (const state of JOB_STATES) assert.equal(setup(state).job.deadlineAtMs, expected[state] ?? null, state);
});

test("a cancel of a job whose worker is silent waits for the end of the lease", () => {
  const unreachable = setup("unreachable");
  const cancelling = apply(unreachable, { type: "cancel", reason: "enough" });
  assert.equal(cancelling.job.deadlineAtMs, unreachable.job.deadlineAtMs);
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
    fc.constant((): JobInput => ({ type: "cancel", reason: "" })),
    fc.constantFrom(...CAUSES).map((cause) => (): JobInput => ({ type: "reject", cause, message: "" })),
    fc.boolean().map((force) => (): JobInput => ({ type: "retry", force })),
  ),
});

function inputsOfEveryType(attemptId: string): [JobInput["type"], JobInput][] {
  const inputs: { [T in JobInput["type"]]: Extract<JobInput, { type: T }> } = {
    assign: { type: "assign", attemptId: "a-2", workerId: "w-2" },
    start: { type: "start", attemptId, startedAtMs: NOW_MS },
    pause: { type: "pause", attemptId },
    resume: { type: "resume", attemptId },
    disconnect: { type: "disconnect", attemptId, heardAtMs: NOW_MS - 30_000 },
    progress: { type: "progress", attemptId, progress: { percent: 1, message: "" } },
    finish: finish(attemptId, { state: "succeeded" }),
    lose: { type: "lose", attemptId, cause: "worker_lost", message: "" },
    cancel: { type: "cancel", reason: "" },
    reject: { type: "reject", cause: "queue_timeout", message: "" },
    retry: { type: "retry", force: false },
  };
  return Object.entries(inputs) as [JobInput["type"], JobInput][];
}

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
    pause: "paused",
    disconnect: "unreachable",
    progress: "running",
    finish: "succeeded",
    lose: "pending",
    cancel: "cancelling",
  },
  paused: {
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
  cancelling: { start: "cancelling", progress: "cancelling", finish: "succeeded", lose: "cancelled" },
  failed: { retry: "pending" },
  cancelled: { retry: "pending" },
  timed_out: { retry: "pending" },
};

function expectedOutcome(state: JobState, type: JobInput["type"]): JobState | ChangeRefusal {
  const next = OUTCOMES[state]?.[type];
  if (next) return next;
  if (state === "succeeded" && type === "retry") return "succeeded";
  const namesAttempt = !["assign", "cancel", "reject", "retry"].includes(type);
  if (state === "pending" && namesAttempt) return "stale_attempt";
  return isFinal(state) ? "already_final" : "not_possible";
}

/** A job in a state, brought there by inputs, with `a-1` as its attempt if it has one. */
function setup(state: JobState, retry: Partial<RetryPolicy> = {}): Held {
  const path: { readonly [S in JobState]: readonly JobInput["type"][] } = {
    pending: [],
    scheduled: ["assign"],
    running: ["assign", "start"],
    paused: ["assign", "start", "pause"],
    unreachable: ["assign", "start", "disconnect"],
    cancelling: ["assign", "start", "cancel"],
    succeeded: ["assign", "start", "finish"],
    failed: ["assign", "start", "finish"],
    cancelled: ["assign", "start", "cancel", "finish"],
    timed_out: ["assign", "start", "finish"],
  };
  const inputs = new Map(inputsOfEveryType("a-1"));
  inputs.set("assign", { type: "assign", attemptId: "a-1", workerId: "w-1" });
  if (isFinal(state))
    inputs.set("finish", finish("a-1", { state, cause: state === "failed" ? "exit_code" : null }));
  let held = pendingJob(retry);
  for (const type of path[state]) held = apply(held, inputs.get(type) ?? assert.fail(type));
  assert.equal(held.job.state, state);
  return held;
}

function apply(held: Held, input: JobInput, nowMs = NOW_MS): Held {
  const change = changeJob(held.job, input, { nowMs, jitter: 0, attempt: held.attempt });
  assert.ok(change.ok, `${input.type} in ${held.job.state}`);
  return { job: change.job, attempt: change.attempt ?? held.attempt };
}

function finish(attemptId: string, result: Partial<AttemptResult>): Extract<JobInput, { type: "finish" }> {
  return {
    type: "finish",
    attemptId,
    result: {
      state: "succeeded",
      cause: null,
      exitCode: 0,
      signal: null,
      message: "",
      startedAtMs: NOW_MS,
      finishedAtMs: NOW_MS + 1,
      usage: { peakMemoryBytes: 0, cpuMicros: 0, ioReadBytes: 0, ioWriteBytes: 0, leftoverProcesses: 0 },
      steps: [],
      outputs: {},
      summary: "",
      logEnd: 0,
      ...result,
    },
  };
}

function pendingJob(retry: Partial<RetryPolicy>): Held {
  const {
    timeoutMs,
    queueTimeoutMs,
    graceMs,
    leaseMs,
    queue,
    maxRetries,
    maxInfrastructureRetries,
    backoffMs,
    maxBackoffMs,
  } = JOB_DEFAULTS;
  const job: Job = {
    id: "j-1",
    definition: {
      name: "test",
      command: { kind: "shell", cmd: "true", args: [] },
      steps: [],
      env: {},
      workingDirectory: "",
      resources: { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 },
      selector: {},
      timeoutMs,
      queueTimeoutMs,
      graceMs,
      leaseMs,
      retry: { maxRetries, maxInfrastructureRetries, backoffMs, maxBackoffMs, exitCodes: [], ...retry },
      priority: 0,
      queue,
      labels: {},
    },
    placementKey: "",
    state: "pending",
    cause: null,
    message: "",
    exitCode: null,
    signal: null,
    createdAtMs: NOW_MS,
    pendingSinceMs: NOW_MS,
    notBeforeMs: NOW_MS,
    startedAtMs: null,
    finishedAtMs: null,
    deadlineAtMs: NOW_MS + queueTimeoutMs,
    attemptId: null,
    attemptCount: 0,
    workerId: null,
    userRetries: 0,
    infrastructureRetries: 0,
    progress: null,
    outputs: {},
    summary: "",
    cancelReason: "",
    version: 1,
  };
  return { job, attempt: null };
}
