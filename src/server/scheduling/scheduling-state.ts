/** Everything that scheduling keeps in memory, put together: what a plan is made from, and what came of it. */

import type { Clock } from "../../base/clock.ts";
import type { Job } from "../../core/job.ts";
import type { PlannedPool } from "../../core/plan.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { AbsentWorkers } from "./absent-workers.ts";
import { ActiveJobs } from "./active-jobs.ts";
import { DecisionLog } from "./decision-log.ts";
import { QueueBook } from "./queue-book.ts";
import type { SchedulingSnapshot } from "./scheduler-view.ts";

export interface SchedulingStateDependencies {
  store: Pick<Store, "listActive" | "listQueues" | "configureQueues" | "listWorkers">;
  connections: Pick<WorkerConnections, "planned" | "room" | "get" | "assignments">;
  clock: Clock;
  plannedPools(): PlannedPool[];
}

const RELOAD_MS = 5_000;

export class SchedulingState {
  readonly active: ActiveJobs;
  readonly queues: QueueBook;
  readonly decisions = new DecisionLog();
  readonly #deps: SchedulingStateDependencies;
  readonly #absent: AbsentWorkers;
  #reloadedAtMs: number | null = null;
  /** Settled when all who give jobs away, or wait for their turn, are done. */
  #turns: Promise<void> = Promise.resolve();

  constructor(deps: SchedulingStateDependencies) {
    this.#deps = deps;
    this.active = new ActiveJobs(deps.store);
    this.queues = new QueueBook(deps.store, this.active);
    this.#absent = new AbsentWorkers(deps.store, deps.clock);
  }

  /** Before the first round and before anybody submits a job. */
  async load(): Promise<void> {
    await this.queues.load();
    await this.#refresh();
  }

  /**
   * An assignment has failed, and may be stored all the same: a job that nobody counts would let
   * another one start with its concurrency key. So nothing is planned before a refresh.
   */
  noteDoubt(): void {
    this.#reloadedAtMs = null;
  }

  /**
   * Lets one after another look at the workers and give jobs to them: two at the same time would give
   * the same room away, or start two jobs with one concurrency key. Rejects when the wait is called off,
   * or when what the database knows better cannot be read again.
   */
  async inTurn<T>(signal: AbortSignal, giveAway: () => Promise<T>): Promise<T> {
    const before = this.#turns;
    let end = (): void => {};
    const own = new Promise<void>((resolve) => (end = resolve));
    this.#turns = before.then(() => own);
    try {
      await orAborted(before, signal);
      await this.#refresh();
      return await giveAway();
    } finally {
      end();
    }
  }

  /**
   * Reads again what may have changed behind this server's back; costs nothing most of the time. In a
   * turn, because nobody may count on what is still being read.
   */
  async #refresh(): Promise<void> {
    const nowMs = this.#deps.clock.monotonicMs();
    if (this.#reloadedAtMs === null || nowMs - this.#reloadedAtMs >= RELOAD_MS) {
      await this.active.reload();
      this.#reloadedAtMs = nowMs;
    }
    await this.#absent.refresh();
  }

  onJobChanged(job: Job): void {
    this.active.noteJob(job);
  }

  get workerCount(): number {
    return this.#deps.connections.room.workers;
  }

  /** For how many jobs there is room on workers that are here and on others to be made. */
  get room(): number {
    const { connections, plannedPools } = this.#deps;
    const here = connections.room.jobs;
    return plannedPools().reduce((sum, { room, capacity }) => sum + room * capacity.jobs, here);
  }

  /** Only workers that take jobs or may take them again soon: those with a stream. */
  present(queues: Iterable<string>): SchedulingSnapshot {
    const { connections, plannedPools } = this.#deps;
    return {
      workers: connections.planned(),
      pools: plannedPools(),
      queues: this.queues.planned(queues),
      concurrency: this.active.byConcurrencyKey,
      assignments: connections.assignments,
    };
  }

  /** Also workers that are away. */
  snapshot(queues: Iterable<string>): SchedulingSnapshot {
    const present = this.present(queues);
    const absent = this.#absent.list((id) => this.#deps.connections.get(id) !== null);
    return { ...present, workers: [...present.workers, ...absent] };
  }
}

function orAborted(wait: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new Error("the wait was called off", { cause: signal.reason }));
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    void wait.then(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
  });
}
