/**
 * Makes a plan, see plan.ts for what it is given and returns.
 *
 * Jobs are taken priority by priority; within a priority the queue whose share is due goes on until one
 * of its jobs starts. A job goes to the best worker of its group (planner-group.ts), else it waits for
 * one that is being made (planner-provision.ts), else others make room for it (preemption.ts), else
 * somebody is told why not (explain-nowhere.ts).
 *
 * Where the next job that is due is not in the input, nothing more starts: a job that was read would
 * overtake one that was not. Of the rest, only those are told off that have to wait whoever goes first.
 */

import { whyNowhere } from "./explain-nowhere.ts";
import { nextShare, stride } from "./fair-share.ts";
import { waitKey, type Plan, type PlanInput, type PlannedJob } from "./plan.ts";
import {
  keyHold,
  keyOf,
  newBoard,
  noteReason,
  promisedOn,
  queueHold,
  queueOf,
  type AtWork,
  type Board,
  type BoardQueue,
} from "./planner-board.ts";
import { bestWorker, groupOf, takeWorker, type Group } from "./planner-group.ts";
import { failsForGood, mayGetMachine, waitForMachine } from "./planner-provision.ts";
import { evictions, makeRoom, mayMakeRoom } from "./preemption.ts";

export function plan(input: PlanInput): Plan {
  const board = newBoard(input);
  evictions(board);
  for (const jobs of byPriority(input.jobs)) planLevel(board, jobs);
  const { plan: made } = board;
  for (const { pool, jobIds } of board.pools) {
    if (jobIds.length > 0) made.provision.push({ pool: pool.name, count: jobIds.length, jobIds });
  }
  for (const { name, pass } of board.queues.values()) made.passes.set(name, pass);
  for (const [key, reason] of board.reasonsOfLimits) noteReason(board, key, reason);
  return { ...made, promised: promisedOn(board) };
}

function byPriority(jobs: readonly PlannedJob[]): PlannedJob[][] {
  const levels = new Map<number, PlannedJob[]>();
  for (const job of jobs) {
    const level = levels.get(job.priority);
    if (level) level.push(job);
    else levels.set(job.priority, [job]);
  }
  return [...levels].toSorted(([left], [right]) => right - left).map(([, level]) => level);
}

/** Where one queue goes on in its jobs of one priority. */
interface Lane {
  queue: BoardQueue;
  jobs: PlannedJob[];
  next: number;
  name: string;
  weight: number;
  pass: number;
}

/** Jobs of one priority. */
function planLevel(board: Board, jobs: readonly PlannedJob[]): void {
  const lanes = new Map<BoardQueue, Lane>();
  for (const job of jobs) {
    const queue = queueOf(board, job);
    const lane = lanes.get(queue);
    if (lane) lane.jobs.push(job);
    else lanes.set(queue, { ...queue, queue, jobs: [job], next: 0 });
  }
  for (let lane = nextShare(lanes.values()); lane; lane = nextShare(lanes.values())) {
    const goesOn = !board.isOver && startNext(board, lane);
    if (board.isOver) tellOff(board, lane);
    if (!goesOn) lanes.delete(lane.queue);
  }
}

/** Goes on in a queue until one of its jobs starts; false if none is left that could. */
function startNext(board: Board, lane: Lane): boolean {
  const { queue, jobs } = lane;
  while (lane.next < jobs.length) {
    const hold = queueHold(queue);
    if (hold !== null) {
      noteReason(board, waitKey.queue(queue.name), hold);
      return false;
    }
    const job = jobs[lane.next];
    lane.next += 1;
    queue.unseen -= 1;
    if (!job || !planJob(board, job, queue)) continue;
    queue.pass += stride(queue);
    lane.pass = queue.pass;
    return true;
  }
  const isFull = queue.maxRunning !== null && queue.running + queue.expected >= queue.maxRunning;
  board.isOver = queue.hasMore && queue.unseen === 0 && !isFull;
  return false;
}

/** Goes on in a queue until one of its jobs might start. */
function tellOff(board: Board, lane: Lane): void {
  const { queue, jobs } = lane;
  const hold = queueHold(queue);
  if (hold !== null) return noteReason(board, waitKey.queue(queue.name), hold);
  for (; lane.next < jobs.length; lane.next += 1) {
    const job = jobs[lane.next];
    if (!job || mustWait(board, job)) continue;
    board.plan.isCutOff = true;
    return;
  }
}

