/**
 * Alike jobs: which workers and pools they fit, and which of the workers is the best one now.
 *
 * The first job of a group, often the only one, looks at all workers. For a second one the group holds
 * them in a heap. When a worker changes, each group that is still looking adds the worker once more as
 * it is then, so an entry of an older version is dropped when it comes up. A worker without room is
 * dropped for good: within a plan nothing becomes free.
 */

import { fulfils } from "./labels.ts";
import { canEver, hasRoom, reluctance, type Placement } from "./placement.ts";
import type { PlannedJob } from "./plan.ts";
import { add, noteChange, type Board, type BoardPool, type BoardWorker } from "./planner-board.ts";
import { matchOf, type KindFit, type Match } from "./planner-match.ts";

export interface Group {
  placement: Placement;
  match: Match;
  /** How many workers could take one when they are empty, whether or not they take jobs now. */
  candidateCount: number;
  /** Pools that could, the best one first. */
  pools: GroupPool[];
  /** Null until a second job looks. */
  heap: Candidate[] | null;
  /** How many of the changes the heap knows. */
  seenChanges: number;
  hasLooked: boolean;
  /** Nothing more can be done for jobs of this group in this plan. */
  isClosed: boolean;
  /** No lower priority has better prospects. */
  cannotPreempt: boolean;
}

export interface GroupPool {
  state: BoardPool;
  /** The machines before this one have no room for such a job. */
  firstMachine: number;
}

interface Candidate extends KindFit {
  worker: BoardWorker;
  version: number;
  /** By the strategy of the worker's pool, from 0 to about 1; less is better. */
  value: number;
}

export function groupOf(board: Board, job: PlannedJob): Group {
  let group = board.groups.get(job.placementKey);
  if (!group) {
    group = newGroup(board, job);
    board.groups.set(job.placementKey, group);
  }
  return group;
}

function newGroup(board: Board, job: PlannedJob): Group {
  const { placement } = job;
  const match = matchOf(board.kinds, job);
  let candidateCount = 0;
  for (const kind of match.keys())
    if (isLarge(board, kind, placement)) candidateCount += board.counts[kind] ?? 0;
  return {
    placement,
    match,
    candidateCount,
    pools: fittingPools(board, placement),
    heap: null,
    seenChanges: 0,
    hasLooked: false,
    isClosed: false,
    cannotPreempt: false,
  };
}

function isLarge({ kinds }: Board, kind: number, { resources }: Placement): boolean {
  const worker = kinds.all[kind];
  return worker !== undefined && hasRoom(worker.capacity, resources);
}

/** Workers that could take a job of the group when they are empty, by id. */
export function candidatesOf(board: Board, { candidateCount, match, placement }: Group): BoardWorker[] {
  if (candidateCount === 0) return [];
  return board.workers.filter(
    ({ kind, worker }) => match.has(kind) && hasRoom(worker.capacity, placement.resources),
  );
}

function fittingPools({ pools }: Board, placement: Placement): GroupPool[] {
  return pools
    .filter(({ pool }) => pool.maxWorkers > 0 && canEver(placement, pool))
    .map((state) => ({ state, firstMachine: 0, reluctance: reluctance(placement, state.pool) }))
    .toSorted(
      (left, right) =>
        left.reluctance - right.reluctance ||
        Number(left.state.pool.permanentProblem !== null) -
          Number(right.state.pool.permanentProblem !== null) ||
        left.state.pool.rank - right.state.pool.rank ||
        (left.state.pool.name < right.state.pool.name ? -1 : 1),
    );
}

/** The best worker with room for one more, or null. */
export function bestWorker(board: Board, group: Group): Candidate | null {
  const { placement, candidateCount } = group;
  if (candidateCount === 0) return null;
  if (!group.hasLooked) {
    group.hasLooked = true;
    return bestCandidate(board, group);
  }
  const heap = (group.heap ??= newHeap(board, group));
  for (; group.seenChanges < board.changes.length; group.seenChanges += 1) {
    const changed = board.changes[group.seenChanges];
    const candidate = changed ? candidateOn(board, group, changed) : null;
    if (candidate) pushCandidate(heap, candidate);
  }
  for (let best = heap[0]; best; best = heap[0]) {
    if (best.version === best.worker.version && hasRoom(best.worker.free, placement.resources)) return best;
    popCandidate(heap);
  }
  return null;
}

