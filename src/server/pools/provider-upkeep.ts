/**
 * Looks after what one provider makes: removes workers that are gone, late or nobody's, drains those
 * that nobody needs, and makes those that its pools lack.
 *
 * Level-triggered over three facts: what the pools want, what the provider says exists, and what is
 * connected. What a pool lacks or has too much of is decided in core/pool-plan.ts.
 */

import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { planPool, type PoolWorker } from "../../core/pool-plan.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { Worker } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import { lastHeardAtMs } from "../loops/liveness.ts";
import type { WorkerConnection } from "../workers/worker-connection.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import type { Orphans } from "./orphans.ts";
import type { OwnedWorker, OwnedWorkers } from "./owned-workers.ts";
import type { PoolStates } from "./pool-states.ts";
import type { Pool, PoolSource } from "./pool.ts";
import type { ProviderChecks } from "./provider-checks.ts";

export interface ProviderUpkeepDependencies {
  pools: PoolSource;
  owned: OwnedWorkers;
  states: PoolStates;
  checks: Pick<ProviderChecks, "get">;
  orphans: Orphans;
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  log: Logger;
  /** Where agents dial. */
  serverUrl(): string;
  make(pool: Pool, count: number): void;
}

/**
 * A worker that runs and is silent for longer takes room in its pool for nothing, if it holds no job:
 * an agent that is well and finds no server has left by itself after half of it.
 */
export const LOST_AFTER_MS = 10 * 60_000;

export class ProviderUpkeep {
  readonly #deps: ProviderUpkeepDependencies;

  constructor(deps: ProviderUpkeepDependencies) {
    this.#deps = deps;
  }

