/**
 * One round of scheduling: reads page after page, and carries out the plan of each. What is held up is
 * left out of the next page.
 */

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import { keyKind, nameInKey, waitKey, type Plan } from "../../core/plan.ts";
import { plan } from "../../core/planner.ts";
import type { PendingJob, Store } from "../../storage/store.ts";
import { assignJob } from "../scheduling/assign-job.ts";
import type { DecisionKind, SchedulingSnapshot } from "../scheduling/scheduler-view.ts";
import type { SchedulingState } from "../scheduling/scheduling-state.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

export interface RoundDependencies {
  store: Store;
  state: Pick<SchedulingState, "present" | "snapshot" | "refresh" | "queues" | "decisions">;
  connections: Pick<WorkerConnections, "assign">;
  clock: Clock;
  random: Random;
  /** Asks for new workers. */
  provision(wanted: Plan["provision"]): void;
  onJobChanged(job: Job): void;
  /** A job shall make room: its worker has to be told. */
  onWanted(job: Job): void;
}

/** Jobs of one queue in one read. */
const PAGE_JOBS = 500;
/** Pages in one round; the next round goes on. */
const MAX_PAGES = 20;
/** More than there is room for, because some of them may fit nowhere. */
const SPARE_JOBS = 50;
export class Round {
  /** By wait key. */
  readonly reasons = new Map<string, string>();
  /** No job was left out that could have been read. */
  hasReadAll = false;
  jobsRead = 0;
  readonly #deps: RoundDependencies;
  readonly #isLook: boolean;
  readonly #signal: AbortSignal;

  constructor(deps: RoundDependencies, isLook: boolean, signal: AbortSignal) {
    this.#deps = deps;
    this.#isLook = isLook;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    for (let page = 0; page < MAX_PAGES && !this.#signal.aborted; page += 1) {
      const perQueue = this.#isLook ? PAGE_JOBS : pageFor(this.#deps.state.present([]));
      if (perQueue === 0) return;
      const jobs = await this.#read(perQueue);
      if (jobs.length === 0) return;
      const decided = await this.#decide(jobs);
      // The room that is being made is kept in this plan only: the next page must not take it.
      if (this.hasReadAll || decided.preempt.length > 0) return;
      if (!this.#isLook && decided.assign.length + decided.provision.length === 0) return;
    }
  }

