import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  CAUSES,
  FINAL_JOB_STATES,
  INFRASTRUCTURE_CAUSES,
  isInfrastructureCause,
  type RetryPolicy,
  type WorkerLostPolicy,
} from "./job.ts";
import { backoffDelay, decideRetry, type EndedAttempt } from "./retry.ts";

function setup(options: {
  policy?: Partial<RetryPolicy>;
  ended?: Partial<EndedAttempt>;
  userRetries?: number;
  infrastructureRetries?: number;
  onWorkerLost?: WorkerLostPolicy;
}) {
  const retry = {
    maxRetries: 3,
    maxInfrastructureRetries: 2,
    backoffMs: 1_000,
    maxBackoffMs: 60_000,
    exitCodes: [],
    ...options.policy,
  };
  const ended: EndedAttempt = { state: "failed", cause: "exit_code", exitCode: 1, ...options.ended };
  const { userRetries = 0, infrastructureRetries = 0 } = options;
  return decideRetry({
    definition: { retry, onWorkerLost: options.onWorkerLost ?? "retry" },
    ended,
    userRetries,
    infrastructureRetries,
    jitter: 0,
  });
}

test("a lost worker is the end of a job that shall fail then, and of no other", () => {
  const lost: Partial<EndedAttempt> = { cause: "worker_lost", exitCode: null };
  assert.equal(setup({ ended: lost, onWorkerLost: "fail" }).retry, false);
  assert.equal(setup({ ended: lost, onWorkerLost: "wait" }).retry, true);
  assert.equal(setup({ ended: { ...lost, cause: "server_error" }, onWorkerLost: "fail" }).retry, true);
});

test("a success and a cancel are never retried, whatever their cause", () => {
  for (const state of ["succeeded", "cancelled"] as const) {
    for (const cause of [null, ...CAUSES])
      assert.deepEqual(setup({ ended: { state, cause } }), { retry: false });
  }
});

test("every other end is retried from the budget its cause belongs to", () => {
  for (const cause of CAUSES) {
    const decision = setup({ ended: { cause, exitCode: null } });
    if (cause === "invalid" || cause === "queue_timeout") assert.deepEqual(decision, { retry: false }, cause);
    else
      assert.equal(
        decision.retry && decision.kind,
        isInfrastructureCause(cause) ? "infrastructure" : "user",
        cause,
      );
  }
});

test("failures of the infrastructure do not use up the user's retries, nor the other way round", () => {
  assert.ok(setup({ userRetries: 0, infrastructureRetries: 99 }).retry);
  assert.ok(setup({ ended: { cause: "worker_lost" }, userRetries: 99, infrastructureRetries: 1 }).retry);
  assert.deepEqual(setup({ userRetries: 3 }), { retry: false });
  assert.deepEqual(setup({ ended: { cause: "worker_lost" }, infrastructureRetries: 2 }), { retry: false });
});

test("with a list of exit codes, only these are retried; a lost worker is, in any case", () => {
  const policy = { exitCodes: [75] };
  assert.ok(setup({ policy, ended: { exitCode: 75 } }).retry);
  assert.ok(!setup({ policy, ended: { exitCode: 1 } }).retry);
  assert.ok(!setup({ policy, ended: { cause: "signal", exitCode: null } }).retry);
  for (const cause of INFRASTRUCTURE_CAUSES) {
    assert.equal(setup({ policy, ended: { cause, exitCode: null } }).retry, cause !== "queue_timeout", cause);
  }
});

test("an end without a cause counts as the user's", () => {
  const decision = setup({ ended: { cause: null } });
  assert.equal(decision.retry && decision.kind, "user");
});

test("a budget is never exceeded, for any policy", () => {
  const inputs = fc.record({
    state: fc.constantFrom(...FINAL_JOB_STATES),
    cause: fc.constantFrom(null, ...CAUSES),
    userRetries: fc.nat(5),
    infrastructureRetries: fc.nat(5),
    maxRetries: fc.nat(5),
    maxInfrastructureRetries: fc.nat(5),
  });
  fc.assert(
    fc.property(inputs, ({ state, cause, userRetries, infrastructureRetries, ...policy }) => {
      const decision = setup({ policy, ended: { state, cause }, userRetries, infrastructureRetries });
      if (!decision.retry) return true;
      return decision.kind === "user"
        ? userRetries < policy.maxRetries
        : infrastructureRetries < policy.maxInfrastructureRetries;
    }),
  );
});

test("the wait doubles with each retry up to its maximum, half of it by chance", () => {
  const delays = [0, 1, 2, 3, 4].map((retries) =>
    backoffDelay({ baseMs: 1_000, maxMs: 5_000, retries, jitter: 0 }),
  );
  assert.deepEqual(delays, [500, 1_000, 2_000, 2_500, 2_500]);
  assert.equal(backoffDelay({ baseMs: 1_000, maxMs: 5_000, retries: 1, jitter: 0.5 }), 1_500);
});

test("the wait lies between half and the whole of its ceiling, however often it was tried", () => {
  const inputs = fc.record({
    baseMs: fc.nat(86_400_000),
    maxMs: fc.nat(86_400_000),
    retries: fc.nat(1_000_000),
    jitter: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  });
  fc.assert(
    fc.property(inputs, (options) => {
      const delayMs = backoffDelay(options);
      const ceilingMs = Math.min(options.maxMs, options.baseMs * 2 ** Math.min(options.retries, 40));
      assert.ok(Number.isSafeInteger(delayMs));
      assert.ok(delayMs >= Math.floor(ceilingMs / 2) && delayMs <= Math.ceil(ceilingMs));
    }),
  );
});