  /** Looks at what there is, then does what its pools need, also if not all could be looked at. */
  async round(provider: Provider): Promise<void> {
    const looks = await Promise.allSettled([this.#lookAtWorkers(provider)]);
    const pools = this.#deps.pools.all().filter((pool) => pool.provider === provider);
    const plans = await Promise.allSettled(pools.map((pool) => this.#carryOut(pool)));
    const ends = await Promise.allSettled(pools.map((pool) => this.#forgetDeleted(pool)));
    throwFirst([...looks, ...plans, ...ends]);
  }

  /** The provider is certain that nothing of the worker runs. */
  async onGone(worker: OwnedWorker, message: string): Promise<void> {
    const { owned, states, connections, log, store } = this.#deps;
    const { workerId } = worker;
    if (worker.isLeaving || owned.get(workerId) !== worker) return;
    log.info({ workerId, reason: message }, "worker is gone");
    const hasConnected = worker.hasConnected || connections.get(workerId) !== null;
    try {
      const stored = hasConnected ? null : await store.getWorker(workerId);
      if (stored && !hasCome(stored)) states.noteFailure(worker, new AppError("unavailable", message));
      await owned.remove(worker, message);
    } catch (error) {
      // The next round finds the worker gone again.
      log.error({ err: error, workerId }, "could not handle the loss of a worker");
    }
  }

  /**
   * What there is of the workers of a provider, and of what nobody owns. One worker that cannot be
   * removed holds up no other; a provider that is away is not asked about one after the other.
   */
  async #lookAtWorkers(provider: Provider): Promise<void> {
    const { owned, connections, checks } = this.#deps;
    const own = owned.all().filter((worker) => worker.provider === provider);
    const isConnected = ({ workerId }: OwnedWorker): boolean => connections.get(workerId) !== null;
    // Of those that are connected nobody needs to be asked.
    const inOrder = own.toSorted((a, b) => Number(isConnected(b)) - Number(isConnected(a)));
    const failures: unknown[] = [];
    for (const worker of inOrder) {
      if (worker.isLeaving || worker.madeAtMs === null) continue;
      try {
        await this.#look(worker);
      } catch (error) {
        failures.push(error);
        if (checks.get(provider).health.status === "unhealthy") throw error;
      }
    }
    await this.#sweepOrphans(provider);
    if (failures.length > 0) throw failures[0];
  }

  async #look(worker: OwnedWorker): Promise<void> {
    const connection = this.#deps.connections.get(worker.workerId);
    if (worker.failure !== null) await this.#removeFailed(worker, worker.failure);
    else if (connection) await this.#lookAtConnected(worker, connection);
    else await this.#lookAtSilent(worker);
  }

  /** Could not be made, nor removed: while its provider is not known to be well, no others are made. */
  async #removeFailed(worker: OwnedWorker, failure: string): Promise<void> {
    const { owned, states, checks, clock } = this.#deps;
    try {
      await owned.remove(worker, failure);
      states.conditionFor(worker)?.noteRecovery();
    } catch (error) {
      const { status } = checks.get(worker.provider).health;
      const isAboutWorker = status === "healthy" || status === "degraded";
      // It counts as a new try, so that its pool waits on.
      if (!isAboutWorker) states.noteFailure(worker, error, clock.nowMs());
      throw error;
    }
  }

  async #lookAtConnected(worker: OwnedWorker, connection: WorkerConnection): Promise<void> {
    const { states, store, clock } = this.#deps;
    if (!worker.hasConnected) this.#noteConnected(worker, await store.getWorker(worker.workerId));
    const isBusy = states.isBusy(worker);
    worker.hasTakenJob ||= isBusy || connection.assignedCount > 0;
    worker.idleSinceMs = isBusy ? null : (worker.idleSinceMs ?? clock.nowMs());
  }

  async #lookAtSilent(worker: OwnedWorker): Promise<void> {
    const { owned, store } = this.#deps;
    const { workerId, provider } = worker;
    worker.idleSinceMs = null;
    const stored = await store.getWorker(workerId);
    if (!stored || stored.state === "terminated") return await owned.remove(worker, "left");
    // It may have come and lost its stream between two rounds.
    if (hasCome(stored) && !worker.hasConnected) this.#noteConnected(worker, stored);
    const { hasConnected, isAdopted } = worker;
    // It is on its way, and its provider tells when it is gone.
    if (!hasConnected && !isAdopted) return;
    if ((await provider.inspect(workerId)) === "gone") {
      if (hasConnected) await this.onGone(worker, "its processes are gone");
      else await owned.remove(worker, "the server ended while it was being made");
    } else if (hasConnected && (await this.#isLost(worker))) {
      await owned.remove(worker, `nothing was heard of it for ${LOST_AFTER_MS / 60_000} min`);
    }
  }

  /** Frozen, or cut off for good. What it may still run counts until its lease is over. */
  async #isLost({ workerId }: OwnedWorker): Promise<boolean> {
    const { clock, store } = this.#deps;
    const nowMs = clock.nowMs();
    if (nowMs - (await lastHeardAtMs(workerId, nowMs, this.#deps)) < LOST_AFTER_MS) return false;
    return (await store.listLiveAttempts(workerId)).length === 0;
  }

  #noteConnected(worker: OwnedWorker, stored: Worker | null): void {
    worker.hasConnected = true;
    const condition = this.#deps.states.conditionFor(worker);
    if (!condition) return;
    condition.noteSuccess();
    const info = this.#deps.connections.get(worker.workerId)?.info ?? null;
    if (stored) condition.noteRegistered(stored, info ?? stored.info);
  }

  async #sweepOrphans(provider: Provider): Promise<void> {
    const { pools, owned, orphans, store } = this.#deps;
    const pool = pools.all().find((each) => each.provider === provider);
    // One look is enough where several providers see the same instances.
    const isFirst = pools.all().find((each) => each.providerName === pool?.providerName) === pool;
    if (!pool || !isFirst) return;
    // One that is removed while the provider lists it is nobody's when the list is there.
    const ownedBefore = new Set(owned.all().map(({ workerId }) => workerId));
    await orphans.sweep(pool, async (workerId) => {
      if (ownedBefore.has(workerId) || owned.get(workerId) !== null) return true;
      const stored = await store.getWorker(workerId);
      if (!stored || !hasCome(stored) || stored.state === "terminated") return false;
      // Its pool is gone from the settings, and it may hold jobs.
      owned.takeOver(stored, provider);
      return true;
    });
  }

  /** Drains, makes and gives up what the pool's plan says. */
  async #carryOut(pool: Pool): Promise<void> {
    const { owned, states, connections, clock, make } = this.#deps;
    const own = owned.ofPool(pool.name);
    const known = own.filter(({ isLeaving, failure }) => !isLeaving && failure === null);
    const { definition, isDeleting } = pool;
    const workers = known.map((worker) => this.#factsOf(worker, pool));
    const room = states.roomOf(pool, own);
    const plan = planPool({ definition, isDeleting, room, workers }, clock.nowMs());
    for (const { id, reason } of plan.drain) connections.get(id)?.drain(reason);
    make(pool, plan.make);
    throwFirst(await Promise.allSettled(plan.late.map((id) => this.#giveUp(id, definition))));
  }

  #factsOf(worker: OwnedWorker, pool: Pool): PoolWorker {
    const connection = this.#deps.connections.get(worker.workerId);
    const { templateKey, requestedAtMs, hasTakenJob, idleSinceMs, madeAtMs, hasConnected } = worker;
    return {
      id: worker.workerId,
      isArriving: !hasConnected,
      isConnected: connection !== null,
      isBusy: this.#deps.states.isBusy(worker),
      hasTakenJob,
      idleSinceMs,
      madeAtMs,
      isOutdated: templateKey === null ? requestedAtMs < pool.updatedAtMs : templateKey !== pool.templateKey,
      isDraining: connection?.session.draining ?? false,
      isCordoned: connection?.isCordoned ?? false,
    };
  }

  async #giveUp(workerId: string, { startTimeoutMs, serverUrl }: PoolDefinition): Promise<void> {
    const { owned, states, store } = this.#deps;
    const worker = owned.get(workerId);
    const stored = await store.getWorker(workerId);
    if (!worker || worker.isLeaving || (stored && hasCome(stored))) return;
    const url = serverUrl ?? this.#deps.serverUrl();
    const message = `worker ${workerId} did not connect within ${startTimeoutMs / 1_000} s; can it reach ${url} from where it runs?`;
    states.noteFailure(worker, new AppError("unavailable", message));
    await owned.remove(worker, message);
  }

  async #forgetDeleted({ name, isDeleting }: Pool): Promise<void> {
    const { owned, states, pools } = this.#deps;
    if (!isDeleting || owned.ofPool(name).length > 0) return;
    await pools.forget(name);
    states.forget(name);
  }
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** It has connected, whatever became of it. */
function hasCome({ state }: Worker): boolean {
  return state !== "creating" && state !== "connecting";
}
