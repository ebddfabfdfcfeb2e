/** Scheduling for the API: what there is, and what people change by hand. */

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { PlannedJob } from "../../core/plan.ts";
import type { Worker } from "../../core/worker.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { whyNotByHand } from "./assign-by-hand.ts";
import { assignJob } from "./assign-job.ts";
import type { HandAssignment, SchedulerView } from "./scheduler-view.ts";
import type { SchedulingState } from "./scheduling-state.ts";

export interface SchedulerViewDependencies {
  store: Pick<Store, "applyInput" | "changeWorker">;
  scheduling: SchedulingState;
  connections: Pick<WorkerConnections, "assign">;
  clock: Clock;
  random: Random;
  onJobChanged(job: Job): void;
  /** Jobs may start now that could not before. */
  onRoom(): void;
}

export function createSchedulerView(deps: SchedulerViewDependencies): SchedulerView {
  const { scheduling, onRoom } = deps;
  return {
    snapshot: (queues) => scheduling.snapshot(queues),
    queues: (also) => scheduling.queues.states(also),
    async configureQueues(change) {
      await scheduling.queues.configure(change);
      onRoom();
    },
    latestDecision: (jobId) => scheduling.decisions.latest(jobId),
    onDecision: (listener) => scheduling.decisions.subscribe(listener),
    assignByHand(job, worker) {
      // Whoever asked waits for the answer, however long the store takes.
      const { signal } = new AbortController();
      return scheduling.inTurn(signal, () => assignByHand({ job, worker }, { ...deps, signal }));
    },
  };
}

async function assignByHand(
  { job, worker }: { job: PlannedJob; worker: Pick<Worker, "id" | "state"> },
  deps: SchedulerViewDependencies & { signal: AbortSignal },
): Promise<HandAssignment> {
  const { scheduling, clock } = deps;
  const refusal = whyNotByHand(job, worker, scheduling.snapshot([job.queue]));
  if (refusal !== null) return { refusal };
  const names = { jobId: job.id, workerId: worker.id };
  const assigned = await assignJob(names, deps).catch((error: unknown) => {
    scheduling.noteDoubt();
    throw error;
  });
  if (assigned === null || assigned.attemptId === null)
    return { refusal: "the job or the worker takes none any more" };
  scheduling.queues.noteStart(job.queue);
  const decision = { kind: "assigned", reason: "by hand", pool: null } as const;
  scheduling.decisions.add({ ...decision, ...names, queue: job.queue, atMs: clock.nowMs() });
  return { attemptId: assigned.attemptId };
}
