/**
 * One round of scheduling: reads page after page, and carries out the plan of each. What is held up is
 * left out of the next page. Where a page ends, the plan ends before anything that might overtake the
 * jobs behind it.
 */

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import { keyKind, nameInKey, waitKey, type Plan, type Promised } from "../../core/plan.ts";
import { plan } from "../../core/planner.ts";
import type { DecisionKind } from "../../core/scheduling-decision.ts";
import type { PendingJob, Store } from "../../storage/store.ts";
import { assignJob } from "../scheduling/assign-job.ts";
import type { SchedulingState } from "../scheduling/scheduling-state.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { mostKinds, mostPerQueue, pageOf, worthReading, type Page } from "./scheduling-page.ts";

export interface RoundDependencies {
  store: Store;
  state: Pick<
    SchedulingState,
    "present" | "snapshot" | "room" | "workerCount" | "inTurn" | "noteDoubt" | "queues" | "decisions"
  >;
  connections: Pick<WorkerConnections, "assign">;
  clock: Clock;
  random: Random;
  /** Asks for new workers. */
  provision(wanted: Plan["provision"]): void;
  onJobChanged(job: Job): void;
  /** A job shall make room: its worker has to be told. */
  onWanted(job: Job): void;
}

/** Pages in one round; the next round goes on. */
const MAX_PAGES = 20;

export interface RoundOptions {
  /** Reads the whole queue, and says of all jobs why they wait. */
  isLook: boolean;
  /** How many queues had waiting jobs in the last round. */
  queueCount: number;
  /** Wait keys whose jobs are left out, because the look before this one has told them off. */
  skipped: ReadonlySet<string>;
}

export class Round {
  /** By wait key. */
  readonly reasons = new Map<string, string>();
  /** No job was left out that could have been read. */
  hasReadAll = false;
  /** There were more pages than one round may read. */
  isCutShort = false;
  jobsRead = 0;
  readonly #deps: RoundDependencies;
  readonly #isLook: boolean;
  readonly #mostPerQueue: number;
  readonly #skipped: ReadonlySet<string>;
  readonly #signal: AbortSignal;
  readonly #queues = new Set<string>();
  /** By the plans of the pages before. */
  #promised: Promised | null = null;

  constructor(deps: RoundDependencies, { isLook, queueCount, skipped }: RoundOptions, signal: AbortSignal) {
    this.#deps = deps;
    this.#isLook = isLook;
    this.#mostPerQueue = mostPerQueue(queueCount);
    this.#skipped = skipped;
    this.#signal = signal;
  }

  /** Queues in which jobs waited. */
  get queueCount(): number {
    return this.#queues.size;
  }

  async run(): Promise<void> {
    for (let page = 0; page < MAX_PAGES && !this.#signal.aborted; page += 1) {
      const { state } = this.#deps;
      const worthwhile = this.#isLook ? Infinity : worthReading(state.room);
      if (worthwhile === 0) return;
      const perQueue = Math.min(worthwhile, this.#mostPerQueue);
      const { jobs, queuesWithMore } = await this.#read(perQueue, mostKinds(state.workerCount));
      // Without jobs there is still the worker that was given a taint that sends its attempts away.
      if (jobs.length === 0 && (page > 0 || !this.#isLook)) return;
      // The last page makes do with what was read: better an overtaken job than none that starts.
      const isLast = page === MAX_PAGES - 1;
      const unread: ReadonlySet<string> = isLast ? new Set() : queuesWithMore;
      const decided = await state.inTurn(this.#signal, () => this.#decide(jobs, unread));
      if (this.hasReadAll) return;
      const isFruitless = decided.assign.length + decided.provision.length === 0 && !decided.isCutOff;
      if (!this.#isLook && isFruitless) return;
    }
    this.isCutShort = !this.#signal.aborted;
  }

  async #read(perQueue: number, kinds: number): Promise<Page<PendingJob>> {
    const held = { placement: [] as string[], queue: [] as string[], concurrency: [] as string[] };
    const keys = new Set([...this.#skipped, ...this.reasons.keys()]);
    for (const key of keys) held[keyKind(key)].push(nameInKey(key));
    const read = await this.#deps.store.listPending({
      perQueue,
      nowMs: this.#deps.clock.nowMs(),
      withoutKeys: held.placement,
      withoutQueues: held.queue,
      withoutConcurrencyKeys: held.concurrency,
    });
    const page = pageOf(read, { perQueue, kinds });
    this.jobsRead += read.length;
    for (const { queue } of read) this.#queues.add(queue);
    this.hasReadAll = page.queuesWithMore.size === 0;
    return page;
  }

  async #decide(jobs: readonly PendingJob[], queuesWithMore: ReadonlySet<string>): Promise<Plan> {
    const { state, provision } = this.#deps;
    // What a job could wait for is of interest only to a look: that is when reasons are told.
    const read = this.#isLook ? state.snapshot : state.present;
    const snapshot = read.call(state, new Set(jobs.map(({ queue }) => queue)));
    const decided = plan({ ...snapshot, jobs, queuesWithMore, promised: this.#promised });
    this.#promised = decided.promised;
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

  /**
   * Concurrent calls, so that the store writes them as one group. All of them end before one that failed
   * ends the round: the next round would not see those that are under way, and take their places.
   */
  async #assign(decided: Plan, jobs: ReadonlyMap<string, PendingJob>): Promise<void> {
    const { state } = this.#deps;
    const calls = await Promise.allSettled(
      decided.assign.map(async ({ jobId, workerId, reason }) => {
        const assigned = await assignJob({ jobId, workerId }, { ...this.#deps, signal: this.#signal });
        if (assigned === null) return;
        state.queues.noteStart(assigned.definition.queue);
        this.#note(jobs.get(jobId), { kind: "assigned", reason, workerId });
      }),
    );
    const failed = calls.find(({ status }) => status === "rejected");
    if (failed?.status !== "rejected") return;
    state.noteDoubt();
    throw failed.reason;
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
    if (!this.#isLook) {
      // Only a look knows of the workers that are away, and may come back and take them.
      for (const { jobId, message } of decided.fail) {
        const job = jobs.get(jobId);
        if (job) this.reasons.set(waitKey.placement(job), message);
      }
      return;
    }
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
