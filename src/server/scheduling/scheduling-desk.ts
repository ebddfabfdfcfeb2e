/** Scheduling for the API: what there is, and what people change by hand. */

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { assignJob } from "./assign-job.ts";
import type { SchedulerView } from "./scheduler-view.ts";
import type { SchedulingState } from "./scheduling-state.ts";

export interface SchedulerViewDependencies {
  store: Pick<Store, "applyInput">;
  scheduling: SchedulingState;
  connections: Pick<WorkerConnections, "assign">;
  clock: Clock;
  random: Random;
  onJobChanged(job: Job): void;
  /** Jobs may start now that could not before. */
  onRoom(): void;
}

export function createSchedulerView(deps: SchedulerViewDependencies): SchedulerView {
  const { scheduling, clock, onRoom } = deps;
  return {
    snapshot: (queues) => scheduling.snapshot(queues),
    queues: (also) => scheduling.queues.states(also),
    async configureQueues(change) {
      await scheduling.queues.configure(change);
      onRoom();
    },
    latestDecision: (jobId) => scheduling.decisions.latest(jobId),
    onDecision: (listener) => scheduling.decisions.subscribe(listener),
    async assignByHand(jobId, workerId) {
      // Whoever asked waits for the answer, however long the store takes.
      const { signal } = new AbortController();
      const job = await assignJob({ jobId, workerId }, { ...deps, signal }).catch((error: unknown) => {
        scheduling.noteDoubt();
        throw error;
      });
      if (job === null) return null;
      const { queue } = job.definition;
      scheduling.queues.noteStart(queue);
      const decision = { kind: "assigned", reason: "by hand", pool: null } as const;
      scheduling.decisions.add({ ...decision, jobId, queue, workerId, atMs: clock.nowMs() });
      return job.attemptId;
    },
  };
}