function bestCandidate(board: Board, group: Group): Candidate | null {
  let best: Candidate | null = null;
  for (const kind of group.match.keys()) {
    for (const worker of openOf(board, kind)) {
      const candidate = candidateOn(board, group, worker);
      if (candidate && (best === null || isBetter(candidate, best))) best = candidate;
    }
  }
  return best;
}

function newHeap(board: Board, group: Group): Candidate[] {
  const heap: Candidate[] = [];
  for (const kind of group.match.keys()) {
    for (const worker of openOf(board, kind)) {
      const candidate = candidateOn(board, group, worker);
      if (candidate) pushCandidate(heap, candidate);
    }
  }
  group.seenChanges = board.changes.length;
  return heap;
}

/** What is full stays full, so that groups that come later have less to look at. */
function openOf(board: Board, kind: number): BoardWorker[] {
  const open = board.open[kind] ?? [];
  if (open.every(hasSlot)) return open;
  return (board.open[kind] = open.filter(hasSlot));
}

function hasSlot({ free }: BoardWorker): boolean {
  return free.jobs >= 1;
}

/** Gives a job to a worker. */
export function takeWorker(board: Board, worker: BoardWorker, job: PlannedJob): void {
  add(worker.free, job.placement.resources, -1);
  if (job.labels) worker.jobLabels.push(job.labels);
  board.assignments += 1;
  worker.lastAssigned = board.assignments;
  noteChange(board, worker);
}

/** The worker as it is now, or null if it takes no job of the group. */
function candidateOn(board: Board, { match, placement }: Group, worker: BoardWorker): Candidate | null {
  const fit = match.get(worker.kind);
  if (!fit || worker.worker.unavailable !== null || !hasRoom(worker.free, placement.resources)) return null;
  return {
    worker,
    version: worker.version,
    reluctance: fit.reluctance,
    weight: fit.weight + jobWeight(placement, worker),
    value: strategyValue(board, worker, placement),
  };
}

/** Of the preferences that ask what else runs there. */
function jobWeight({ preferences }: Placement, { worker, jobLabels: there }: BoardWorker): number {
  let sum = 0;
  for (const { weight, workerLabels, jobLabels } of preferences) {
    if (isEmpty(jobLabels)) continue;
    const isThere = there.some((labels) =>
      Object.entries(jobLabels).every(([key, value]) => labels[key] === value),
    );
    if (isThere && workerLabels.every((requirement) => fulfils(worker.labels, requirement))) sum += weight;
  }
  return sum;
}

function isEmpty(record: Readonly<Record<string, string>>): boolean {
  for (const _ in record) return false;
  return true;
}

const CAPACITIES = ["jobs", "cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const;

/**
 * Least loaded looks at what is scarcest on the worker afterwards, so that nothing of it runs out; best
 * fit at the mean of all, so that it fills the workers that are nearly full.
 */
function strategyValue(board: Board, { worker, free, lastAssigned }: BoardWorker, job: Placement): number {
  if (worker.strategy === "round_robin") return lastAssigned / board.firstAssignment;
  let least = 1;
  let sum = 0;
  let count = 0;
  for (const name of CAPACITIES) {
    const capacity = worker.capacity[name];
    if (capacity <= 0) continue;
    const left = (free[name] - (name === "jobs" ? 1 : job.resources[name])) / capacity;
    least = Math.min(least, left);
    sum += left;
    count += 1;
  }
  return worker.strategy === "best_fit" ? sum / Math.max(1, count) : 1 - least;
}

/** Fewest taints that ask the job away, most weight, then the strategy, then the lowest id. */
function isBetter(left: Candidate, right: Candidate): boolean {
  if (left.reluctance !== right.reluctance) return left.reluctance < right.reluctance;
  if (left.weight !== right.weight) return left.weight > right.weight;
  if (left.value !== right.value) return left.value < right.value;
  return left.worker.index < right.worker.index;
}

function pushCandidate(heap: Candidate[], candidate: Candidate): void {
  let index = heap.length;
  heap.push(candidate);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent];
    if (!above || !isBetter(candidate, above)) break;
    heap[index] = above;
    index = parent;
  }
  heap[index] = candidate;
}

function popCandidate(heap: Candidate[]): void {
  const last = heap.pop();
  if (!last || heap.length === 0) return;
  let index = 0;
  for (;;) {
    const left = heap[2 * index + 1];
    const right = heap[2 * index + 2];
    if (!left) break;
    const isRight = right !== undefined && isBetter(right, left);
    const below = isRight ? right : left;
    if (!isBetter(below, last)) break;
    heap[index] = below;
    index = 2 * index + (isRight ? 2 : 1);
  }
  heap[index] = last;
}
