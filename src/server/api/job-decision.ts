/** What was decided on a job, or would be decided now, in the words of the scheduler. */

import type { Clock } from "../../base/clock.ts";
import { explainJob, type Explanation } from "../../core/explain.ts";
import { isFinal, type Attempt, type Job, type JobDefinition } from "../../core/job.ts";
import { placementKey, placementOf } from "../../core/placement.ts";
import type { PlannedJob } from "../../core/plan.ts";
import { plan } from "../../core/planner.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import type { Store } from "../../storage/store.ts";
import type { SchedulerView } from "../scheduling/scheduler-view.ts";

export interface JobDecisionDependencies {
  store: Store;
  clock: Clock;
  scheduler: SchedulerView;
}

/** A decision, and of a job that waits what each worker and pool is for it. */
export interface ExplainedDecision {
  decision: SchedulingDecision;
  explanation: Explanation | null;
}

/** Worked out anew for a job that waits, so it is never older than the scheduler's view of the workers. */
export async function decisionOn(deps: JobDecisionDependencies, job: Job): Promise<ExplainedDecision> {
  if (job.state !== "pending") return { decision: await pastDecision(deps, job), explanation: null };
  const explanation = explain(deps, plannedJob(job));
  const decision = waitingDecision(deps, job, explanation);
  return { decision: (await betweenAttempts(deps, job)) ?? decision, explanation };
}

/** What would be decided now if a job came with this definition. */
export function decisionWithoutQueueing(
  deps: JobDecisionDependencies,
  definition: JobDefinition,
): SchedulingDecision {
  const nowMs = deps.clock.nowMs();
  const job = { ...plannedDefinition(definition), id: "", pendingSinceMs: nowMs };
  const snapshot = deps.scheduler.snapshot([job.queue]);
  const { kind, reason, heldBy, pools } = explainJob(job, snapshot);
  const decision = { jobId: "", queue: definition.queue, reason, atMs: nowMs, workerId: null, pool: null };
  // Which of those that fit it would get is the choice of the plan, and not of the explanation.
  const { assign, provision } = plan({ ...snapshot, jobs: [job] });
  if (kind === "assigned") return { ...decision, kind, workerId: assign[0]?.workerId ?? null };
  const made = provision[0]?.pool;
  if (made !== undefined)
    return { ...decision, kind: "provisioning", pool: made, reason: `pool ${made} would make a worker` };
  const arriving = heldBy === "" ? pools.find(({ fits }) => fits) : undefined;
  if (arriving) return { ...decision, kind: "provisioning", pool: arriving.name };
  return { ...decision, kind };
}

export function explain({ scheduler }: JobDecisionDependencies, job: PlannedJob): Explanation {
  return explainJob(job, scheduler.snapshot([job.queue]));
}

export function plannedJob(job: Job): PlannedJob {
  const { id, pendingSinceMs } = job;
  return { ...plannedDefinition(job.definition), id, pendingSinceMs, placementKey: job.placementKey };
}

function plannedDefinition(definition: JobDefinition): Omit<PlannedJob, "id" | "pendingSinceMs"> {
  const { queue, priority, concurrency } = definition;
  const placement = placementOf(definition);
  return { queue, priority, concurrency, placement, placementKey: placementKey(definition) };
}

/**
 * That workers are made or others make room is known to the scheduler alone; why it still waits is
 * said as of now. A job that would fit now waits for the next round only.
 */
function waitingDecision(
  { scheduler, clock }: JobDecisionDependencies,
  job: Job,
  explanation: Explanation,
): SchedulingDecision {
  const decision: SchedulingDecision = {
    jobId: job.id,
    queue: job.definition.queue,
    kind: "waiting",
    reason: explanation.reason,
    atMs: clock.nowMs(),
    workerId: null,
    pool: null,
  };
  if (explanation.kind === "impossible") return { ...decision, kind: "impossible" };
  if (explanation.kind === "assigned") {
    const name = explanation.workers.find(({ fits }) => fits)?.name ?? "";
    return { ...decision, reason: `it fits on worker ${name} now, and starts when its turn comes` };
  }
  const latest = scheduler.latestDecision(job.id);
  if (latest?.kind !== "provisioning" && latest?.kind !== "preempting") return decision;
  const { kind, workerId, pool } = latest;
  return { ...decision, kind, workerId, pool };
}

/** Until then it is no matter for the scheduler. */
async function betweenAttempts(
  { store, clock }: JobDecisionDependencies,
  job: Job,
): Promise<SchedulingDecision | null> {
  const nowMs = clock.nowMs();
  if (job.notBeforeMs <= nowMs) return null;
  const seconds = Math.ceil((job.notBeforeMs - nowMs) / 1_000);
  const attempt = (await store.latestAttempts([job.id])).get(job.id);
  const why = attempt ? `attempt ${attempt.number} ended with ${endOf(attempt)}` : job.message;
  return {
    jobId: job.id,
    queue: job.definition.queue,
    kind: "waiting",
    reason: `it is tried again in ${seconds} s: ${why}`,
    atMs: nowMs,
    workerId: null,
    pool: null,
  };
}

function endOf({ state, cause, message }: Attempt): string {
  return [cause ?? state, message].filter((text) => text !== "").join(": ");
}

async function pastDecision(deps: JobDecisionDependencies, job: Job): Promise<SchedulingDecision> {
  const latest = deps.scheduler.latestDecision(job.id);
  if (latest?.kind === "assigned" || latest?.kind === "failed") return latest;
  const attempt = (await deps.store.latestAttempts([job.id])).get(job.id);
  return attempt ? givenTo(deps.store, job, attempt) : endedWithoutWorker(job);
}

/** An older one than this server remembers. */
async function givenTo(store: Store, job: Job, attempt: Attempt): Promise<SchedulingDecision> {
  const worker = await store.getWorker(attempt.workerId);
  return {
    jobId: job.id,
    queue: job.definition.queue,
    kind: "assigned",
    reason: `given to worker ${worker?.name ?? attempt.workerId} as attempt ${attempt.number}`,
    atMs: attempt.scheduledAtMs,
    workerId: attempt.workerId,
    pool: worker?.pool || null,
  };
}

function endedWithoutWorker(job: Job): SchedulingDecision {
  const isFailed = job.cause === "provision_failed";
  const fallback = isFinal(job.state)
    ? `it ended before it had a worker: ${job.state}`
    : `it is ${job.state}`;
  return {
    jobId: job.id,
    queue: job.definition.queue,
    kind: isFailed ? "failed" : "ended",
    reason: job.message || fallback,
    atMs: job.finishedAtMs ?? job.createdAtMs,
    workerId: null,
    pool: null,
  };
}
