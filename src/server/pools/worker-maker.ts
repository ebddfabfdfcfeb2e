/** Makes workers, each in the background: booked at once, so that nobody asks for it twice. */

import type { Clock } from "../../base/clock.ts";
import { errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { sha256Hex, uuidV4, uuidV7, type Random } from "../../base/random.ts";
import type { Store } from "../../storage/store.ts";
import type { OwnedWorker, OwnedWorkers } from "./owned-workers.ts";
import type { Pool } from "./pool.ts";

export interface WorkerMakerDependencies {
  owned: OwnedWorkers;
  store: Store;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Where agents dial. */
  serverUrl(): string;
  /** A worker could not be made. */
  onFailure(worker: OwnedWorker, error: unknown): void;
}

/** How long a one-time token lives at least, from the moment the instance runs. */
const TOKEN_LIFETIME_MS = 5 * 60_000;

export class WorkerMaker {
  readonly #deps: WorkerMakerDependencies;
  readonly #creating = new Set<Promise<void>>();

  constructor(deps: WorkerMakerDependencies) {
    this.#deps = deps;
  }

  make(pool: Pool, count: number): void {
    for (let made = 0; made < count; made += 1) {
      const creation = this.#create(pool).finally(() => this.#creating.delete(creation));
      this.#creating.add(creation);
    }
  }

  /** Resolves when no worker is being made. */
  async settled(): Promise<void> {
    await Promise.all(this.#creating);
  }

  async #create(pool: Pool): Promise<void> {
    const { owned, clock, random, log } = this.#deps;
    const worker = owned.book(uuidV7(clock, random), pool);
    const { workerId } = worker;
    try {
      await this.#ask(pool, worker);
      log.info({ workerId, pool: pool.name }, "worker created");
    } catch (error) {
      this.#deps.onFailure(worker, error);
      worker.failure = errorMessage(error);
      worker.madeAtMs = clock.nowMs();
      await owned.remove(worker, worker.failure).catch((cleanUpError: unknown) => {
        log.error({ err: cleanUpError, workerId }, "could not remove a worker");
      });
    }
  }

  async #ask({ name: poolName, provider, ...pool }: Pool, worker: OwnedWorker): Promise<void> {
    const { store, clock } = this.#deps;
    const { workerId, requestedAtMs } = worker;
    const { serverUrl, startTimeoutMs, ephemeral } = pool.definition;
    const name = `${poolName}-${workerId.slice(-8)}`;
    const token = uuidV4();
    const lifetimeMs = Math.max(TOKEN_LIFETIME_MS, startTimeoutMs);
    await store.insertWorker({
      id: workerId,
      name,
      provider: provider.name,
      pool: poolName,
      nowMs: requestedAtMs,
      takesOneJob: ephemeral,
      token: { hash: sha256Hex(token), expiresAtMs: requestedAtMs + 2 * lifetimeMs },
    });
    await provider.create({
      workerId,
      name,
      pool: poolName,
      serverUrl: serverUrl ?? this.#deps.serverUrl(),
      token,
      labels: pool.labels,
      taints: pool.taints,
      capacity: pool.capacity,
      environment: {},
    });
    const madeAtMs = clock.nowMs();
    await store.setTokenExpiry(workerId, madeAtMs + lifetimeMs);
    await store.changeWorker({ workerId, madeAtMs });
    // From here on it may be late: until then an image may have been pulled for it.
    worker.madeAtMs = madeAtMs;
  }
}
