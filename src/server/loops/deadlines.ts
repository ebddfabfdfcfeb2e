/** Acts on jobs whose state has outlived its deadline, so that none stays in one for ever. */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { JobInput } from "../../core/job-change.ts";
import type { Job } from "../../core/job.ts";
import { UNREACHABLE_AFTER_MS } from "../../core/lease.ts";
import type { DueJob, Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

export interface DeadlineDependencies {
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  log: Logger;
  onJobChanged(job: Job): void;
}

const PAGE_JOBS = 500;

export async function deadlineRound(deps: DeadlineDependencies): Promise<void> {
  const nowMs = deps.clock.nowMs();
  const due = await deps.store.listDue({ nowMs, limit: PAGE_JOBS });
  // After a start, workers first get the time to come back with what they could not say meanwhile.
  const isEarly = nowMs - deps.connections.listeningSinceMs(nowMs) < UNREACHABLE_AFTER_MS;
  const acted = due.filter(({ state }) => !isEarly || state === "pending");
  await Promise.all(acted.map((job) => actOn(job, nowMs, deps)));
}

async function actOn(due: DueJob, nowMs: number, deps: DeadlineDependencies): Promise<void> {
  const input = await inputFor(due, nowMs, deps);
  if (input === null) return;
  const applied = await deps.store.applyInput({ jobId: due.jobId, input, nowMs });
  if (!applied.ok) return;
  deps.log.info({ jobId: due.jobId, state: due.state, input: input.type }, "deadline passed");
  deps.onJobChanged(applied.job);
  if (due.workerId === null || due.attemptId === null) return;
  const target = { workerId: due.workerId, attemptId: due.attemptId };
  if (input.type === "cancel") deps.connections.control(target, "cancel");
  if (input.type === "lose") deps.connections.control(target, "kill");
}

async function inputFor(due: DueJob, nowMs: number, deps: DeadlineDependencies): Promise<JobInput | null> {
  const { attemptId } = due;
  if (due.state === "pending") {
    return {
      type: "reject",
      cause: "queue_timeout",
      message: "no worker was free within the queue time-out",
    };
  }
  if (attemptId === null) return null;
  switch (due.state) {
    case "scheduled":
      // It may run all the same, so it is not given to another worker before its lease is over.
      return { type: "disconnect", attemptId, heardAtMs: await heardAtMs(due, nowMs, deps) };
    case "running":
      return { type: "cancel", reason: "the worker did not keep the time-out" };
    case "paused":
      return { type: "cancel", reason: "paused for too long" };
    case "unreachable":
      return {
        type: "lose",
        attemptId,
        cause: "worker_lost",
        message: "no heartbeat from the worker until the end of the lease",
      };
    case "cancelling":
      await markBroken(due, deps);
      return {
        type: "lose",
        attemptId,
        cause: "worker_lost",
        message: "the worker could not confirm that the processes are gone",
      };
    default:
      return null;
  }
}

async function heardAtMs(due: DueJob, nowMs: number, deps: DeadlineDependencies): Promise<number> {
  const worker = due.workerId === null ? null : await deps.store.getWorker(due.workerId);
  return worker?.lastHeartbeatAtMs ?? nowMs;
}

/** A worker that cannot end a process must not be trusted with the next job. */
async function markBroken(due: DueJob, deps: DeadlineDependencies): Promise<void> {
  if (due.workerId === null) return;
  const message = `could not end the processes of job ${due.jobId}`;
  deps.log.error({ workerId: due.workerId, jobId: due.jobId }, "worker is broken");
  await deps.store.changeWorker({ workerId: due.workerId, state: "broken", message });
  deps.connections.get(due.workerId)?.drain(message);
}
