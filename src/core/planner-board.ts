/**
 * What the planner works on: copies of what is free, the groups of alike jobs, and the plan that grows.
 * The input itself is never changed.
 */

import type { NamedPlace } from "./explain-impossible.ts";
import { withoutHoarding } from "./fair-share.ts";
import type { ConcurrencyLimit, Resources } from "./job.ts";
import type {
  Plan,
  PlanInput,
  PlannedJob,
  PlannedPool,
  PlannedQueue,
  PlannedWorker,
  Promised,
} from "./plan.ts";
import type { Group } from "./planner-group.ts";
import { addKind, newWorkerKinds, type WorkerKinds } from "./planner-match.ts";
import { defaultQueue } from "./pool.ts";
import type { WorkerCapacity } from "./worker.ts";

export interface Board {
  /** By id, so that the lower index is the lower id. */
  workers: BoardWorker[];
  /** `kind` of a worker is an index in them. */
  kinds: WorkerKinds;
  /** Workers that take jobs and had room for one when somebody looked last, by kind. */
  open: BoardWorker[][];
  /** How many workers there are, by kind. */
  counts: number[];
  /** The least priority of an attempt that may be ended for another job; Infinity if there is none. */
  leastPreemptible: number;
  /** Workers whose room or jobs have changed, oldest first. */
  changes: BoardWorker[];
  pools: BoardPool[];
  queues: Map<string, BoardQueue>;
  /** By concurrency key. */
  keys: Map<string, AtWork>;
  groups: Map<string, Group>;
  /** Of all kinds of workers and all pools; null until somebody has to be told that none will do. */
  places: readonly NamedPlace[] | null;
  /** By wait key, of jobs behind others of a limited queue; alike jobs of other queues know better. */
  reasonsOfLimits: Map<string, string>;
  assignments: number;
  /** Greater than `lastAssigned` of any worker before this plan. */
  firstAssignment: number;
  /** The next job that is due is not in the input: nothing starts any more. */
  isOver: boolean;
  /** Room on workers that nobody else may be given, see `Promised`. */
  kept: { workerId: string; resources: Resources }[];
  plan: Omit<Plan, "promised">;
}

export interface BoardWorker {
  index: number;
  kind: number;
  worker: PlannedWorker;
  free: WorkerCapacity;
  /** What attempts that are being ended still take. */
  leaving: WorkerCapacity;
  /** Attempts that are being ended, also by this plan. */
  leavingIds: Set<string>;
  /** Labels of the jobs that stay. */
  jobLabels: Record<string, string>[];
  lastAssigned: number;
  /** Grows with each change. */
  version: number;
}

export interface BoardPool {
  pool: PlannedPool;
  room: number;
  /** What is free on each worker that is on its way, then on those that this plan makes. */
  machines: WorkerCapacity[];
  /** On which of them jobs of a group are booked, one entry for each job. */
  booked: Map<Group, WorkerCapacity[]>;
  /** The jobs that workers are made for, one each. */
  jobIds: string[];
}

/** Jobs at work, those that this plan starts, and those that will start on what it makes room for. */
export interface AtWork {
  running: number;
  expected: number;
}

export interface BoardQueue extends AtWork {
  name: string;
  weight: number;
  pass: number;
  maxRunning: number | null;
  paused: boolean;
  /** Jobs of the input that nobody has looked at yet. */
  unseen: number;
  /** There are others behind them. */
  hasMore: boolean;
}

export function newBoard(input: PlanInput): Board {
  const kinds = new Map<string, number>();
  const board: Board = {
    workers: [],
    kinds: newWorkerKinds(),
    open: [],
    counts: [],
    leastPreemptible: Infinity,
    changes: [],
    pools: input.pools.map((pool) => newPool(pool, input.promised)),
    queues: newQueues(input),
    keys: new Map(),
    groups: new Map(),
    places: null,
    reasonsOfLimits: new Map(),
    assignments: input.assignments,
    firstAssignment: input.assignments + 1,
    isOver: false,
    kept: [...(input.promised?.kept ?? [])],
    plan: {
      assign: [],
      provision: [],
      preempt: [],
      fail: [],
      evict: [],
      reasons: new Map(),
      passes: new Map(),
      isCutOff: false,
    },
  };
  for (const [key, running] of input.concurrency) board.keys.set(key, { running, expected: 0 });
  for (const [key, expected] of input.promised?.byConcurrencyKey ?? [])
    board.keys.set(key, { running: board.keys.get(key)?.running ?? 0, expected });
  for (const worker of input.workers.toSorted((left, right) => (left.id < right.id ? -1 : 1))) {
    const kind = kindOf(worker, kinds);
    if (kind === board.kinds.all.length) addKind(board.kinds, worker);
    const made = newWorker(worker, { kind, index: board.workers.length });
    board.workers.push(made);
    board.counts[kind] = (board.counts[kind] ?? 0) + 1;
    for (const { preemptible, priority } of worker.running) {
      if (preemptible) board.leastPreemptible = Math.min(board.leastPreemptible, priority);
    }
    const open = (board.open[kind] ??= []);
    if (worker.unavailable === null) open.push(made);
  }
  withoutKept(board);
  return board;
}

function withoutKept({ workers, kept }: Board): void {
  if (kept.length === 0) return;
  const byId = new Map(workers.map((worker) => [worker.worker.id, worker]));
  for (const { workerId, resources } of kept) {
    const worker = byId.get(workerId);
    if (worker) add(worker.free, resources, -1);
  }
}

