/** Tells people why a job waits: worker by worker, pool by pool, with what would have to change. */

import { isEverPossible, namedPlaces, whyImpossible, type Places } from "./explain-impossible.ts";
import { AMOUNTS, blockersOf, type Blocker, type Placement } from "./placement.ts";
import { waitKey, type PlanInput, type PlannedJob, type PlannedPool, type PlannedWorker } from "./plan.ts";
import { refusal } from "./planner-provision.ts";
import { plan } from "./planner.ts";
import type { WorkerCapacity } from "./worker.ts";

export interface WorkerVerdict {
  workerId: string;
  name: string;
  pool: string;
  /** The job could start there now. */
  fits: boolean;
  blockers: Blocker[];
}

export interface PoolVerdict {
  name: string;
  /** A worker for the job can be made now, or is on its way. */
  fits: boolean;
  arriving: number;
  blockers: Blocker[];
}

export interface Explanation {
  /** `assigned` if it would start now, were it the only one that waits. */
  kind: "waiting" | "impossible" | "assigned";
  reason: string;
  /** What keeps all jobs of its queue or of its concurrency key from starting; empty if nothing does. */
  heldBy: string;
  /** The closest first: with the fewest things in the way, then with the least that is missing. */
  workers: WorkerVerdict[];
  pools: PoolVerdict[];
}

/** Why a job waits, were it the only one: what `plan` would do with it alone, and why not elsewhere. */
export function explainJob(job: PlannedJob, snapshot: Omit<PlanInput, "jobs">): Explanation {
  const { placement } = job;
  const { assign, fail, reasons } = plan({ ...snapshot, jobs: [job] });
  const hold =
    reasons.get(waitKey.queue(job.queue)) ??
    (job.concurrency ? reasons.get(waitKey.concurrency(job.concurrency.key)) : undefined);
  const isPossible = isEverPossible(placement, snapshot);
  const [assigned] = assign;
  const [failed] = fail;
  const isHopeless = !isPossible || failed !== undefined;
  const reason = isPossible
    ? (assigned?.reason ?? failed?.message ?? (hold ?? reasons.get(waitKey.placement(job)))?.message)
    : whyImpossible(placement, namedPlaces(snapshot));
  return {
    kind: isHopeless ? "impossible" : assigned ? "assigned" : "waiting",
    reason: reason ?? "",
    heldBy: hold?.message ?? "",
    workers: byDistance(snapshot.workers, job).map((worker) => workerVerdict(worker, placement)),
    pools: byDistance(snapshot.pools, job).map((pool) => poolVerdict(pool, job)),
  };
}

/**
 * Why no worker that is known and no pool could ever take such a job, or null if one could. Null also
 * where there is neither: somebody may be about to start the first worker.
 */
export function placementProblem(placement: Placement, places: Places): string | null {
  const isEmpty = places.workers.length === 0 && places.pools.every(({ maxWorkers }) => maxWorkers === 0);
  return isEmpty || isEverPossible(placement, places) ? null : whyImpossible(placement, namedPlaces(places));
}

function workerVerdict(worker: PlannedWorker, placement: Placement): WorkerVerdict {
  const blockers = workerBlockers(worker, placement);
  const { id: workerId, name, pool } = worker;
  return { workerId, name, pool, fits: blockers.length === 0, blockers };
}

function workerBlockers(worker: PlannedWorker, placement: Placement): Blocker[] {
  const blockers = blockersOf(placement, worker, worker.free);
  if (worker.unavailable === null) return blockers;
  const message = `takes no jobs: ${worker.unavailable}`;
  const change = worker.remedy ?? "wait until it takes jobs again, or let it";
  return [{ kind: "unavailable", message, change }, ...blockers];
}

function poolVerdict(pool: PlannedPool, job: PlannedJob): PoolVerdict {
  const blockers = poolBlockers(pool, job);
  return { name: pool.name, fits: blockers.length === 0, arriving: pool.arriving, blockers };
}

function poolBlockers(pool: PlannedPool, job: PlannedJob): Blocker[] {
  const blockers = blockersOf(job.placement, pool, null);
  if (pool.arriving > 0) return blockers;
  const problem = pool.problem ?? refusal(pool, job);
  if (problem !== null) {
    const message = `cannot make a worker: ${problem}`;
    blockers.push({ kind: "provider", message, change: "mend what its provider complains of" });
  }
  if (problem === null && pool.room <= 0) {
    const message = `has as many workers as it may, ${pool.maxWorkers}`;
    blockers.push({ kind: "pool_full", message, change: "wait, or raise its maxWorkers" });
  }
  return blockers;
}

function byDistance<P extends PlannedWorker | PlannedPool>(places: readonly P[], job: PlannedJob): P[] {
  const { placement } = job;
  return places
    .map((place) => {
      const isWorker = "free" in place;
      const blockers = isWorker ? workerBlockers(place, placement) : poolBlockers(place, job);
      return {
        place,
        count: blockers.length,
        distance: lasting(blockers) + shortage(isWorker ? place.free : place.capacity, placement),
      };
    })
    .toSorted(
      (left, right) =>
        left.count - right.count ||
        left.distance - right.distance ||
        (left.place.name < right.place.name ? -1 : 1),
    )
    .map(({ place }) => place);
}

/** What waiting does not mend is further away than what it does. */
function lasting(blockers: readonly Blocker[]): number {
  return blockers.filter(({ kind }) => kind !== "busy" && kind !== "pool_full").length;
}

/** The missing parts of what the job needs, one for each resource that is not there at all. */
function shortage(room: WorkerCapacity, { resources }: Placement): number {
  let sum = 0;
  for (const { name } of AMOUNTS) {
    const needs = name === "jobs" ? 1 : resources[name];
    if (needs <= 0) continue;
    sum += Math.max(0, needs - Math.max(0, room[name])) / needs;
  }
  return sum;
}
