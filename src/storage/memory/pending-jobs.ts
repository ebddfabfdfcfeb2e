/** Which waiting jobs the memory store lists, and why it says that they wait. */

import type { Job } from "../../core/job.ts";
import { placementOf } from "../../core/placement.ts";
import { waitKey } from "../../core/plan.ts";
import { compareText, inPendingOrder } from "../store-rules.ts";
import type { PendingJob, PendingQuery, QueueBacklog } from "../store.ts";

/** Of each queue the first ones that are not left out. */
export function firstPending(jobs: readonly PendingJob[], query: PendingQuery): PendingJob[] {
  const counts = new Map<string, number>();
  const wanted = jobs.filter(isWanted(query));
  return inPendingOrder(wanted).filter(({ queue }) => {
    const count = (counts.get(queue) ?? 0) + 1;
    counts.set(queue, count);
    return count <= query.perQueue;
  });
}

function isWanted(query: PendingQuery): (job: PendingJob) => boolean {
  const keys = new Set(query.withoutKeys);
  const queues = new Set(query.withoutQueues);
  const concurrencyKeys = new Set(query.withoutConcurrencyKeys);
  return ({ placementKey, queue, concurrency }) =>
    !keys.has(placementKey) &&
    !queues.has(queue) &&
    (concurrency === null || !concurrencyKeys.has(concurrency.key));
}

export function pendingJob({ id, definition, placementKey, pendingSinceMs }: Job): PendingJob {
  return {
    id,
    queue: definition.queue,
    priority: definition.priority,
    pendingSinceMs,
    placementKey,
    placement: placementOf(definition),
    concurrency: definition.concurrency,
  };
}

export function backlogsOf(jobs: readonly PendingJob[]): QueueBacklog[] {
  const backlogs = new Map<string, QueueBacklog>();
  for (const { queue, pendingSinceMs } of jobs) {
    const { pending = 0, oldestPendingSinceMs = pendingSinceMs } = backlogs.get(queue) ?? {};
    backlogs.set(queue, {
      queue,
      pending: pending + 1,
      oldestPendingSinceMs: Math.min(oldestPendingSinceMs, pendingSinceMs),
    });
  }
  return [...backlogs.values()].toSorted((a, b) => compareText(a.queue, b.queue));
}

/** That of its queue, else that of its concurrency key, else that of its placement key. */
export function waitReasonOf(job: PendingJob, reasons: ReadonlyMap<string, string>): string | null {
  const { queue, concurrency } = job;
  const ofConcurrency = concurrency === null ? undefined : reasons.get(waitKey.concurrency(concurrency.key));
  return reasons.get(waitKey.queue(queue)) ?? ofConcurrency ?? reasons.get(waitKey.placement(job)) ?? null;
}
