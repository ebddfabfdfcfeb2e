/** The workers that are connected to this server now. */

import type { Service } from "../../base/service.ts";
import type { Job } from "../../core/job.ts";
import { HEARTBEAT_INTERVAL_MS } from "../../core/lease.ts";
import type { PlacedJob, PlannedWorker } from "../../core/plan.ts";
import type { PlacementStrategy } from "../../core/pool.ts";
import type { LiveAttemptView } from "../../core/server-session.ts";
import type { Worker, WorkerCapacity, WorkerState } from "../../core/worker.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnection } from "./worker-connection.ts";
import { workerLabels } from "./worker-labels.ts";

/** Workers that are not connected any more and of which the time of their last word is kept. */
const MAX_REMEMBERED = 10_000;

export const ONE_JOB_ONLY = "it takes one job only";

/** Writes an attempt down for the worker of a connection; null if there is none to send. */
type StoreAttempt = (
  connection: Pick<WorkerConnection, "isClosed" | "runnerId" | "takesOneJob">,
) => Promise<LiveAttemptView | null>;

/** What the connections must know of a pool. */
export interface ConnectedPool {
  strategy: PlacementStrategy;
}

export class WorkerConnections implements Service {
  readonly #connections = new Map<string, WorkerConnection>();
  readonly #poolOf: (name: string) => ConnectedPool | null;
  readonly #assigning = new Map<string, Set<Promise<unknown>>>();
  /** By worker id, when a worker that was connected here was last heard. */
  readonly #heard = new Map<string, number>();
  #listeningSinceMs: number | null = null;
  #listenedAtMs: number | null = null;
  #isStopped = false;
  #assignments = 0;

  /** `poolOf` knows the pools; null for a worker that a person started, or of a pool that is gone. */
  constructor(poolOf: (name: string) => ConnectedPool | null) {
    this.#poolOf = poolOf;
  }

  /** Jobs that were given to workers since the server began. */
  get assignments(): number {
    return this.#assignments;
  }

