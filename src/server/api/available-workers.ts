/** The workers that take jobs now, with what is free on them. */

import { create } from "@bufbuild/protobuf";
import type { PlannedWorker } from "../../core/plan.ts";
import { plan } from "../../core/planner.ts";
import type { Worker } from "../../core/worker.ts";
import { capacityToWire, workerToWire } from "../../protocol/convert-worker.ts";
import { AvailableWorkerSchema, type AvailableWorker } from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import type { Store } from "../../storage/store.ts";
import { findJob } from "./find-by-id.ts";
import { explain, plannedJob, type JobDecisionDependencies } from "./job-decision.ts";

/** By name; with a job only those on which it could start now, the one that it would get first. */
export async function availableWorkers(
  deps: JobDecisionDependencies,
  jobId: string,
): Promise<AvailableWorker[]> {
  const chosen = jobId === "" ? workersWithRoom(deps) : await fittingWorkers(deps, jobId);
  if (chosen.length === 0) return [];
  const stored = await storedWorkers(deps.store);
  return chosen.flatMap((worker) => {
    const known = stored.get(worker.id);
    // It has just gone.
    if (!known) return [];
    const attemptIds = worker.running.map(({ attemptId }) => attemptId);
    const info = known.info && { ...known.info, labels: worker.labels };
    return create(AvailableWorkerSchema, {
      worker: workerToWire({ ...known, info }, attemptIds),
      free: capacityToWire(worker.free),
    });
  });
}

function workersWithRoom({ scheduler }: JobDecisionDependencies): PlannedWorker[] {
  return scheduler
    .snapshot([])
    .workers.filter(({ unavailable, free }) => unavailable === null && free.jobs > 0)
    .toSorted((a, b) => compare(a.name, b.name) || compare(a.id, b.id));
}

async function fittingWorkers(deps: JobDecisionDependencies, idOrPrefix: string): Promise<PlannedWorker[]> {
  const job = plannedJob(await findJob(deps.store, idOrPrefix));
  const snapshot = deps.scheduler.snapshot([job.queue]);
  const byId = new Map(snapshot.workers.map((worker) => [worker.id, worker]));
  const fitting = explain(deps, job).workers.filter(({ fits }) => fits);
  const [assigned] = plan({ ...snapshot, jobs: [job] }).assign;
  const ids = new Set([...(assigned ? [assigned.workerId] : []), ...fitting.map(({ workerId }) => workerId)]);
  return [...ids].flatMap((id) => byId.get(id) ?? []);
}

async function storedWorkers(store: Store): Promise<Map<string, Worker>> {
  const workers = new Map<string, Worker>();
  for await (const worker of everyWorker(store)) workers.set(worker.id, worker);
  return workers;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
