/** Whether and when an attempt that ended badly is followed by another one. */

import { isInfrastructureCause, type Cause, type FinalJobState, type JobDefinition } from "./job.ts";

export type RetryDecision =
  | { retry: false }
  | { retry: true; kind: "user" | "infrastructure"; delayMs: number };

export interface EndedAttempt {
  state: FinalJobState;
  cause: Cause | null;
  exitCode: number | null;
}

/**
 * Decides on a new attempt. A success and a cancel are never retried. A failure of the
 * infrastructure and one of the user have budgets of their own, so that a flaky machine cannot use
 * up the retries that the author meant for a flaky test. `jitter` is in [0, 1).
 */
export function decideRetry(options: {
  definition: Pick<JobDefinition, "retry" | "onWorkerLost">;
  ended: EndedAttempt;
  userRetries: number;
  infrastructureRetries: number;
  jitter: number;
}): RetryDecision {
  const { ended, jitter } = options;
  const policy = options.definition.retry;
  if (ended.state === "succeeded" || ended.state === "cancelled") return { retry: false };
  if (ended.cause === "invalid" || ended.cause === "queue_timeout") return { retry: false };

  if (ended.cause === "worker_lost" && options.definition.onWorkerLost === "fail") return { retry: false };

  const isInfrastructure = ended.cause !== null && isInfrastructureCause(ended.cause);
  if (!isInfrastructure && !isRetriedExitCode(policy.exitCodes, ended.exitCode)) return { retry: false };

  const done = isInfrastructure ? options.infrastructureRetries : options.userRetries;
  const budget = isInfrastructure ? policy.maxInfrastructureRetries : policy.maxRetries;
  if (done >= budget) return { retry: false };
  return {
    retry: true,
    kind: isInfrastructure ? "infrastructure" : "user",
    delayMs: backoffDelay({ baseMs: policy.backoffMs, maxMs: policy.maxBackoffMs, retries: done, jitter }),
  };
}

function isRetriedExitCode(wanted: readonly number[], exitCode: number | null): boolean {
  return wanted.length === 0 || (exitCode !== null && wanted.includes(exitCode));
}

/**
 * Exponential backoff with equal jitter: half of the delay is fixed, so that a retry is never at
 * once, and half is chance, so that a thousand jobs that failed together do not return together.
 */
export function backoffDelay(options: {
  baseMs: number;
  maxMs: number;
  retries: number;
  jitter: number;
}): number {
  const { baseMs, maxMs, retries, jitter } = options;
  const exponential = Math.min(maxMs, baseMs * 2 ** Math.min(retries, 40));
  return Math.round(exponential / 2 + (exponential / 2) * jitter);
}
