/** How long the planner takes for a large cluster. */

import { definitionWith, type Job } from "../../src/core/job.ts";
import { placementKey, placementOf } from "../../src/core/placement.ts";
import type { PlanInput, PlannedJob, PlannedWorker } from "../../src/core/plan.ts";
import { plan } from "../../src/core/planner.ts";
import { PLACEMENT_STRATEGIES } from "../../src/core/pool.ts";
import { durationMs, medianOf, type BenchRow } from "../bench-row.ts";

const JOBS = 100_000;
const WORKERS = 2_000;
const SLOTS = 4;
/** Kinds of jobs that differ in where they may run. */
const KINDS = 200;
const QUEUES = 10;
const GIB = 2 ** 30;

/**
 * All workers are idle, so 8,000 jobs are placed one by one, and all others are told why they wait.
 *
 * Profiled: about a third is memory (the garbage of 400,000 candidates, and reading 100,000 jobs that
 * lie scattered), then come the heaps, in which each of the 200 groups takes note of each placement of
 * the others. Matching of labels does not show: it is done once for each kind of job and of worker.
 */
export const plannerRound: BenchRow = {
  name: "planner, 100,000 jobs × 2,000 workers",
  target: "≤ 0.5 s",
  rawName: "sorting the jobs, and one pass over them",
  async run() {
    const input = largeInput();
    const raw = await medianOf(5, () => seconds(() => sortAndPass(input.jobs)));
    let assigned = 0;
    const value = await medianOf(5, () =>
      seconds(() => {
        assigned = plan(input).assign.length;
      }),
    );
    if (assigned !== WORKERS * SLOTS) throw new Error(`planned ${assigned} jobs of ${WORKERS * SLOTS}`);
    return { value, raw, unit: "s" };
  },
};

async function seconds(run: () => void): Promise<number> {
  return (await durationMs(async () => run())) / 1_000;
}

function sortAndPass(jobs: readonly PlannedJob[]): number {
  let claimed = 0;
  const sorted = jobs.toSorted(
    (left, right) => right.priority - left.priority || left.pendingSinceMs - right.pendingSinceMs,
  );
  for (const { placement } of sorted) claimed += placement.resources.cpuMillis;
  return claimed;
}

function largeInput(): PlanInput {
  return {
    jobs: Array.from({ length: JOBS }, (_, index) => aJob(index)),
    workers: Array.from({ length: WORKERS }, (_, index) => aWorker(index)),
    pools: [],
    queues: Array.from({ length: QUEUES }, (_, index) => {
      const name = `q-${index}`;
      return {
        name,
        weight: 1 + index,
        maxRunning: null,
        maxPending: null,
        paused: false,
        running: 0,
        pass: 0,
      };
    }),
    concurrency: new Map(),
    assignments: 0,
  };
}

function aJob(index: number): PlannedJob {
  const kind = index % KINDS;
  const definition = definitionWith({
    name: "bench",
    resources: { cpuMillis: 500 + 10 * (kind % 20), memoryBytes: GIB, diskBytes: 0, gpu: 0 },
    selector: { os: "linux", ...(kind % 3 === 0 ? { zone: `z-${kind % 4}` } : {}) },
    selectorExpressions: [{ key: "cores", operator: "gt", values: [String(kind % 4)] }],
  });
  const placement = placementOf(definition);
  const job: Pick<Job, "id" | "pendingSinceMs"> = { id: `j-${index}`, pendingSinceMs: index };
  return {
    ...job,
    queue: `q-${index % QUEUES}`,
    priority: (index * 7) % 3,
    placementKey: placementKey(definition),
    placement,
    concurrency: null,
  };
}

function aWorker(index: number): PlannedWorker {
  const capacity = { jobs: SLOTS, cpuMillis: 4_000, memoryBytes: 8 * GIB, diskBytes: 0, gpu: 0 };
  return {
    id: `w-${String(index).padStart(4, "0")}`,
    name: `w-${index}`,
    pool: `p-${index % 4}`,
    labels: { os: "linux", zone: `z-${index % 4}`, cores: "4", pool: `p-${index % 4}` },
    taints: [],
    capabilities: ["pause"],
    capacity,
    free: { ...capacity },
    strategy: PLACEMENT_STRATEGIES[index % 3] ?? "least_loaded",
    running: [],
    lastAssigned: 0,
    unavailable: null,
  };
}
