/** How a job lies in its row: columns for what is searched, one JSON value for the rest. */

import { JOB_DEFAULTS, type Attempt, type Job, type JobDefinition } from "../../core/job.ts";
import { NOTHING_YET } from "../../core/new-job.ts";
import type { JobsTable } from "./database.ts";

/** The part of a job that is never searched. */
export type JobBody = Pick<
  Job,
  | "pendingSinceMs"
  | "message"
  | "exitCode"
  | "signal"
  | "startedAtMs"
  | "finishedAtMs"
  | "attemptCount"
  | "userRetries"
  | "infrastructureRetries"
  | "progress"
  | "outputs"
  | "summary"
  | "cancelReason"
  | "cancelCause"
  | "pauseWanted"
>;

export const JOB_COLUMNS = [
  "id",
  "state",
  "cause",
  "placement_key",
  "created_at",
  "not_before",
  "deadline_at",
  "attempt_id",
  "worker_id",
  "version",
  "definition",
  "body",
] as const;
export type JobRow = Pick<JobsTable, (typeof JOB_COLUMNS)[number]>;

export function jobOfRow(row: JobRow): Job {
  return {
    ...NOTHING_YET,
    outputs: {},
    pendingSinceMs: row.created_at,
    ...row.body,
    id: row.id,
    definition: definitionOfRow(row),
    placementKey: row.placement_key,
    state: row.state,
    cause: row.cause,
    createdAtMs: row.created_at,
    notBeforeMs: row.not_before,
    deadlineAtMs: row.deadline_at,
    attemptId: row.attempt_id,
    workerId: row.worker_id,
    version: row.version,
  };
}

/** A definition that an earlier version stored lacks what came later. */
function definitionOfRow({ definition }: Pick<JobRow, "definition">): JobDefinition {
  return {
    ...{
      onWorkerLost: JOB_DEFAULTS.onWorkerLost,
      logQuotaBytes: JOB_DEFAULTS.logQuotaBytes,
      onLogQuota: JOB_DEFAULTS.onLogQuota,
      selectorExpressions: [],
      tolerations: [],
      capabilities: [],
      preferences: [],
      concurrency: null,
      preemptible: false,
    },
    ...definition,
  };
}

/** As with definitions: an attempt of an earlier version lacks what came later. */
export function attemptOfBody(body: Attempt): Attempt {
  return { ...{ runnerId: "", queuedAtMs: body.scheduledAtMs }, ...body };
}

/** Without the lists of which there are none, and what else `definitionOfRow` adds: most jobs have none of it. */
export function definitionBody(definition: JobDefinition): string {
  const { selectorExpressions, tolerations, capabilities, preferences, concurrency, preemptible } =
    definition;
  return JSON.stringify({
    ...definition,
    selectorExpressions: unlessEmpty(selectorExpressions),
    tolerations: unlessEmpty(tolerations),
    capabilities: unlessEmpty(capabilities),
    preferences: unlessEmpty(preferences),
    concurrency: concurrency ?? undefined,
    preemptible: preemptible || undefined,
  });
}

/** JSON has no place for `undefined`: the field is left out. */
function unlessEmpty<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

export function bodyOfJob(job: Job): string {
  const body: JobBody = {
    pendingSinceMs: job.pendingSinceMs,
    message: job.message,
    exitCode: job.exitCode,
    signal: job.signal,
    startedAtMs: job.startedAtMs,
    finishedAtMs: job.finishedAtMs,
    attemptCount: job.attemptCount,
    userRetries: job.userRetries,
    infrastructureRetries: job.infrastructureRetries,
    progress: job.progress,
    outputs: job.outputs,
    summary: job.summary,
    cancelReason: job.cancelReason,
    cancelCause: job.cancelCause,
    pauseWanted: job.pauseWanted,
  };
  return JSON.stringify(body);
}
