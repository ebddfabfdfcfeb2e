/** Jobs, workers and pools for the tests of the planner; what is not said asks for nothing and is idle. */

import { definitionWith, type Resources } from "./job.ts";
import { placementKey, placementOf, type Placement } from "./placement.ts";
import type {
  PlacedJob,
  Plan,
  PlanInput,
  PlannedJob,
  PlannedPool,
  PlannedQueue,
  PlannedWorker,
} from "./plan.ts";
import { defaultQueue } from "./pool.ts";
import type { WorkerCapacity } from "./worker.ts";

export const NO_CLAIM: Resources = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 };
export const GIB = 2 ** 30;

export const cpu = (cores: number): Resources => ({ ...NO_CLAIM, cpuMillis: cores * 1_000 });

export function capacityOf(cores: number, jobs: number): WorkerCapacity {
  return { cpuMillis: cores * 1_000, memoryBytes: 8 * GIB, diskBytes: 0, gpu: 0, jobs };
}

export function aPlacement(given: Partial<Placement> = {}): Placement {
  return placementOf(definitionWith({ name: "job", ...given }));
}

export function aJob(
  id: string,
  given: Partial<Placement> & Partial<Omit<PlannedJob, "id" | "placement" | "placementKey">> = {},
): PlannedJob {
  const { queue, priority, pendingSinceMs, concurrency, labels, ...placement } = given;
  const definition = definitionWith({ name: "job", ...placement });
  return {
    id,
    queue: queue ?? "default",
    priority: priority ?? 0,
    pendingSinceMs: pendingSinceMs ?? 0,
    placementKey: placementKey(definition),
    placement: placementOf(definition),
    concurrency: concurrency ?? null,
    labels: labels ?? {},
  };
}

/** Jobs are numbered from 0: `prefix0`, `prefix1`, …. */
export function jobs(count: number, prefix: string, given: Parameters<typeof aJob>[1] = {}): PlannedJob[] {
  return Array.from({ length: count }, (_, index) => aJob(`${prefix}${index}`, given));
}

/** Four cores and four jobs; what runs there is taken from `free`. */
export function aWorker(id: string, given: Partial<PlannedWorker> = {}): PlannedWorker {
  const capacity = given.capacity ?? capacityOf(4, 4);
  return {
    id,
    name: id,
    pool: "",
    labels: {},
    taints: [],
    capabilities: [],
    capacity,
    free: freeOf(capacity, given.running ?? []),
    strategy: "least_loaded",
    running: [],
    lastAssigned: 0,
    unavailable: null,
    ...given,
  };
}

function freeOf(capacity: WorkerCapacity, running: readonly PlacedJob[]): WorkerCapacity {
  const free = { ...capacity };
  for (const { resources } of running) {
    free.jobs -= 1;
    for (const name of ["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const)
      free[name] -= resources[name];
  }
  return free;
}

export function aPool(name: string, given: Partial<PlannedPool> = {}): PlannedPool {
  return {
    name,
    labels: {},
    taints: [],
    capabilities: [],
    capacity: capacityOf(4, 1),
    room: 4,
    arriving: 0,
    maxWorkers: 4,
    rank: 0,
    problem: null,
    permanentProblem: null,
    ...given,
  };
}

export function placed(id: string, given: Partial<PlacedJob> = {}): PlacedJob {
  const resources = given.resources ?? cpu(1);
  return {
    jobId: id,
    attemptId: `${id}-a`,
    priority: 0,
    resources,
    labels: {},
    preemptible: false,
    placement: aPlacement({ resources }),
    isLeaving: false,
    ...given,
  };
}

export function aQueue(name: string, given: Partial<PlannedQueue> = {}): PlannedQueue {
  return { ...defaultQueue(name), running: 0, pass: 0, ...given };
}

export function aSnapshot(given: Partial<PlanInput> = {}): PlanInput {
  return { jobs: [], workers: [], pools: [], queues: [], concurrency: new Map(), assignments: 0, ...given };
}

/** The jobs that a plan starts, in its order. */
export function assigned({ jobs: all }: PlanInput, { assign }: Plan): PlannedJob[] {
  return assign.flatMap(({ jobId }) => all.filter(({ id }) => id === jobId));
}

export function indexOf({ assign }: Plan, { id }: PlannedJob): number {
  return assign.findIndex(({ jobId }) => jobId === id);
}

export function assignedTo(input: PlanInput, result: Plan, { id }: PlannedWorker): PlannedJob[] {
  return assigned(input, result).filter((job) => result.assign[indexOf(result, job)]?.workerId === id);
}

/** What is left on a worker with these jobs more. */
export function freeWith({ free }: PlannedWorker, more: readonly PlannedJob[]): WorkerCapacity {
  return changed(
    free,
    more.map(({ placement }) => placement.resources),
    -1,
  );
}

/** What is free on a worker without these attempts. */
export function freed({ free }: PlannedWorker, ended: readonly PlacedJob[]): WorkerCapacity {
  return changed(
    free,
    ended.map(({ resources }) => resources),
    1,
  );
}

function changed(free: WorkerCapacity, claims: readonly Resources[], times: number): WorkerCapacity {
  const left = { ...free };
  for (const claim of claims) {
    left.jobs += times;
    for (const name of ["cpuMillis", "memoryBytes", "diskBytes", "gpu"] as const)
      left[name] += times * claim[name];
  }
  return left;
}
