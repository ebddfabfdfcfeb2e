/**
 * Makes workers that are missing and removes those that nobody needs.
 *
 * Level-triggered over three facts: what the scheduler wants, what the provider says exists, and
 * what is connected. `provision` books a worker before it is made, so that the next scheduling
 * round does not ask for it again; the periodic round finds and mends whatever went wrong between.
 */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, ERROR_CODES, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { sha256Hex, uuidV4, uuidV7, type Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { Plan, PlannedPool } from "../../core/planner.ts";
import type { WorkerCapacity } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

/** A kind of worker that can be made on demand. */
export interface Pool {
  name: string;
  provider: Provider;
  labels: Record<string, string>;
  /** What one worker holds. */
  capacity: WorkerCapacity;
  maxWorkers: number;
  /** A worker without a job for this long leaves. */
  idleTimeoutMs: number;
  /** A worker leaves after its first job. */
  ephemeral: boolean;
  /** Where its agents dial, if it is not where all do. */
  serverUrl?: string | null;
}

export interface ProvisionerDependencies {
  pools: readonly Pool[];
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Where agents dial. */
  serverUrl(): string;
  onJobChanged(job: Job): void;
  onRoom(): void;
}

/** How long a one-time token lives, from the moment the instance runs. */
const TOKEN_LIFETIME_MS = 5 * 60_000;
/** How long a worker may take from its creation to its first stream. */
const CONNECT_TIMEOUT_MS = 2 * 60_000;

interface OwnedWorker {
  workerId: string;
  pool: Pool;
  createdAtMs: number;
  hasConnected: boolean;
  idleSinceMs: number | null;
  isLeaving: boolean;
  /** `#create` is at work: what there is of it and what is not says nothing yet. */
  isBeingMade: boolean;
  /** Why it could not be made; it stays for as long as it cannot be removed for certain. */
  failure: string | null;
  /** An earlier server made it. */
  isAdopted: boolean;
}

export class Provisioner {
  readonly #deps: ProvisionerDependencies;
  /** Workers that an earlier server began to make and that had not registered. */
  readonly #arrivingAtStart = new Set<string>();
  readonly #owned = new Map<string, OwnedWorker>();
  readonly #problems = new Map<string, { message: string; untilMs: number; backoff: Backoff }>();
  readonly #stopListening: (() => void)[];
  readonly #creating = new Set<Promise<void>>();
  #isStopped = false;

  constructor(deps: ProvisionerDependencies) {
    this.#deps = deps;
    this.#stopListening = deps.pools.map((pool) =>
      pool.provider.onEvent((event) => void this.#onGone(event.workerId, event.message)),
    );
  }

  /** Takes over the workers that an earlier server made. */
  async adopt(): Promise<void> {
    const { store, pools } = this.#deps;
    let cursor: string | null = null;
    do {
      const page = await store.listWorkers({ includeTerminated: false }, { limit: 500, cursor });
      for (const worker of page.items) {
        const pool = pools.find(({ name }) => name === worker.pool);
        if (!pool) continue;
        const hasConnected = worker.registeredAtMs !== null;
        this.#own({
          workerId: worker.id,
          pool,
          createdAtMs: worker.createdAtMs,
          hasConnected,
          isAdopted: true,
        });
        if (!hasConnected) this.#arrivingAtStart.add(worker.id);
      }
      cursor = page.nextCursor;
    } while (cursor !== null);
  }

  plannedPools(): PlannedPool[] {
    const nowMs = this.#deps.clock.nowMs();
    const { connections } = this.#deps;
    return this.#deps.pools.map((pool) => {
      const owned = [...this.#owned.values()].filter((worker) => worker.pool === pool);
      const problem = this.#problems.get(pool.name);
      const isBlocked = problem !== undefined && nowMs < problem.untilMs;
      return {
        name: pool.name,
        labels: pool.labels,
        capacity: pool.capacity,
        room: isBlocked ? 0 : Math.max(0, pool.maxWorkers - owned.length),
        arriving: owned.filter(
          (worker) => !worker.hasConnected && worker.failure === null && !connections.get(worker.workerId),
        ).length,
        problem: isBlocked ? problem.message : null,
      };
    });
  }

  provision(wanted: Plan["provision"]): void {
    if (this.#isStopped) return;
    for (const { pool: name, count } of wanted) {
      const pool = this.#deps.pools.find((candidate) => candidate.name === name);
      for (let made = 0; pool && made < count; made += 1) {
        const creation = this.#create(pool).finally(() => this.#creating.delete(creation));
        this.#creating.add(creation);
      }
    }
  }

  /** Compares the three facts and mends what differs. A provider that fails holds up no other one. */
  async round(): Promise<void> {
    const providers = new Set(this.#deps.pools.map((pool) => pool.provider));
    const rounds = await Promise.allSettled([...providers].map((provider) => this.#roundOf(provider)));
    for (const round of rounds) if (round.status === "rejected") throw round.reason;
  }

  async #roundOf(provider: Provider): Promise<void> {
    for (const worker of this.#owned.values()) {
      const isChanging = worker.isLeaving || worker.isBeingMade;
      if (worker.pool.provider === provider && !isChanging) await this.#look(worker);
    }
    for (const { workerId } of await provider.list()) {
      if (!this.#owned.has(workerId)) await this.#removeUnowned(provider, workerId);
    }
  }

  /**
   * Destroys every worker and waits until they are gone, for a server that leaves nothing behind. With
   * `own`, workers of an earlier server that still run a job are left to the next one.
   */
  async destroyWorkers(which: "all" | "own"): Promise<void> {
    this.stopListening();
    // A worker that is just being made is there only after that.
    await Promise.all(this.#creating);
    await Promise.all(
      [...this.#owned.values()].map(async (worker) => {
        if (which === "own" && worker.isAdopted && (await this.#isAtWork(worker))) return;
        await this.#remove(worker, "the server stops");
      }),
    );
  }

  async #isAtWork({ workerId }: OwnedWorker): Promise<boolean> {
    return (await this.#deps.store.listLiveAttempts(workerId)).length > 0;
  }

  /** Makes no more workers, and hears of none; those that are there stay. */
  stopListening(): void {
    this.#isStopped = true;
    for (const stop of this.#stopListening) stop();
  }

  #own(worker: Omit<OwnedWorker, "idleSinceMs" | "isLeaving" | "isBeingMade" | "failure">): OwnedWorker {
    const owned: OwnedWorker = {
      ...worker,
      idleSinceMs: null,
      isLeaving: false,
      isBeingMade: false,
      failure: null,
    };
    this.#owned.set(worker.workerId, owned);
    return owned;
  }

  async #create(pool: Pool): Promise<void> {
    const { store, clock, random, log } = this.#deps;
    const workerId = uuidV7(clock, random);
    const name = `${pool.name}-${workerId.slice(-8)}`;
    const createdAtMs = clock.nowMs();
    const owned = this.#own({ workerId, pool, createdAtMs, hasConnected: false, isAdopted: false });
    const token = uuidV4();
    owned.isBeingMade = true;
    try {
      await store.insertWorker({
        id: workerId,
        name,
        provider: pool.provider.name,
        pool: pool.name,
        nowMs: createdAtMs,
        token: { hash: sha256Hex(token), expiresAtMs: createdAtMs + CONNECT_TIMEOUT_MS + TOKEN_LIFETIME_MS },
      });
      await pool.provider.create({
        workerId,
        name,
        pool: pool.name,
        serverUrl: pool.serverUrl ?? this.#deps.serverUrl(),
        token,
        labels: pool.labels,
        capacity: pool.capacity,
        environment: {},
      });
      // An image may have been pulled before it.
      owned.createdAtMs = clock.nowMs();
      await store.setTokenExpiry(workerId, owned.createdAtMs + TOKEN_LIFETIME_MS);
      log.info({ workerId, pool: pool.name }, "worker created");
    } catch (error) {
      this.#notePoolProblem(pool, error);
      owned.failure = errorMessage(error);
      await this.#remove(owned, errorMessage(error)).catch((cleanUpError: unknown) => {
        log.error({ err: cleanUpError, workerId }, "could not remove a worker");
      });
    } finally {
      owned.isBeingMade = false;
    }
  }

  #notePoolProblem(pool: Pool, error: unknown): void {
    const { clock, random, log } = this.#deps;
    const message = errorMessage(error);
    const isTransient = !(error instanceof AppError) || ERROR_CODES[error.code].retryable;
    const before = this.#problems.get(pool.name);
    if (before?.message !== message) {
      log.error({ err: error, pool: pool.name, isTransient }, "could not create a worker");
    }
    const backoff = before?.backoff ?? new Backoff({ baseMs: 1_000, maxMs: 60_000 }, random);
    this.#problems.set(pool.name, { message, backoff, untilMs: clock.nowMs() + 500 + backoff.nextDelayMs() });
  }

  /** Of a server that ended in the middle: nothing will come, and the place in the pool is wanted. */
  async #wasNeverMade({ workerId, pool }: OwnedWorker): Promise<boolean> {
    if (!this.#arrivingAtStart.delete(workerId)) return false;
    return (await pool.provider.inspect(workerId)) === "gone";
  }

  async #look(worker: OwnedWorker): Promise<void> {
    const { connections, clock, store } = this.#deps;
    if (worker.failure !== null) return await this.#removeFailed(worker, worker.failure);
    const nowMs = clock.nowMs();
    const connection = connections.get(worker.workerId);
    if (connection) {
      this.#noteConnected(worker);
      const isIdle = connection.session.attempts.size === 0 && !connections.isAssigning(worker.workerId);
      worker.idleSinceMs = isIdle ? (worker.idleSinceMs ?? nowMs) : null;
      const isDone = worker.pool.ephemeral && isIdle && connection.assignedCount > 0;
      const isUnused = worker.idleSinceMs !== null && nowMs - worker.idleSinceMs >= worker.pool.idleTimeoutMs;
      if (isDone || isUnused) connection.drain(isDone ? "its job is done" : "idle");
      return;
    }
    const stored = await store.getWorker(worker.workerId);
    // It may have come and lost its stream between two rounds.
    if (stored && stored.state !== "creating" && stored.state !== "connecting") this.#noteConnected(worker);
    if (!stored || stored.state === "terminated") {
      await this.#remove(worker, "left");
    } else if (!worker.hasConnected && (await this.#wasNeverMade(worker))) {
      await this.#remove(worker, "the server ended while it was being made");
    } else if (!worker.hasConnected && nowMs - worker.createdAtMs > CONNECT_TIMEOUT_MS) {
      this.#notePoolProblem(worker.pool, new Error(`worker ${worker.workerId} did not connect`));
      await this.#remove(worker, "did not connect in time");
    } else if ((await worker.pool.provider.inspect(worker.workerId)) === "gone" && worker.hasConnected) {
      await this.#onGone(worker.workerId, "its processes are gone");
    }
  }

  /** Could not be made, nor removed: until its provider answers again, no others are made. */
  async #removeFailed(worker: OwnedWorker, failure: string): Promise<void> {
    try {
      await this.#remove(worker, failure);
      this.#problems.delete(worker.pool.name);
    } catch (error) {
      this.#notePoolProblem(worker.pool, error);
      throw error;
    }
  }

  /** A worker that connects shows that its pool works: only now is its trouble forgotten. */
  #noteConnected(worker: OwnedWorker): void {
    if (worker.hasConnected) return;
    worker.hasConnected = true;
    this.#problems.delete(worker.pool.name);
  }

  async #onGone(workerId: string, message: string): Promise<void> {
    const worker = this.#owned.get(workerId);
    if (!worker || worker.isLeaving) return;
    const { connections, log } = this.#deps;
    log.info({ workerId, reason: message }, "worker is gone");
    const hasConnected = worker.hasConnected || connections.get(workerId) !== null;
    try {
      const stored = hasConnected ? null : await this.#deps.store.getWorker(workerId);
      const neverCame = stored?.state === "creating" || stored?.state === "connecting";
      if (neverCame) this.#notePoolProblem(worker.pool, new Error(message));
      await this.#remove(worker, message);
    } catch (error) {
      // The next round finds the worker gone again.
      log.error({ err: error, workerId }, "could not handle the loss of a worker");
    }
  }

  /**
   * Once the provider is certain that nothing of the worker runs, its jobs are free at once. A stream
   * that still seems to be open carries nothing any more, and no job may be given to it: not now, and
   * not to one that was being greeted until the worker was marked.
   */
  async #remove(worker: OwnedWorker, message: string): Promise<void> {
    const { connections, store } = this.#deps;
    const { workerId } = worker;
    worker.isLeaving = true;
    try {
      await worker.pool.provider.destroy(workerId);
      await connections.dismiss(workerId);
      await this.#loseAttempts(workerId, message);
      await store.changeWorker({ workerId, state: "terminated", message });
      await connections.dismiss(workerId);
      await this.#loseAttempts(workerId, message);
      this.#owned.delete(workerId);
    } finally {
      worker.isLeaving = false;
    }
    this.#deps.onRoom();
  }

  async #loseAttempts(workerId: string, reason: string): Promise<void> {
    const { store, clock, onJobChanged } = this.#deps;
    const message = `the worker is gone: ${reason}`;
    for (const { attempt, job } of await store.listLiveAttempts(workerId)) {
      const input = { type: "lose", attemptId: attempt.id, cause: "worker_lost", message } as const;
      const applied = await store.applyInput({ jobId: job.id, input, nowMs: clock.nowMs() });
      if (applied.ok) onJobChanged(applied.job);
    }
  }

  async #removeUnowned(provider: Provider, workerId: string): Promise<void> {
    this.#deps.log.warn({ workerId, provider: provider.name }, "destroying a worker that nobody owns");
    await provider.destroy(workerId);
  }
}
