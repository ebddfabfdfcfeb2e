/**
 * What a pool lacks and what it has too much of.
 *
 * Level-triggered: it looks at the workers as they are, so that a lost message or a crash in the
 * middle is mended by the next look. Pure; the caller makes, drains and removes. Workers that jobs
 * wait for are made by the planner (planner.ts), within the same `room`.
 */

import type { PoolDefinition } from "./pool.ts";

/** A worker of a pool as its server sees it. */
export interface PoolWorker {
  id: string;
  /** Asked for, and without a first stream; `isConnected` workers have one now. */
  isArriving: boolean;
  isConnected: boolean;
  /** It holds attempts, or is being given one. */
  isBusy: boolean;
  /** It was given at least one job in its life. */
  hasTakenJob: boolean;
  /** Since when it is connected and holds nothing; null while it does, and while it is not known. */
  idleSinceMs: number | null;
  /** When it was there; null while it is being made. */
  madeAtMs: number | null;
  /** It was made by a definition that is not the pool's any more. */
  isOutdated: boolean;
  /** It was told to leave, or leaves by itself. */
  isDraining: boolean;
  /** Somebody wants it to get no new jobs, and to stay. */
  isCordoned: boolean;
}

export interface PoolState {
  definition: Pick<
    PoolDefinition,
    "minWorkers" | "warmSpares" | "ephemeral" | "idleTimeoutMs" | "maxLifetimeMs" | "startTimeoutMs"
  >;
  isDeleting: boolean;
  /** Workers that may be made now, see `poolRoom`. */
  room: number;
  workers: readonly PoolWorker[];
}

export interface PoolPlan {
  /** Workers to make, for the minimum and as spares. */
  make: number;
  drain: { id: string; reason: string }[];
  /** Workers that took too long to come. */
  late: string[];
}

/**
 * A worker that was made for a job gets it in a moment, however short its pool's patience is: without
 * this a pool that tolerates no idleness would send each worker away before its first job.
 */
const FIRST_JOB_GRACE_MS = 5_000;

export function planPool(pool: PoolState, nowMs: number): PoolPlan {
  const late = pool.workers.filter((worker) => isLate(worker, pool, nowMs)).map(({ id }) => id);
  const drain: PoolPlan["drain"] = [];
  const staying: PoolWorker[] = [];
  for (const worker of pool.workers) {
    if (worker.isDraining || late.includes(worker.id)) continue;
    const reason = reasonToLeave(worker, pool, nowMs);
    // One that is on its way is told when it comes.
    if (reason !== null && worker.isConnected) drain.push({ id: worker.id, reason });
    if (reason === null && !worker.isCordoned) staying.push(worker);
  }
  const surplus = surplusOf(staying, pool, nowMs);
  for (const { id } of surplus) drain.push({ id, reason: "idle" });
  const left = staying.filter((worker) => !surplus.includes(worker));
  return { make: pool.isDeleting ? 0 : Math.min(pool.room, missing(left, pool)), drain, late };
}

/**
 * How many workers a pool may have besides those that exist: workers that leave take room until they
 * are gone, so that there are never more than `maxWorkers`.
 */
export function poolRoom(pool: {
  maxWorkers: number;
  existing: number;
  arriving: number;
  breaker: "closed" | "open" | "half_open";
  isUsable: boolean;
}): number {
  if (!pool.isUsable || pool.breaker === "open") return 0;
  const room = Math.max(0, pool.maxWorkers - pool.existing);
  return pool.breaker === "closed" ? room : Math.min(room, Math.max(0, 1 - pool.arriving));
}

function isLate(worker: PoolWorker, { definition }: PoolState, nowMs: number): boolean {
  const { isArriving, isConnected, madeAtMs } = worker;
  return isArriving && !isConnected && madeAtMs !== null && nowMs - madeAtMs > definition.startTimeoutMs;
}

/** Reasons that hold for busy workers too, which finish their jobs; but for `its job is done`. */
function reasonToLeave(worker: PoolWorker, pool: PoolState, nowMs: number): string | null {
  const { maxLifetimeMs, ephemeral } = pool.definition;
  if (pool.isDeleting) return "its pool is being deleted";
  if (worker.isOutdated) return "its pool has changed";
  if (maxLifetimeMs !== null && worker.madeAtMs !== null && nowMs - worker.madeAtMs >= maxLifetimeMs) {
    return "its lifetime is over";
  }
  if (ephemeral && worker.isConnected && worker.hasTakenJob && !worker.isBusy) return "its job is done";
  return null;
}

/** Those that are idle for too long and neither the minimum nor the spares need, the longest idle first. */
function surplusOf(staying: readonly PoolWorker[], pool: PoolState, nowMs: number): PoolWorker[] {
  const { minWorkers, warmSpares, idleTimeoutMs } = pool.definition;
  const idle = staying.filter(isIdle);
  const spare = Math.min(staying.length - minWorkers, idle.length - warmSpares);
  if (spare <= 0) return [];
  return idle
    .filter(({ idleSinceMs, hasTakenJob }) => {
      const patienceMs = hasTakenJob ? idleTimeoutMs : Math.max(idleTimeoutMs, FIRST_JOB_GRACE_MS);
      return idleSinceMs !== null && nowMs - idleSinceMs >= patienceMs;
    })
    .toSorted((a, b) => (a.idleSinceMs ?? 0) - (b.idleSinceMs ?? 0))
    .slice(0, spare);
}

/**
 * Workers on their way count as spares: they may be for jobs that wait, but then they are missing again
 * when they have them. The other way round each job that waits would cost a spare too many. So do those
 * without a stream: after a restart of the server nobody knows yet what they do.
 */
function missing(staying: readonly PoolWorker[], { definition }: PoolState): number {
  const spares = staying.filter((worker) => isIdle(worker) || !worker.isConnected).length;
  return Math.max(0, definition.minWorkers - staying.length, definition.warmSpares - spares);
}

function isIdle(worker: PoolWorker): boolean {
  return worker.isConnected && !worker.isBusy;
}