export function promisedOn({ kept, pools, queues, keys }: Board): Promised {
  const byQueue = new Map<string, number>();
  for (const { name, expected } of queues.values()) if (expected > 0) byQueue.set(name, expected);
  const byConcurrencyKey = new Map<string, number>();
  for (const [key, { expected }] of keys) if (expected > 0) byConcurrencyKey.set(key, expected);
  const machines = new Map(pools.map((state) => [state.pool.name, state.machines]));
  return { kept, machines, byQueue, byConcurrencyKey };
}

/** Workers of one kind take the same jobs when they are empty: a pool of a thousand is matched once. */
function kindOf(worker: PlannedWorker, kinds: Map<string, number>): number {
  const { labels, taints, capabilities, capacity } = worker;
  const signature = JSON.stringify([labels, taints, capabilities, capacity]);
  const kind = kinds.get(signature) ?? kinds.size;
  kinds.set(signature, kind);
  return kind;
}

function newWorker(worker: PlannedWorker, { kind, index }: { kind: number; index: number }): BoardWorker {
  const made: BoardWorker = {
    index,
    kind,
    worker,
    free: { ...worker.free },
    leaving: { jobs: 0, cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 },
    leavingIds: new Set(),
    jobLabels: [],
    lastAssigned: worker.lastAssigned,
    version: 0,
  };
  for (const placed of worker.running) {
    if (placed.isLeaving) noteLeaving(made, placed);
    else made.jobLabels.push(placed.labels);
  }
  return made;
}

function newPool(pool: PlannedPool, promised: PlanInput["promised"]): BoardPool {
  const left = promised?.machines.get(pool.name) ?? [];
  const machines = Array.from({ length: pool.arriving }, (_, index) => ({
    ...(left[index] ?? pool.capacity),
  }));
  return { pool, room: pool.room, machines, booked: new Map(), jobIds: [] };
}

/** Every queue of the input and of its jobs; those that may start a job go on without hoarded shares. */
function newQueues({ jobs, queues, queuesWithMore, promised }: PlanInput): Map<string, BoardQueue> {
  const made = new Map<string, BoardQueue>();
  const newQueue = (queue: PlannedQueue): BoardQueue => ({
    ...queue,
    expected: promised?.byQueue.get(queue.name) ?? 0,
    unseen: 0,
    hasMore: queuesWithMore?.has(queue.name) ?? false,
  });
  for (const queue of queues) made.set(queue.name, newQueue(queue));
  const waiting = new Set<BoardQueue>();
  for (const { queue: name } of jobs) {
    const queue = made.get(name) ?? newQueue({ ...defaultQueue(name), running: 0, pass: 0 });
    made.set(name, queue);
    queue.unseen += 1;
    if (queueHold(queue) === null) waiting.add(queue);
  }
  for (const { name, pass } of withoutHoarding([...waiting])) {
    const queue = made.get(name);
    if (queue) queue.pass = pass;
  }
  return made;
}

/** Why no job of the queue starts, or null. */
export function queueHold({ name, paused, maxRunning, running }: BoardQueue): string | null {
  if (paused) return `queue ${name} is paused`;
  if (maxRunning === null || running < maxRunning) return null;
  return `queue ${name} has ${running} ${running === 1 ? "job" : "jobs"} at work and may have ${maxRunning}`;
}

/** Why no more jobs with the concurrency key start, or null. */
export function keyHold({ key, limit }: ConcurrencyLimit, running: number): string | null {
  if (running < limit) return null;
  return `${running} ${running === 1 ? "job is" : "jobs are"} at work with the concurrency key ${key}, and ${limit} may be`;
}

export function queueOf(board: Board, job: PlannedJob): BoardQueue {
  const queue = board.queues.get(job.queue);
  if (!queue) throw new Error(`no queue ${job.queue} on the board`);
  return queue;
}

/** Null for a job without a concurrency key. */
export function keyOf(board: Board, job: PlannedJob): AtWork | null {
  if (job.concurrency === null) return null;
  const key = board.keys.get(job.concurrency.key) ?? { running: 0, expected: 0 };
  board.keys.set(job.concurrency.key, key);
  return key;
}

/** What alike jobs wait for; the first reason stays, since it is that of the job that is next. */
export function noteReason(
  board: Board,
  key: string,
  message: string,
  { impossible } = { impossible: false },
): void {
  if (!board.plan.reasons.has(key)) board.plan.reasons.set(key, { impossible, message });
}

export function noteLeaving(
  worker: BoardWorker,
  { attemptId, resources }: { attemptId: string; resources: Resources },
): void {
  worker.leavingIds.add(attemptId);
  add(worker.leaving, resources, 1);
}

/** Adds the claims of so many jobs; takes them away if `jobs` is below 0. */
export function add(room: WorkerCapacity, resources: Resources, jobs: number): void {
  room.jobs += jobs;
  room.cpuMillis += jobs * resources.cpuMillis;
  room.memoryBytes += jobs * resources.memoryBytes;
  room.diskBytes += jobs * resources.diskBytes;
  room.gpu += jobs * resources.gpu;
}

/** Says that room or jobs of the worker are not what they were, so that every group looks again. */
export function noteChange(board: Board, worker: BoardWorker): void {
  worker.version += 1;
  board.changes.push(worker);
}
