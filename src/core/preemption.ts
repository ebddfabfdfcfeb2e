/**
 * Which attempts end so that a job with a higher priority gets their place, and which because a taint
 * sends them away.
 *
 * What is being ended already counts as room first: the job whose victims are still ending finds them
 * so in the next round, and takes no others.
 */

import { formatTaint, tolerates } from "./labels.ts";
import { hasRoom } from "./placement.ts";
import type { PlacedJob, PlannedJob } from "./plan.ts";
import { add, noteChange, noteLeaving, type Board, type BoardWorker } from "./planner-board.ts";
import { candidatesOf, type Group } from "./planner-group.ts";
import type { WorkerCapacity } from "./worker.ts";

/** Plans the end of each attempt whose worker has a NoExecute taint that it does not tolerate. */
export function evictions(board: Board): void {
  for (const worker of board.workers) {
    const taints = worker.worker.taints.filter(({ effect }) => effect === "NoExecute");
    if (taints.length === 0) continue;
    for (const placed of worker.worker.running) {
      if (placed.isLeaving) continue;
      const taint = taints.find((each) => !tolerates(placed.placement.tolerations, each));
      if (!taint) continue;
      const { jobId, attemptId } = placed;
      const message = `worker ${worker.worker.name} has the taint ${formatTaint(taint)}, which the job does not tolerate`;
      board.plan.evict.push({ jobId, attemptId, workerId: worker.worker.id, message });
      noteLeaving(worker, placed);
    }
  }
}

/**
 * Finds a worker that has room for the job once what is being ended there is gone, or ends the fewest
 * and least important attempts of one. A job that is above nobody keeps no room that others could use.
 *
 * @returns what the job waits for, or null if nobody makes room for it.
 */
export function makeRoom(board: Board, job: PlannedJob, group: Group): string | null {
  if (!mayMakeRoom(board, job, group)) return null;
  const workers = candidatesOf(board, group).filter(({ worker }) => worker.unavailable === null);
  const isAbove = workers.some(({ worker }) => worker.running.some((placed) => isLesser(placed, job)));
  if (!isAbove) {
    group.cannotPreempt = true;
    return null;
  }
  const { resources } = job.placement;
  const soon = tightest(
    workers.filter((worker) => worker.leavingIds.size > 0 && hasRoom(roomSoon(worker), resources)),
  );
  if (soon) {
    reserve(board, soon, job);
    return `waiting for a job on worker ${soon.worker.name} to end`;
  }
  const choice = fewestVictims(workers, job);
  if (!choice) {
    group.cannotPreempt = true;
    return null;
  }
  const { worker, victims } = choice;
  for (const victim of victims) noteLeaving(worker, victim);
  reserve(board, worker, job);
  board.plan.preempt.push({
    jobId: job.id,
    workerId: worker.worker.id,
    victims: victims.map(({ jobId, attemptId }) => ({ jobId, attemptId })),
  });
  const what = victims.length === 1 ? "a job" : `${victims.length} jobs`;
  return `${what} with a lower priority on worker ${worker.worker.name} ${victims.length === 1 ? "is" : "are"} being ended to make room`;
}

/** False if there is nobody to end, as far as is known without a search. */
export function mayMakeRoom(board: Board, job: PlannedJob, group: Group): boolean {
  return !group.cannotPreempt && job.priority > board.leastPreemptible;
}

/**
 * Nobody else may count on this room, nor on what is free beside it: if a job behind took that, somebody
 * would have been ended for nothing.
 */
function reserve(board: Board, worker: BoardWorker, job: PlannedJob): void {
  const { resources } = job.placement;
  add(worker.free, resources, -1);
  noteChange(board, worker);
  board.kept.push({ workerId: worker.worker.id, resources });
}

function isLesser(placed: PlacedJob, job: PlannedJob): boolean {
  return placed.preemptible && placed.priority < job.priority;
}

/**
 * The worker that will have the least room: one with more may be what a larger job has ended others for
 * in an earlier round, and it would have to end more.
 */
