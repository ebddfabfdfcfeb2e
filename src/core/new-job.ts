/** A job that was just submitted. */

import type { Job, JobDefinition } from "./job.ts";
import { placementKey } from "./placement.ts";

/** What a job has to tell before anything has happened to it. */
export const NOTHING_YET = {
  message: "",
  exitCode: null,
  signal: null,
  startedAtMs: null,
  finishedAtMs: null,
  attemptCount: 0,
  userRetries: 0,
  infrastructureRetries: 0,
  progress: null,
  summary: "",
  cancelReason: "",
  cancelCause: null,
  pauseWanted: false,
} as const satisfies Partial<Job>;

export function newJob({
  id,
  definition,
  nowMs,
}: {
  id: string;
  definition: JobDefinition;
  nowMs: number;
}): Job {
  return {
    ...NOTHING_YET,
    outputs: {},
    id,
    definition,
    placementKey: placementKey(definition),
    state: "pending",
    cause: null,
    createdAtMs: nowMs,
    pendingSinceMs: nowMs,
    notBeforeMs: nowMs,
    deadlineAtMs: nowMs + definition.queueTimeoutMs,
    attemptId: null,
    workerId: null,
    version: 1,
  };
}
