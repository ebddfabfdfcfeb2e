/**
 * Decides which job goes to which worker, and how many workers are missing.
 *
 * Pure: the caller reads the jobs, workers and pools, and carries out what is returned. Jobs come
 * in the order in which they should start. A job that fits nowhere never holds up the ones behind
 * it, and alike jobs (same `placementKey`) are looked at once when there is no room for them.
 */

import type { Resources } from "./job.ts";
import type { WorkerCapacity } from "./worker.ts";

export interface PlannedJob {
  id: string;
  placementKey: string;
  resources: Resources;
  selector: Record<string, string>;
}

/** A worker that may be given jobs, with what is still free on it. */
export interface PlannedWorker {
  id: string;
  labels: Record<string, string>;
  free: WorkerCapacity;
}

/** Where workers can be made. */
export interface PlannedPool {
  name: string;
  labels: Record<string, string>;
  /** What one new worker can hold. */
  capacity: WorkerCapacity;
  /** How many more workers may be made now. */
  room: number;
  /** Workers that were asked for and have not connected yet: jobs may wait for them. */
  arriving: number;
  /** Why no worker can be made now, if so. */
  problem: string | null;
}

export interface Plan {
  assign: { jobId: string; workerId: string }[];
  /** How many workers to make, by pool. */
  provision: { pool: string; count: number }[];
  /** Why jobs wait, by placement key. A reason is `impossible` if no worker could ever take them. */
  reasons: Map<string, WaitReason>;
}

export interface WaitReason {
  impossible: boolean;
  message: string;
}

export function plan(input: {
  jobs: readonly PlannedJob[];
  workers: readonly PlannedWorker[];
  pools: readonly PlannedPool[];
}): Plan {
  const workers = input.workers.map((worker) => ({ ...worker, free: { ...worker.free } }));
  const arriving = input.pools.map((pool) => ({
    pool,
    slots: pool.arriving * pool.capacity.jobs,
    room: pool.room,
    wanted: 0,
  }));
  const result: Plan = { assign: [], provision: [], reasons: new Map() };
  const noRoomOnWorkers = new Set<string>();

  for (const job of input.jobs) {
    if (!noRoomOnWorkers.has(job.placementKey)) {
      const worker = leastLoadedFit(job, workers);
      if (worker) {
        take(worker.free, job.resources);
        result.assign.push({ jobId: job.id, workerId: worker.id });
        continue;
      }
      noRoomOnWorkers.add(job.placementKey);
    }
    waitForPool(job, { arriving, result, workers });
  }

  for (const { pool, wanted } of arriving) {
    if (wanted > 0) result.provision.push({ pool: pool.name, count: wanted });
  }
  return result;
}

interface ArrivingPool {
  pool: PlannedPool;
  slots: number;
  room: number;
  wanted: number;
}

function waitForPool(
  job: PlannedJob,
  context: { arriving: ArrivingPool[]; result: Plan; workers: readonly PlannedWorker[] },
): void {
  const fitting = context.arriving.filter(
    ({ pool }) => hasLabels(pool.labels, job.selector) && holds(pool.capacity, job.resources),
  );
  const reserved = fitting.find((entry) => entry.slots > 0);
  if (reserved) {
    reserved.slots -= 1;
    setReason(context.result, job, {
      impossible: false,
      message: `waiting for a worker of pool ${reserved.pool.name} to connect`,
    });
    return;
  }
  const growing = fitting.find((entry) => entry.room > 0);
  if (growing) {
    growing.room -= 1;
    growing.wanted += 1;
    growing.slots += growing.pool.capacity.jobs - 1;
    setReason(context.result, job, {
      impossible: false,
      message: `a worker of pool ${growing.pool.name} is being made`,
    });
    return;
  }
  setReason(context.result, job, explainNoFit(job, fitting, context));
}

function explainNoFit(
  job: PlannedJob,
  fitting: readonly ArrivingPool[],
  context: { arriving: readonly ArrivingPool[]; workers: readonly PlannedWorker[] },
): WaitReason {
  const couldRun = context.workers.some((worker) => hasLabels(worker.labels, job.selector));
  const failing = fitting.find(({ pool }) => pool.problem !== null);
  if (failing) {
    return {
      impossible: false,
      message: `pool ${failing.pool.name} cannot make a worker: ${failing.pool.problem}`,
    };
  }
  if (fitting.length > 0) {
    const names = fitting.map(({ pool }) => pool.name).join(", ");
    return { impossible: false, message: `every worker is busy and pool ${names} is at its maximum` };
  }
  if (couldRun) return { impossible: false, message: "every worker with these labels is busy or too small" };
  const places: { labels: Record<string, string> }[] = [
    ...context.workers,
    ...context.arriving.map(({ pool }) => pool),
  ];
  const missing = Object.entries(job.selector).filter(
    ([key, value]) => !places.some(({ labels }) => labels[key] === value),
  );
  if (missing.length > 0) {
    const labels = missing.map(([key, value]) => `${key}=${value}`).join(", ");
    return { impossible: true, message: `no worker and no pool has the label ${labels}` };
  }
  return {
    impossible: true,
    message: "no worker and no pool is large enough for its resources, or has all its labels",
  };
}

function setReason(result: Plan, job: PlannedJob, reason: WaitReason): void {
  if (!result.reasons.has(job.placementKey)) result.reasons.set(job.placementKey, reason);
}

/** The fitting worker with the most free job slots; the first one of several. */
function leastLoadedFit(job: PlannedJob, workers: readonly PlannedWorker[]): PlannedWorker | null {
  let best: PlannedWorker | null = null;
  for (const worker of workers) {
    if (!holds(worker.free, job.resources) || !hasLabels(worker.labels, job.selector)) continue;
    if (best === null || worker.free.jobs > best.free.jobs) best = worker;
  }
  return best;
}

function hasLabels(labels: Record<string, string>, selector: Record<string, string>): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}

function holds(free: WorkerCapacity, wanted: Resources): boolean {
  return (
    free.jobs >= 1 &&
    free.cpuMillis >= wanted.cpuMillis &&
    free.memoryBytes >= wanted.memoryBytes &&
    free.diskBytes >= wanted.diskBytes &&
    free.gpu >= wanted.gpu
  );
}

function take(free: WorkerCapacity, wanted: Resources): void {
  free.jobs -= 1;
  free.cpuMillis -= wanted.cpuMillis;
  free.memoryBytes -= wanted.memoryBytes;
  free.diskBytes -= wanted.diskBytes;
  free.gpu -= wanted.gpu;
}
