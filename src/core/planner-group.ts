/**
 * Alike jobs: which workers and pools they fit, and which of the workers is the best one now.
 *
 * A group holds its workers in a heap. When a worker changes, each group that is still looking adds
 * the worker once more as it is then, so an entry of an older version is dropped when it comes up. A
 * worker without room is dropped for good: within a plan nothing becomes free.
 */

import { fulfils } from "./labels.ts";
import { canEver, hasRoom, reluctance, type Placement } from "./placement.ts";
import type { PlannedJob, PlannedWorker } from "./plan.ts";
import { add, noteChange, type Board, type BoardPool, type BoardWorker } from "./planner-board.ts";

export interface Group {
  placement: Placement;
  /** By kind of worker; null where the jobs never fit. */
  fits: (KindFit | null)[];
  /** How many workers could take one when they are empty, whether or not they take jobs now. */
  candidateCount: number;
  /** Pools that could, the best one first. */
  pools: GroupPool[];
  heap: Candidate[];
  /** How many of the changes the heap knows. */
  seenChanges: number;
  /** Nothing more can be done for jobs of this group in this plan. */
  isClosed: boolean;
  /** No lower priority has better prospects. */
  cannotPreempt: boolean;
}

interface KindFit {
  reluctance: number;
  /** Of the preferences that are about the labels of the worker alone. */
  weight: number;
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

function newGroup(board: Board, { placement }: PlannedJob): Group {
  const fits = board.kinds.map((kind) =>
    canEver(placement, kind)
      ? { reluctance: reluctance(placement, kind), weight: workerWeight(placement, kind) }
      : null,
  );
  const group: Group = {
    placement,
    fits,
    candidateCount: board.counts.reduce((sum, count, kind) => sum + (fits[kind] ? count : 0), 0),
    pools: fittingPools(board, placement),
    heap: [],
    seenChanges: board.changes.length,
    isClosed: false,
    cannotPreempt: false,
  };
  for (const [kind, open] of board.open.entries()) {
    if (!fits[kind]) continue;
    // What is full stays full, so that groups that come later have less to look at.
    board.open[kind] = open.filter(({ free }) => free.jobs >= 1);
    for (const worker of board.open[kind]) offer(board, group, worker);
  }
  return group;
}

/** Workers that could take a job of the group when they are empty, by id. */
export function candidatesOf(board: Board, group: Group): BoardWorker[] {
  return group.candidateCount === 0 ? [] : board.workers.filter(({ kind }) => group.fits[kind]);
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
  const { heap, placement } = group;
  for (; group.seenChanges < board.changes.length; group.seenChanges += 1) {
    const changed = board.changes[group.seenChanges];
    if (changed) offer(board, group, changed);
  }
  for (let best = heap[0]; best; best = heap[0]) {
    if (best.version === best.worker.version && hasRoom(best.worker.free, placement.resources)) return best;
    popCandidate(heap);
  }
  return null;
}

/** Gives a job to a worker. */
export function takeWorker(board: Board, worker: BoardWorker, job: PlannedJob): void {
  add(worker.free, job.placement.resources, -1);
  if (job.labels) worker.jobLabels.push(job.labels);
  board.assignments += 1;
  worker.lastAssigned = board.assignments;
  noteChange(board, worker);
}

function offer(board: Board, group: Group, worker: BoardWorker): void {
  const fit = group.fits[worker.kind];
  if (!fit || worker.worker.unavailable !== null) return;
  if (!hasRoom(worker.free, group.placement.resources)) return;
  pushCandidate(group.heap, {
    worker,
    version: worker.version,
    reluctance: fit.reluctance,
    weight: fit.weight + jobWeight(group.placement, worker),
    value: strategyValue(board, worker, group.placement),
  });
}

function workerWeight({ preferences }: Placement, { labels }: PlannedWorker): number {
  let sum = 0;
  for (const { weight, workerLabels, jobLabels } of preferences) {
    if (!isEmpty(jobLabels) || workerLabels.length === 0) continue;
    if (workerLabels.every((requirement) => fulfils(labels, requirement))) sum += weight;
  }
  return sum;
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
