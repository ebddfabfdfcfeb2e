/**
 * Gives waiting jobs to connected workers and says how many workers are missing.
 *
 * One round reads pages of waiting jobs, plans, and carries the plan out. Jobs that fit nowhere now
 * are left out of the next page by their placement key, so that a thousand of them in front never
 * hide the one that fits. Idempotent: a round that dies in the middle is repeated by the next.
 *
 * A round that is asked for reads no more than there is room for. A look at the whole queue, which
 * finds the job that fits behind those that do not, and says of all why they wait, costs the more
 * the longer the queue is, so it takes a small part of the time, yet comes at least once a second.
 */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { uuidV7, type Random } from "../../base/random.ts";
import type { Service } from "../../base/service.ts";
import type { JobInput } from "../../core/job-input.ts";
import { isFinal, type Job } from "../../core/job.ts";
import { plan, type Plan, type PlannedPool, type PlannedWorker } from "../../core/planner.ts";
import type { PendingJob, Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

export interface SchedulingDependencies {
  store: Store;
  connections: Pick<WorkerConnections, "schedulable" | "assign">;
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
  /** Asks for another round. */
  hint(): void;
}

const PAGE_JOBS = 500;
/** Pages in one round; the next round goes on. */
const MAX_PAGES = 20;
/** More than there is room for, because some of them may fit nowhere. */
const SPARE_JOBS = 50;
/** A look at the whole queue takes one part in so many of the time. */
const LOOK_SHARE = 20;
const MAX_LOOK_INTERVAL_MS = 1_000;

export class Scheduler implements Service {
  readonly #deps: SchedulingDependencies;
  #nextLookAtMs = 0;
  #callOffLook: (() => void) | null = null;
  #callOffRetry: () => void = () => {};

  constructor(deps: SchedulingDependencies) {
    this.#deps = deps;
  }

  async round(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    const startedAtMs = clock.monotonicMs();
    const isLook = startedAtMs >= this.#nextLookAtMs;
    const hasReadAll = await schedule(this.#deps, { isLook, signal });
    if (isLook) {
      const endedAtMs = clock.monotonicMs();
      this.#nextLookAtMs = endedAtMs + Math.min(MAX_LOOK_INTERVAL_MS, LOOK_SHARE * (endedAtMs - startedAtMs));
    }
    if (signal.aborted) return;
    if (!hasReadAll) this.#hintAtNextLook();
    if (isLook || hasReadAll) await this.#hintAtNextRetry();
  }

  stop(): Promise<void> {
    this.#callOffLook?.();
    this.#callOffRetry();
    return Promise.resolve();
  }

  #hintAtNextLook(): void {
    const { clock, hint } = this.#deps;
    this.#callOffLook ??= clock.schedule(this.#nextLookAtMs - clock.monotonicMs(), () => {
      this.#callOffLook = null;
      hint();
    });
  }

  /** A retry that becomes due within the period should not wait for its end. */
  async #hintAtNextRetry(): Promise<void> {
    const { store, clock, hint } = this.#deps;
    const nowMs = clock.nowMs();
    const nextMs = await store.nextPendingAtMs(nowMs);
    this.#callOffRetry();
    if (nextMs !== null && nextMs - nowMs < MAX_LOOK_INTERVAL_MS) {
      this.#callOffRetry = clock.schedule(nextMs - nowMs, hint);
    }
  }
}

/** True if no job was left out that could have been read. */
async function schedule(
  deps: SchedulingDependencies,
  { isLook, signal }: { isLook: boolean; signal: AbortSignal },
): Promise<boolean> {
  const withoutKeys = new Set<string>();
  const reasons = new Map<string, string>();
  let hasReadAll = false;
  for (let page = 0; page < MAX_PAGES && !signal.aborted; page += 1) {
    const workers = deps.connections.schedulable();
    const pools = deps.provisioner.plannedPools();
    const limit = isLook ? PAGE_JOBS : pageFor(workers, pools);
    if (limit === 0) break;
    const jobs = await deps.store.listPending({
      limit,
      nowMs: deps.clock.nowMs(),
      withoutKeys: [...withoutKeys],
    });
    hasReadAll = jobs.length < limit;
    if (jobs.length === 0) break;
    const decided = plan({ jobs, workers, pools });
    await assign(decided.assign, jobs, { ...deps, signal });
    if (decided.provision.length > 0) deps.provisioner.provision(decided.provision);
    for (const [key, reason] of decided.reasons) {
      reasons.set(key, reason.message);
      withoutKeys.add(key);
    }
    const didSomething = decided.assign.length > 0 || decided.provision.length > 0;
    if (hasReadAll || !(isLook || didSomething)) break;
  }
  if (reasons.size > 0) await deps.store.setWaitReasons(reasons);
  return hasReadAll;
}

/** How many jobs are worth reading: none if no worker and no pool has room for one. */
function pageFor(workers: readonly PlannedWorker[], pools: readonly PlannedPool[]): number {
  let room = 0;
  for (const { free } of workers) room += Math.max(0, free.jobs);
  for (const pool of pools) room += pool.room * pool.capacity.jobs;
  return room === 0 ? 0 : Math.min(PAGE_JOBS, room + SPARE_JOBS);
}

type AssignDependencies = SchedulingDependencies & { signal: AbortSignal };

/** Concurrent calls, so that the store writes them as one group. */
async function assign(
  assignments: Plan["assign"],
  jobs: readonly PendingJob[],
  deps: AssignDependencies,
): Promise<void> {
  if (assignments.length === 0) return;
  const known = new Set(jobs.map(({ id }) => id));
  await Promise.all(
    assignments.filter(({ jobId }) => known.has(jobId)).map((assignment) => assignOne(assignment, deps)),
  );
}

async function assignOne(
  { jobId, workerId }: { jobId: string; workerId: string },
  deps: AssignDependencies,
): Promise<void> {
  const { clock, random, connections, onJobChanged } = deps;
  // A worker that loses its stream meanwhile finds the attempt in its next welcome.
  await connections.assign(workerId, async (connection) => {
    const attemptId = uuidV7(clock, random);
    const { runnerId } = connection;
    const input = { type: "assign", attemptId, workerId, runnerId } as const;
    const job = await assignedJob({ jobId, input }, { ...deps, isGone: () => connection.isClosed });
    if (job === null) return null;
    onJobChanged(job);
    return { attemptId, attemptNumber: job.attemptCount, job, logDurable: 0, runnerId };
  });
}

/** How soon a store that did not answer is asked again. */
const ASK_AGAIN = { baseMs: 100, maxMs: 2_000 };

/**
 * The job with its new attempt; null if it got none. A store that goes away while it writes may have
 * written, and an attempt of which nobody tells the worker would block the job until its lease ends.
 * So the same attempt is assigned again until there is an answer, or until the worker goes: its next
 * welcome has what was written.
 */
async function assignedJob(
  { jobId, input }: { jobId: string; input: Extract<JobInput, { type: "assign" }> },
  deps: AssignDependencies & { isGone(): boolean },
): Promise<Job | null> {
  const { store, clock, random, signal, isGone } = deps;
  const backoff = new Backoff(ASK_AGAIN, random);
  for (;;) {
    try {
      const { job } = await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
      const isOurs = job !== null && job.attemptId === input.attemptId;
      return isOurs && job.state !== "pending" && !isFinal(job.state) ? job : null;
    } catch (error) {
      const mayBeWritten = error instanceof AppError && error.code === "unavailable";
      if (!mayBeWritten || isGone() || signal.aborted) throw error;
    }
    await clock.sleep(backoff.nextDelayMs(), signal);
  }
}
