/** What the memory store and the PostgreSQL store must decide alike. */

import { AppError } from "../base/errors.ts";
import { sha256Hex } from "../base/random.ts";
import type { Job, JobEventRecord } from "../core/job.ts";
import type { Worker, WorkerState } from "../core/worker.ts";
import type { JobInputRecord, NewWorker, PendingJob, SealedLog, WorkerChange } from "./store.ts";

/**
 * A worker that reports an end without any log leaves nothing to seal: its attempt counts as sealed
 * at once, which saves most jobs that say nothing a statement of their own.
 */
export function emptySealedLog({ input }: JobInputRecord): SealedLog | null {
  if (input.type !== "finish" || input.result.logEnd > 0) return null;
  return { attemptId: input.attemptId, logBytes: 0, blobKey: null, digest: null };
}

/**
 * The first event of every job. It says nothing that the job does not say, so it is made when it is
 * asked for: a row per submission would halve the rate of submissions.
 */
export function queuedEvent(job: Pick<Job, "id" | "createdAtMs">): JobEventRecord {
  return {
    jobId: job.id,
    sequence: 1,
    atMs: job.createdAtMs,
    type: "queued",
    state: "pending",
    attemptId: null,
    workerId: null,
    message: "",
  };
}

/** A pending job says why it waits; one between two attempts says first how the last one ended. */
export function withWaitReason(job: Job, reason: string | null): Job {
  if (job.state !== "pending" || reason === null || reason === "") return job;
  return { ...job, message: job.message === "" ? reason : `${job.message}; ${reason}` };
}

/** Queues by name; within a queue the highest priority first, then the one that waits for the longest. */
export function inPendingOrder(jobs: readonly PendingJob[]): PendingJob[] {
  return jobs.toSorted(
    (a, b) =>
      compareText(a.queue, b.queue) ||
      b.priority - a.priority ||
      a.pendingSinceMs - b.pendingSinceMs ||
      compareText(a.id, b.id),
  );
}

export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

export function newWorker(worker: NewWorker): Worker {
  return {
    id: worker.id,
    name: worker.name,
    state: "creating",
    provider: worker.provider,
    pool: worker.pool,
    info: null,
    usage: null,
    createdAtMs: worker.nowMs,
    madeAtMs: null,
    registeredAtMs: null,
    lastHeartbeatAtMs: null,
    message: "",
    cordoned: false,
    takesOneJob: worker.takesOneJob ?? false,
  };
}

/** Sessions of one worker that are valid at once: answers to racing or repeated registrations. */
export const MAX_SESSIONS_PER_WORKER = 4;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Ids are lower case everywhere, so that equal ids are equal texts. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

export function requireUuid(text: string, what: string): void {
  if (!isUuid(text))
    throw new AppError("invalid_argument", `${what} is not a lower-case UUID: ${JSON.stringify(text)}`);
}

/** The smallest and largest id that begin with `prefix`; null if no id can. */
export function uuidRange(prefix: string): { low: string; high: string } | null {
  const low = prefix + "00000000-0000-0000-0000-000000000000".slice(prefix.length);
  const high = prefix + "ffffffff-ffff-ffff-ffff-ffffffffffff".slice(prefix.length);
  return isUuid(low) ? { low, high } : null;
}

/** How many ids an ambiguous prefix gives as examples. */
export const PREFIX_EXAMPLES = 5;

const MAX_KEY_CHARACTERS = 200;

/** The idempotency key as it is stored: an index entry has an upper size and takes no NUL. */
export function storedIdempotencyKey(key: string): string {
  const isPlain =
    key.length <= MAX_KEY_CHARACTERS && /^[\x20-\x7e]*$/.test(key) && !key.startsWith("sha256:");
  return isPlain ? key : `sha256:${sha256Hex(JSON.stringify(key))}`;
}

/**
 * A worker that is broken, or shall finish and leave, stays so whatever its next stream or heartbeat
 * says of its state: only its end, or that it is broken as well, changes that.
 */
export function keepsWorkerState(state: WorkerState, wanted: WorkerState): boolean {
  if (wanted === "terminated") return false;
  return state === "broken" || (state === "draining" && wanted !== "broken");
}

/** The part of a change that a worker in this state takes. */
export function takenChange(state: WorkerState | undefined, change: WorkerChange): WorkerChange {
  const defined = Object.entries(change).filter(([, value]) => value !== undefined);
  const taken = Object.fromEntries(defined) as unknown as WorkerChange;
  if (state === undefined || taken.state === undefined || !keepsWorkerState(state, taken.state)) return taken;
  const { state: _state, message: _message, ...rest } = taken;
  return rest;
}
