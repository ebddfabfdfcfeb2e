/**
 * Gives waiting jobs to connected workers and says how many workers are missing.
 *
 * One round reads pages of waiting jobs, plans, and carries the plan out. Jobs that fit nowhere now
 * are left out of the next page by their placement key, so that a thousand of them in front never
 * hide the one that fits. Idempotent: a round that dies in the middle is repeated by the next.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { uuidV7, type Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import { plan, type Plan, type PlannedPool } from "../../core/planner.ts";
import type { PendingJob, Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

export interface SchedulingDependencies {
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  random: Random;
  log: Logger;
  provisioner: {
    /** Where workers can be made, as of now. */
    plannedPools(): PlannedPool[];
    /** Asks for new workers. */
    provision(wanted: Plan["provision"]): void;
  };
  onJobChanged(job: Job): void;
}

const PAGE_JOBS = 500;
/** Pages in one round; the next round goes on. */
const MAX_PAGES = 20;

/** One round. True if another one should follow at once. */
export async function scheduleRound(deps: SchedulingDependencies, signal: AbortSignal): Promise<boolean> {
  const withoutKeys = new Set<string>();
  const reasons = new Map<string, string>();
  let assignedAny = false;
  for (let page = 0; page < MAX_PAGES && !signal.aborted; page += 1) {
    const jobs = await deps.store.listPending({
      limit: PAGE_JOBS,
      nowMs: deps.clock.nowMs(),
      withoutKeys: [...withoutKeys],
    });
    if (jobs.length === 0) break;
    const decided = plan({ jobs, workers: deps.connections.schedulable(), pools: deps.provisioner.plannedPools() });
    await assign(decided.assign, jobs, deps);
    assignedAny ||= decided.assign.length > 0;
    if (decided.provision.length > 0) deps.provisioner.provision(decided.provision);
    for (const [key, reason] of decided.reasons) {
      reasons.set(key, reason.message);
      withoutKeys.add(key);
    }
    if (jobs.length < PAGE_JOBS) break;
  }
  if (reasons.size > 0) await deps.store.setWaitReasons(reasons);
  return assignedAny;
}

/** Concurrent calls, so that the store writes them as one group. */
async function assign(
  assignments: Plan["assign"],
  jobs: readonly PendingJob[],
  deps: SchedulingDependencies,
): Promise<void> {
  if (assignments.length === 0) return;
  const known = new Set(jobs.map(({ id }) => id));
  await Promise.all(
    assignments.filter(({ jobId }) => known.has(jobId)).map((assignment) => assignOne(assignment, deps)),
  );
}

async function assignOne(
  { jobId, workerId }: { jobId: string; workerId: string },
  deps: SchedulingDependencies,
): Promise<void> {
  const { store, clock, random, connections } = deps;
  // A worker that loses its stream meanwhile finds the attempt in its next welcome.
  await connections.assign(workerId, async () => {
    const attemptId = uuidV7(clock, random);
    const nowMs = clock.nowMs();
    const applied = await store.applyInput({ jobId, input: { type: "assign", attemptId, workerId }, nowMs });
    if (!applied.ok) return null;
    deps.onJobChanged(applied.job);
    return { attemptId, attemptNumber: applied.job.attemptCount, job: applied.job, logDurable: 0 };
  });
}
