/** Whether a person may give a waiting job to a worker of their choice. */

import { explainJob } from "../../core/explain.ts";
import type { PlannedJob } from "../../core/plan.ts";
import { keyHold } from "../../core/planner-board.ts";
import type { Worker } from "../../core/worker.ts";
import type { SchedulingSnapshot } from "./scheduler-view.ts";

/** Why the worker cannot take the job now, for people, or null. Shares, limits and pauses of queues do not count. */
export function whyNotByHand(
  job: PlannedJob,
  worker: Pick<Worker, "id" | "state">,
  snapshot: SchedulingSnapshot,
): string | null {
  const { concurrency } = job;
  const hold = concurrency && keyHold(concurrency, snapshot.concurrency.get(concurrency.key) ?? 0);
  if (hold !== null) return hold;
  const verdict = explainJob(job, snapshot).workers.find(({ workerId }) => workerId === worker.id);
  if (!verdict) return `the worker is ${worker.state} and takes no jobs`;
  return verdict.fits ? null : verdict.blockers.map(({ message }) => message).join("; ");
}