  /** No worker is welcome any more: one that was sent away comes back at once otherwise. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /**
   * Since when workers could reach this server: the first time anybody asked, or the end of a time in
   * which they could not. Silence before that is the server's own and says nothing of them.
   */
  listeningSinceMs(nowMs: number): number {
    return (this.#listeningSinceMs ??= nowMs);
  }

  /**
   * This server is here and its database answers, to be said every second. After a longer time in
   * which it was not so (the server was stopped, the database away), no worker was let in and what
   * the others said could not be stored: their silence is counted anew.
   */
  noteListening(nowMs: number): void {
    const awayMs = nowMs - (this.#listenedAtMs ?? nowMs);
    if (awayMs >= HEARTBEAT_INTERVAL_MS) this.#listeningSinceMs = nowMs;
    this.#listenedAtMs = nowMs;
  }

  /**
   * Gives a worker an attempt that `store` writes down first; null if it takes none now. Until both
   * are done, the worker counts as busy, and a new stream of it waits with its welcome: an attempt
   * that is in neither the welcome nor on the stream would be lost until its lease ends.
   */
  async assign(workerId: string, store: StoreAttempt): Promise<void> {
    const connection = this.get(workerId);
    if (!connection || this.#problem(connection) !== null) return;
    const running = this.#assigning.get(workerId) ?? new Set();
    this.#assigning.set(workerId, running);
    const assignment = this.#assign(connection, store);
    running.add(assignment);
    try {
      await assignment;
    } finally {
      running.delete(assignment);
      if (running.size === 0) this.#assigning.delete(workerId);
    }
  }

  async #assign(connection: WorkerConnection, store: StoreAttempt): Promise<void> {
    const view = await store(connection);
    if (view === null) return;
    // Sent also if it was told to leave meanwhile: it goes only when it holds nothing.
    connection.assign(view);
    this.#assignments += 1;
    connection.lastAssigned = this.#assignments;
    if (connection.takesOneJob) connection.drain(ONE_JOB_ONLY);
  }

  /** True while an attempt is on its way to the worker. */
  isAssigning(workerId: string): boolean {
    return this.#assigning.has(workerId);
  }

  /** Resolves when every assignment to the worker that is under way is in the database or has failed. */
  async assigned(workerId: string): Promise<void> {
    const running = this.#assigning.get(workerId);
    if (running) await Promise.allSettled([...running]);
  }

  /** Takes in a connection in the place of an older one of the same worker. */
  add(connection: WorkerConnection): void {
    this.#connections.get(connection.workerId)?.close();
    this.#connections.set(connection.workerId, connection);
  }

  remove(connection: WorkerConnection): void {
    connection.close();
    this.#noteHeard(connection);
    if (this.#connections.get(connection.workerId) === connection) {
      this.#connections.delete(connection.workerId);
    }
  }

  /**
   * When the worker was last heard, as far as this server knows by itself; null if it never was. The
   * database may know less: heartbeats are stored late, and not at all while it is away.
   */
  heardAtMs(workerId: string): number | null {
    return this.#connections.get(workerId)?.session.heardAtMs ?? this.#heard.get(workerId) ?? null;
  }

  /** Only what may hold an attempt needs to be remembered, and the oldest of too many is not. */
  #noteHeard({ workerId, session }: WorkerConnection): void {
    this.#heard.delete(workerId);
    if (session.attempts.size === 0 && !this.isAssigning(workerId)) return;
    this.#heard.set(workerId, session.heardAtMs);
    const [oldest] = this.#heard.keys();
    if (this.#heard.size > MAX_REMEMBERED && oldest !== undefined) this.#heard.delete(oldest);
  }

  /** Closes the stream of a worker that is gone. Resolves when nothing is being assigned to it. */
  async dismiss(workerId: string): Promise<void> {
    this.get(workerId)?.close();
    await this.assigned(workerId);
  }

  get(workerId: string): WorkerConnection | null {
    const connection = this.#connections.get(workerId);
    // One that is closed stays for as long as its transport hangs, which says nothing of the worker.
    return connection && !connection.isClosed ? connection : null;
  }

  all(): WorkerConnection[] {
    return [...this.#connections.values()];
  }

  /** How many workers have a stream, and how many jobs more those may have that take any now. */
  get room(): { workers: number; jobs: number } {
    let workers = 0;
    let jobs = 0;
    for (const connection of this.#connections.values()) {
      if (connection.isClosed) continue;
      workers += 1;
      if (this.#problem(connection) === null) jobs += freeJobs(connection);
    }
    return { workers, jobs };
  }

  /** Workers with a stream, with what is free on them and why they take no job, if so. */
  planned(): PlannedWorker[] {
    return this.all()
      .filter((connection) => !connection.isClosed)
      .map((connection) => ({
        id: connection.workerId,
        name: connection.info.name,
        pool: connection.pool,
        labels: workerLabels(connection, connection.info),
        taints: connection.info.taints,
        capabilities: connection.info.capabilities,
        capacity: connection.info.capacity,
        free: freeCapacity(connection),
        strategy: this.#poolOf(connection.pool)?.strategy ?? "least_loaded",
        running: placedJobs(connection),
        lastAssigned: connection.lastAssigned,
        unavailable: this.#problem(connection),
      }));
  }

  /** The state of a worker for people: the database does not keep what changes with each job. */
  shownState({ id, state, madeAtMs }: Pick<Worker, "id" | "state" | "madeAtMs">): WorkerState {
    if (state === "creating" && madeAtMs !== null) return "connecting";
    const connection = state === "ready" ? this.get(id) : null;
    if (!connection) return state;
    if (connection.session.draining) return "draining";
    return freeJobs(connection) === 0 ? "busy" : "ready";
  }

  /** Somebody has changed whether a worker is cordoned: looks it up. */
  async noteCordon(workerId: string, store: Pick<Store, "getWorker">): Promise<void> {
    const worker = await store.getWorker(workerId);
    const connection = this.get(workerId);
    if (connection && worker) connection.isCordoned = worker.cordoned;
  }

  /** Why it takes no job now, whatever is free. */
  #problem(connection: WorkerConnection): string | null {
    if (connection.isClosed) return "it is not connected";
    if (connection.isHeldBack) return "it is just connecting";
    if (connection.isCordoned) return "it is cordoned";
    if (connection.takesOneJob && connection.assignedCount > 0) return `${ONE_JOB_ONLY}, and has had it`;
    return connection.session.draining ? "it is draining" : null;
  }

  /** A job has changed otherwise than by its worker's own word. */
  jobSeen(job: Job): void {
    if (job.workerId !== null) this.get(job.workerId)?.jobSeen(job);
  }

  /** An attempt was given up: if its worker is here, it shall kill what is left. */
  giveUp(target: { workerId: string; attemptId: string }): void {
    this.get(target.workerId)?.giveUp(target.attemptId);
  }

  /** Sends every worker away, to connect again elsewhere or when this server is back. */
  stop(): Promise<void> {
    this.#isStopped = true;
    for (const connection of this.all()) connection.goaway("the server stops");
    return Promise.resolve();
  }
}

/** An attempt whose result is in holds nothing any more: its processes are gone. */
function freeCapacity(connection: WorkerConnection): WorkerCapacity {
  const free = { ...connection.info.capacity };
  for (const attempt of connection.session.attempts.values()) {
    if (attempt.result) continue;
    const { resources } = attempt.definition;
    free.jobs -= 1;
    free.cpuMillis -= resources.cpuMillis;
    free.memoryBytes -= resources.memoryBytes;
    free.diskBytes -= resources.diskBytes;
    free.gpu -= resources.gpu;
  }
  return free;
}

function freeJobs({ info, session }: WorkerConnection): number {
  let free = info.capacity.jobs;
  for (const { result } of session.attempts.values()) if (!result) free -= 1;
  return Math.max(0, free);
}

function placedJobs(connection: WorkerConnection): PlacedJob[] {
  const placed: PlacedJob[] = [];
  for (const attempt of connection.session.attempts.values()) {
    if (attempt.result) continue;
    const { jobId, attemptId, definition } = attempt;
    const { priority, resources, labels, preemptible } = definition;
    const isLeaving = attempt.jobState === "cancelling" || attempt.told === "kill";
    placed.push({
      jobId,
      attemptId,
      priority,
      resources,
      labels,
      preemptible,
      isLeaving,
      placement: definition,
    });
  }
  return placed;
}