  async #read(perQueue: number): Promise<PendingJob[]> {
    const held = { placement: [] as string[], queue: [] as string[], concurrency: [] as string[] };
    for (const key of this.reasons.keys()) held[keyKind(key)].push(nameInKey(key));
    const jobs = await this.#deps.store.listPending({
      perQueue,
      nowMs: this.#deps.clock.nowMs(),
      withoutKeys: held.placement,
      withoutQueues: held.queue,
      withoutConcurrencyKeys: held.concurrency,
    });
    this.jobsRead += jobs.length;
    this.hasReadAll = !someQueueIsFull(jobs, perQueue);
    return jobs;
  }

  async #decide(jobs: readonly PendingJob[]): Promise<Plan> {
    const { state, provision } = this.#deps;
    // What a job could wait for is of interest only to a look: that is when reasons are told.
    const read = this.#isLook ? state.snapshot : state.present;
    const decided = plan({ ...read.call(state, new Set(jobs.map(({ queue }) => queue))), jobs });
    state.queues.notePasses(decided.passes);
    const byId = new Map(jobs.map((job) => [job.id, job]));
    await this.#assign(decided, byId);
    if (decided.provision.length > 0) provision(decided.provision);
    await this.#makeRoom(decided, byId);
    await this.#fail(decided, byId);
    for (const [key, reason] of decided.reasons) this.reasons.set(key, reason.message);
    this.#tell(decided, jobs);
    return decided;
  }

  /** Concurrent calls, so that the store writes them as one group. */
  async #assign(decided: Plan, jobs: ReadonlyMap<string, PendingJob>): Promise<void> {
    const { state } = this.#deps;
    await Promise.all(
      decided.assign.map(async ({ jobId, workerId, reason }) => {
        const assigned = await assignJob({ jobId, workerId }, { ...this.#deps, signal: this.#signal });
        if (assigned === null) return;
        state.queues.noteStart(assigned.definition.queue);
        this.#note(jobs.get(jobId), { kind: "assigned", reason, workerId });
      }),
    );
  }

  async #makeRoom(decided: Plan, jobs: ReadonlyMap<string, PendingJob>): Promise<void> {
    for (const { jobId, workerId, victims } of decided.preempt) {
      const reason = `it makes room for job ${jobId}, which has a higher priority`;
      for (const victim of victims) await this.#end(victim.jobId, reason);
      const names = victims.map((victim) => victim.jobId).join(", ");
      this.#note(jobs.get(jobId), { kind: "preempting", reason: `ends ${names} to make room`, workerId });
    }
    for (const { jobId, message } of decided.evict) await this.#end(jobId, message);
  }

  /** Refused if it has ended meanwhile, which is as good. */
  async #end(jobId: string, reason: string): Promise<void> {
    const applied = await this.#apply(jobId, { type: "cancel", cause: "preempted", reason });
    if (applied) this.#deps.onWanted(applied);
  }

  async #fail(decided: Plan, jobs: ReadonlyMap<string, PendingJob>): Promise<void> {
    await Promise.all(
      decided.fail.map(async ({ jobId, message }) => {
        const failed = await this.#apply(jobId, { type: "reject", cause: "provision_failed", message });
        if (failed === null) return;
        this.#deps.onJobChanged(failed);
        this.#note(jobs.get(jobId), { kind: "failed", reason: message });
      }),
    );
  }

  async #apply(jobId: string, input: JobInput): Promise<Job | null> {
    const { store, clock } = this.#deps;
    const applied = await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
    return applied.ok ? applied.job : null;
  }

  /** Of those that wait, a look says why. */
  #tell(decided: Plan, jobs: readonly PendingJob[]): void {
    const poolOf = new Map(decided.provision.flatMap(({ pool, jobIds }) => jobIds.map((id) => [id, pool])));
    const isDecided = new Set(
      [...decided.assign, ...decided.preempt, ...decided.fail].map((one) => one.jobId),
    );
    for (const job of jobs) {
      const pool = poolOf.get(job.id);
      if (pool !== undefined) {
        this.#note(job, { kind: "provisioning", reason: `a worker of pool ${pool} is being made`, pool });
      } else if (this.#isLook && !isDecided.has(job.id)) {
        const reason = reasonOf(job, decided.reasons);
        if (reason)
          this.#note(job, { kind: reason.impossible ? "impossible" : "waiting", reason: reason.message });
      }
    }
  }

  #note(
    job: PendingJob | undefined,
    {
      kind,
      reason,
      workerId = null,
      pool = null,
    }: {
      kind: DecisionKind;
      reason: string;
      workerId?: string | null;
      pool?: string | null;
    },
  ): void {
    if (!job) return;
    const { state, clock } = this.#deps;
    state.decisions.add({
      jobId: job.id,
      queue: job.queue,
      kind,
      reason,
      atMs: clock.nowMs(),
      workerId,
      pool,
    });
  }
}

function reasonOf(
  job: PendingJob,
  reasons: Plan["reasons"],
): { impossible: boolean; message: string } | null {
  const ofQueue = reasons.get(waitKey.queue(job.queue));
  const ofKey = job.concurrency ? reasons.get(waitKey.concurrency(job.concurrency.key)) : undefined;
  return ofQueue ?? ofKey ?? reasons.get(waitKey.placement(job)) ?? null;
}

/** How many jobs of a queue are worth reading: none if no worker and no pool has room for one. */
function pageFor({ workers, pools }: SchedulingSnapshot): number {
  let room = 0;
  for (const { free, unavailable } of workers) if (unavailable === null) room += Math.max(0, free.jobs);
  for (const pool of pools) room += pool.room * pool.capacity.jobs;
  return room === 0 ? 0 : Math.min(PAGE_JOBS, room + SPARE_JOBS);
}

function someQueueIsFull(jobs: readonly PendingJob[], perQueue: number): boolean {
  const counts = new Map<string, number>();
  for (const { queue } of jobs) counts.set(queue, (counts.get(queue) ?? 0) + 1);
  return [...counts.values()].some((count) => count >= perQueue);
}