/** Says why the job waits, if it does so whatever other jobs take. */
function mustWait(board: Board, job: PlannedJob): boolean {
  if (isHeldByKey(board, job)) return true;
  const group = groupOf(board, job);
  if (group.isClosed) return true;
  if (bestWorker(board, group) || mayGetMachine(group) || mayMakeRoom(board, job, group)) return false;
  noteReason(board, waitKey.placement(job), whyNowhere(board, group), { impossible: isImpossible(group) });
  return true;
}

function isImpossible(group: Group): boolean {
  return group.candidateCount === 0 && group.pools.length === 0;
}

/** True if the job is given to a worker. */
function planJob(board: Board, job: PlannedJob, queue: BoardQueue): boolean {
  if (isHeldByKey(board, job)) return false;
  const key = keyOf(board, job);
  const group = groupOf(board, job);
  if (start(board, job, group)) {
    queue.running += 1;
    if (key) key.running += 1;
    return true;
  }
  if (!group.isClosed) wait(board, job, { group, queue, key });
  return false;
}

/** Says so if as many jobs with its concurrency key are at work as may be. */
function isHeldByKey(board: Board, job: PlannedJob): boolean {
  const { concurrency } = job;
  const hold = concurrency && keyHold(concurrency, keyOf(board, job)?.running ?? 0);
  if (!hold) return false;
  noteReason(board, waitKey.concurrency(concurrency.key), hold);
  return true;
}

function start(board: Board, job: PlannedJob, group: Group): boolean {
  const best = bestWorker(board, group);
  if (!best) return false;
  const { worker, weight, reluctance } = best;
  const { strategy, id } = worker.worker;
  const preferred = weight === 0 ? "" : `, weight ${weight} by the job's preferences`;
  const tainted = reluctance === 0 ? "" : ", though a taint asks jobs to go elsewhere";
  const choice = group.candidateCount === 1 ? "the only worker that fits" : CHOICES[strategy];
  board.plan.assign.push({ jobId: job.id, workerId: id, reason: `${choice}${preferred}${tainted}` });
  takeWorker(board, worker, job);
  return true;
}

const CHOICES = {
  least_loaded: "the least loaded worker that fits",
  best_fit: "the worker that is left with the least room",
  round_robin: "the worker that got no job for the longest time",
} as const;

/** Finds out what the job waits for, and does something about it if that is possible. */
function wait(
  board: Board,
  job: PlannedJob,
  { group, queue, key }: { group: Group; queue: BoardQueue; key: AtWork | null },
): void {
  const reasonKey = waitKey.placement(job);
  if (isImpossible(group)) {
    noteReason(board, reasonKey, whyNowhere(board, group), { impossible: true });
    group.isClosed = true;
    return;
  }
  const ahead = othersAhead(job, { queue, key });
  if (ahead !== null) {
    board.reasonsOfLimits.set(reasonKey, board.reasonsOfLimits.get(reasonKey) ?? ahead);
    return;
  }
  const made = waitForMachine(group, job) ?? makeRoom(board, job, group);
  if (made !== null) {
    noteReason(board, reasonKey, made);
    queue.expected += 1;
    if (key) key.expected += 1;
    return;
  }
  const message = failsForGood(group, job);
  if (message !== null) {
    board.plan.fail.push({ jobId: job.id, message });
    return;
  }
  noteReason(board, reasonKey, whyNowhere(board, group));
  // Whether a pool that failed for good is tried again depends on when the job came.
  group.isClosed = group.pools.every(({ state }) => state.pool.permanentProblem === null);
}

/** Says so if those that workers are made for, or others make room for, are all that may start. */
function othersAhead(
  { concurrency }: PlannedJob,
  { queue, key }: { queue: BoardQueue; key: AtWork | null },
): string | null {
  if (queue.maxRunning !== null && queue.running + queue.expected >= queue.maxRunning) {
    return `jobs of queue ${queue.name} that go first are about to start, and it may have ${queue.maxRunning} at work`;
  }
  if (concurrency && key && key.running + key.expected >= concurrency.limit) {
    return `jobs with the concurrency key ${concurrency.key} that go first are about to start, and ${concurrency.limit} may be at work`;
  }
  return null;
}
