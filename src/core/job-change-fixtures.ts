/** Jobs in each state, for the tests of what inputs do to them. */

import assert from "node:assert/strict";
import { changeJob } from "./job-change.ts";
import type { JobInput } from "./job-input.ts";
import {
  JOB_DEFAULTS,
  definitionWith,
  isFinal,
  type Attempt,
  type AttemptResult,
  type Job,
  type JobState,
  type RetryPolicy,
  type WorkerLostPolicy,
} from "./job.ts";
import { newJob } from "./new-job.ts";
import { sampleResult } from "./session-fixtures.ts";

export const NOW_MS = 1_700_000_000_000;
export const LEASE_MS = JOB_DEFAULTS.leaseMs;

/** A job with its newest attempt, as the storage holds them. */
export interface Held {
  job: Job;
  attempt: Attempt | null;
}

export function inputsOfEveryType(attemptId: string): [JobInput["type"], JobInput][] {
  const inputs: { [T in JobInput["type"]]: Extract<JobInput, { type: T }> } = {
    assign: { type: "assign", attemptId: "a-2", workerId: "w-2" },
    start: { type: "start", attemptId, startedAtMs: NOW_MS },
    pause: { type: "pause", attemptId },
    resume: { type: "resume", attemptId },
    request_pause: { type: "request_pause" },
    request_resume: { type: "request_resume" },
    refuse_pause: { type: "refuse_pause", attemptId, message: "" },
    disconnect: { type: "disconnect", attemptId, heardAtMs: NOW_MS },
    progress: { type: "progress", attemptId, progress: { percent: 1, message: "" } },
    finish: finish(attemptId, { state: "succeeded" }),
    lose: { type: "lose", attemptId, cause: "worker_lost", message: "" },
    cancel: { type: "cancel", reason: "" },
    reject: { type: "reject", cause: "queue_timeout", message: "" },
    retry: { type: "retry", force: false },
  };
  return Object.entries(inputs) as [JobInput["type"], JobInput][];
}

/** A job in a state, brought there by inputs, with `a-1` as its attempt if it has one. */
export function setup(state: JobState, retry: Partial<RetryPolicy> = {}): Held {
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

export function withPolicy({ job, attempt }: Held, onWorkerLost: WorkerLostPolicy): Held {
  return { job: { ...job, definition: { ...job.definition, onWorkerLost } }, attempt };
}

export function apply(held: Held, input: JobInput, nowMs = NOW_MS): Held {
  const change = changeJob(held.job, input, { nowMs, jitter: 0, attempt: held.attempt });
  assert.ok(change.ok, `${input.type} in ${held.job.state}`);
  return { job: change.job, attempt: change.attempt ?? held.attempt };
}

export function finish(
  attemptId: string,
  result: Partial<AttemptResult>,
): Extract<JobInput, { type: "finish" }> {
  return {
    type: "finish",
    attemptId,
    result: sampleResult({ startedAtMs: NOW_MS, finishedAtMs: NOW_MS + 1, ...result }),
  };
}

export function pendingJob(retry: Partial<RetryPolicy>): Held {
  const definition = definitionWith({
    name: "test",
    command: { kind: "shell", cmd: "true", args: [] },
    retry,
  });
  const job = newJob({ id: "j-1", definition, nowMs: NOW_MS });
  return { job, attempt: null };
}