function tightest(workers: readonly BoardWorker[]): BoardWorker | null {
  const ordered = workers.toSorted((left, right) => {
    const [a, b] = [roomSoon(left), roomSoon(right)];
    return (
      a.cpuMillis - b.cpuMillis ||
      a.memoryBytes - b.memoryBytes ||
      a.jobs - b.jobs ||
      left.index - right.index
    );
  });
  return ordered[0] ?? null;
}

/** What is free once all that is being ended there is gone. */
function roomSoon({ free, leaving }: BoardWorker): WorkerCapacity {
  const room = { ...free };
  add(room, leaving, 1);
  room.jobs = free.jobs + leaving.jobs;
  return room;
}

interface Choice {
  worker: BoardWorker;
  victims: PlacedJob[];
}

/** Of all workers the one with the fewest victims, then with the lower priorities, then the lowest id. */
function fewestVictims(workers: readonly BoardWorker[], job: PlannedJob): Choice | null {
  let best: Choice | null = null;
  for (const worker of workers) {
    const victims = victimsOn(worker, job, best?.victims.length ?? Infinity);
    if (victims && (best === null || isCheaper(victims, best.victims))) best = { worker, victims };
  }
  return best;
}

function isCheaper(victims: readonly PlacedJob[], than: readonly PlacedJob[]): boolean {
  if (victims.length !== than.length) return victims.length < than.length;
  return highestPriority(victims) < highestPriority(than);
}

function highestPriority(victims: readonly PlacedJob[]): number {
  return Math.max(...victims.map(({ priority }) => priority));
}

/** Sets of victims that are tried on one worker; beyond, some set that suffices is taken. */
const MAX_TRIES = 2_000;

/** The fewest attempts, `most` at the most, that make room on this worker; null if none do. */
function victimsOn(worker: BoardWorker, job: PlannedJob, most: number): PlacedJob[] | null {
  const lesser = worker.worker.running
    .filter((placed) => isLesser(placed, job) && !worker.leavingIds.has(placed.attemptId))
    .toSorted((left, right) => left.priority - right.priority || (left.attemptId < right.attemptId ? -1 : 1));
  const { resources } = job.placement;
  const room = roomSoon(worker);
  for (const { resources: freed } of lesser) add(room, freed, 1);
  if (lesser.length === 0 || !hasRoom(room, resources)) return null;

  const tries = { left: MAX_TRIES };
  for (let count = 1; count <= Math.min(most, lesser.length) && tries.left > 0; count += 1) {
    const found = choose(lesser, { count, from: 0, room: roomSoon(worker), job, tries });
    if (found) return found;
  }
  return tries.left > 0 ? null : withoutNeedless(lesser, room, job);
}

interface Search {
  count: number;
  from: number;
  room: WorkerCapacity;
  job: PlannedJob;
  tries: { left: number };
}

/** The first so many of the list, in its order, whose room together is enough. */
function choose(lesser: readonly PlacedJob[], search: Search): PlacedJob[] | null {
  const { count, from, room, job, tries } = search;
  if (count === 0) return hasRoom(room, job.placement.resources) ? [] : null;
  for (let index = from; index <= lesser.length - count && tries.left > 0; index += 1) {
    const victim = lesser[index];
    if (!victim) break;
    tries.left -= 1;
    const more = { ...room };
    add(more, victim.resources, 1);
    const rest = choose(lesser, { count: count - 1, from: index + 1, room: more, job, tries });
    if (rest) return [victim, ...rest];
  }
  return null;
}

/** All of them but those that need not end, the most important ones spared first. */
function withoutNeedless(lesser: readonly PlacedJob[], room: WorkerCapacity, job: PlannedJob): PlacedJob[] {
  const left = { ...room };
  return lesser
    .toReversed()
    .filter((placed) => {
      add(left, placed.resources, -1);
      if (hasRoom(left, job.placement.resources)) return false;
      add(left, placed.resources, 1);
      return true;
    })
    .toReversed();
}
