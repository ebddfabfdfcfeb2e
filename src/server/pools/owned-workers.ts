/**
 * The workers that this server has made or taken over, and their end.
 *
 * A worker is in here before its provider is asked for it and until it is certain that nothing of it
 * is left: what is not in here and exists all the same is nobody's.
 */

import type { Clock } from "../../base/clock.ts";
import type { Job } from "../../core/job.ts";
import type { Worker } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import type { Pool, PoolSource } from "./pool.ts";

export interface OwnedWorker {
  readonly workerId: string;
  readonly poolName: string;
  /** What made it, which the pool may have changed since. */
  readonly provider: Provider;
  /** The template it was made by; null if an earlier server made it. */
  readonly templateKey: string | null;
  readonly requestedAtMs: number;
  /** Null while it is being made, which may take as long as the download of an image. */
  madeAtMs: number | null;
  hasConnected: boolean;
  hasTakenJob: boolean;
  idleSinceMs: number | null;
  isLeaving: boolean;
  /** Why it could not be made; it stays for as long as it cannot be removed for certain. */
  failure: string | null;
  /** An earlier server made it, or was about to. */
  isAdopted: boolean;
}

export interface OwnedWorkersDependencies {
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  onJobChanged(job: Job): void;
  onRoom(): void;
}

export class OwnedWorkers {
  readonly #deps: OwnedWorkersDependencies;
  readonly #workers = new Map<string, OwnedWorker>();

  constructor(deps: OwnedWorkersDependencies) {
    this.#deps = deps;
  }

  all(): OwnedWorker[] {
    return [...this.#workers.values()];
  }

  get(workerId: string): OwnedWorker | null {
    return this.#workers.get(workerId) ?? null;
  }

  ofPool(name: string): OwnedWorker[] {
    return this.all().filter(({ poolName }) => poolName === name);
  }

  /** Books a worker that is about to be made. */
  book(workerId: string, pool: Pool): OwnedWorker {
    return this.#own({
      workerId,
      poolName: pool.name,
      provider: pool.provider,
      templateKey: pool.templateKey,
      requestedAtMs: this.#deps.clock.nowMs(),
      madeAtMs: null,
      hasConnected: false,
      isAdopted: false,
    });
  }

  /** Takes over the workers that an earlier server made. `onRegistered` is told of those that came. */
  async adopt(pools: PoolSource, onRegistered: (worker: Worker) => void): Promise<void> {
    for await (const worker of everyWorker(this.#deps.store)) {
      const pool = pools.get(worker.pool);
      // One of another provider belongs to a pool of this name that is gone.
      if (!pool || pool.provider.name !== worker.provider) continue;
      this.takeOver(worker, pool.provider);
      if (worker.registeredAtMs !== null) onRegistered(worker);
    }
  }

  /** A worker that an earlier server made. */
  takeOver(worker: Worker, provider: Provider): void {
    this.#own({
      workerId: worker.id,
      poolName: worker.pool,
      provider,
      templateKey: null,
      requestedAtMs: worker.createdAtMs,
      // Whoever was making it is gone: it is there, or it will never be.
      madeAtMs: worker.madeAtMs ?? worker.createdAtMs,
      hasConnected: worker.registeredAtMs !== null,
      isAdopted: true,
    });
  }

  /**
   * Once the provider is certain that nothing of the worker runs, its jobs are free at once. A stream
   * that still seems to be open carries nothing any more, and no job may be given to it: not now, and
   * not to one that was being greeted until the worker was marked.
   */
  async remove(worker: OwnedWorker, message: string): Promise<void> {
    const { connections, store } = this.#deps;
    const { workerId } = worker;
    worker.isLeaving = true;
    try {
      await worker.provider.destroy(workerId);
      await connections.dismiss(workerId);
      await this.#loseAttempts(workerId, message);
      await store.changeWorker({ workerId, state: "terminated", message });
      await connections.dismiss(workerId);
      await this.#loseAttempts(workerId, message);
      this.#workers.delete(workerId);
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

  #own(worker: Omit<OwnedWorker, "hasTakenJob" | "idleSinceMs" | "isLeaving" | "failure">): OwnedWorker {
    const owned: OwnedWorker = {
      ...worker,
      hasTakenJob: false,
      idleSinceMs: null,
      isLeaving: false,
      failure: null,
    };
    this.#workers.set(worker.workerId, owned);
    return owned;
  }
}
