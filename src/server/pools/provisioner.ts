/**
 * Makes workers that are missing and removes those that nobody needs.
 *
 * Level-triggered over three facts: what pools and scheduler want, what the providers say exists, and
 * what is connected. `provision` books a worker before it is made, so that the next scheduling round
 * does not ask for it again; the periodic round finds and mends whatever went wrong between. What a
 * pool lacks or has too much of is decided in core/pool-plan.ts, whether a pool that fails is asked
 * again in core/circuit-breaker.ts.
 */

import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { Plan, PlannedPool } from "../../core/plan.ts";
import { planPool, type PoolWorker } from "../../core/pool-plan.ts";
import type { PoolView, ProviderView } from "../../core/pool-view.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { Worker } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import { lastHeardAtMs } from "../loops/liveness.ts";
import type { WorkerConnection } from "../workers/worker-connection.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { Orphans } from "./orphans.ts";
import { OwnedWorkers, type OwnedWorker } from "./owned-workers.ts";
import { PoolStates } from "./pool-states.ts";
import type { Pool, PoolSource } from "./pool.ts";
import { ProviderChecks } from "./provider-checks.ts";
import { providerViews } from "./provider-views.ts";
import { WorkerMaker } from "./worker-maker.ts";

export interface ProvisionerDependencies {
  pools: PoolSource;
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Where agents dial. */
  serverUrl(): string;
  onJobChanged(job: Job): void;
  /** A worker is gone, or one may be made again. */
  onRoom(): void;
}

/**
 * A worker that runs and is silent for longer takes room in its pool for nothing, if it holds no job:
 * an agent that is well and finds no server has left by itself after half of it.
 */
const LOST_AFTER_MS = 10 * 60_000;

export class Provisioner {
  readonly #deps: ProvisionerDependencies;
  readonly #owned: OwnedWorkers;
  readonly #checks: ProviderChecks;
  readonly #orphans: Orphans;
  readonly #states: PoolStates;
  readonly #maker: WorkerMaker;
  /** Workers that an earlier server began to make and that had not registered. */
  readonly #arrivingAtStart = new Set<string>();
  readonly #listening = new Map<Provider, () => void>();
  #isStopped = false;

  constructor(deps: ProvisionerDependencies) {
    this.#deps = deps;
    this.#owned = new OwnedWorkers(deps);
    this.#orphans = new Orphans(deps.log);
    this.#checks = new ProviderChecks({ ...deps, onChange: (provider) => this.#onHealthChanged(provider) });
    const owned = this.#owned;
    this.#states = new PoolStates({ ...deps, owned, checks: this.#checks });
    const onFailure = (worker: OwnedWorker, error: unknown): void => this.#noteFailure(worker, error);
    this.#maker = new WorkerMaker({ ...deps, owned, onFailure });
    this.#listen();
  }

  /** Takes over the workers that an earlier server made. */
  async adopt(): Promise<void> {
    const { pools } = this.#deps;
    await this.#owned.adopt(pools, (worker) => {
      const pool = pools.get(worker.pool);
      if (pool) this.#states.conditionOf(pool).noteRegistered(worker, worker.info);
    });
    for (const { workerId, hasConnected } of this.#owned.all()) {
      if (!hasConnected) this.#arrivingAtStart.add(workerId);
    }
  }

  /** Where workers can be made, as of now: those of the settings first, then the others by name. */
  plannedPools(): PlannedPool[] {
    return this.#states.planned();
  }

  /** Never makes more than there is room for, whatever was planned a moment ago. */
  provision(wanted: Pick<Plan["provision"][number], "pool" | "count">[]): void {
    for (const { pool: name, count } of wanted) {
      const pool = this.#deps.pools.get(name);
      if (pool) this.#make(pool, Math.min(count, this.#states.roomOf(pool)));
    }
  }

  /** Compares the three facts and mends what differs. A provider that fails holds up no other one. */
  async round(): Promise<void> {
    this.#listen();
    this.#drainThoseWithoutPool();
    const { pools } = this.#deps;
    const providers = new Set([...pools.all(), ...this.#owned.all()].map(({ provider }) => provider));
    const turns = await Promise.allSettled([...providers].map((provider) => this.#attendTo(provider)));
    await this.#forgetDeleted();
    await this.#closeUnused();
    throwFirst(turns);
  }

  /** Asks providers how they are; with a name only those of that name. Says how many there were. */
  async checkProviders(name = ""): Promise<number> {
    const pools = this.#deps.pools.all().filter(({ providerName }) => name === "" || name === providerName);
    const providers = new Set(pools.map(({ provider }) => provider));
    await Promise.all([...providers].map((provider) => this.#checks.check(provider)));
    return providers.size;
  }

  async checkAllProviders(): Promise<void> {
    await this.checkProviders();
  }

  /** Asks those that were never asked. */
  async checkNewProviders(): Promise<void> {
    const providers = new Set(this.#deps.pools.all().map(({ provider }) => provider));
    const isNew = (provider: Provider): boolean => this.#checks.get(provider).checkedAtMs === null;
    await Promise.all([...providers].filter(isNew).map((provider) => this.#checks.check(provider)));
  }

  poolViews(): PoolView[] {
    return this.#states.views();
  }

  providerViews(): ProviderView[] {
    return providerViews(this.#deps.pools.all(), { checks: this.#checks, orphans: this.#orphans });
  }

  /** Workers that exist or are being made. */
  workerCount(pool: string): number {
    return this.#owned.ofPool(pool).length;
  }

  /** Resolves when nothing of it runs any more; false if no provider made it. */
  async removeWorker(workerId: string, reason: string): Promise<boolean> {
    const worker = this.#owned.get(workerId);
    if (!worker) return false;
    await this.#owned.remove(worker, reason);
    return true;
  }

  /**
   * Destroys every worker and waits until they are gone, for a server that leaves nothing behind. With
   * `own`, workers of an earlier server that still run a job are left to the next one.
   */
  async destroyWorkers(which: "all" | "own"): Promise<void> {
    this.stopListening();
    // A worker that is just being made is there only after that.
    await this.#maker.settled();
    await Promise.all(
      this.#owned.all().map(async (worker) => {
        if (which === "own" && worker.isAdopted && (await this.#isAtWork(worker))) return;
        await this.#owned.remove(worker, "the server stops");
      }),
    );
  }

  async #isAtWork({ workerId }: OwnedWorker): Promise<boolean> {
    return (await this.#deps.store.listLiveAttempts(workerId)).length > 0;
  }

  /** Makes no more workers, and hears of none; those that are there stay. */
  stopListening(): void {
    this.#isStopped = true;
    this.#states.stop();
    for (const stop of this.#listening.values()) stop();
    this.#listening.clear();
  }

  /** To the providers that there are now. Several of them may tell of the same instance. */
  #listen(): void {
    if (this.#isStopped) return;
    for (const { provider } of this.#deps.pools.all()) {
      if (this.#listening.has(provider)) continue;
      const stop = provider.onEvent(({ workerId, message }) => {
        const worker = this.#owned.get(workerId);
        if (worker?.provider === provider) void this.#onGone(worker, message);
      });
      this.#listening.set(provider, stop);
    }
  }

  #make(pool: Pool, count: number): void {
    if (count > 0) this.#listen();
    this.#maker.make(pool, count);
  }

  #noteFailure(worker: OwnedWorker, error: unknown, triedAtMs = worker.requestedAtMs): void {
    const condition = this.#states.conditionFor(worker);
    const before = condition?.failure?.message;
    condition?.noteFailure(error, triedAtMs);
    if (condition?.failure?.message === before) return;
    const isPermanent = condition?.failure?.isPermanent ?? false;
    this.#deps.log.error({ err: error, pool: worker.poolName, isPermanent }, "could not create a worker");
  }

  #onHealthChanged(provider: Provider): void {
    if (this.#checks.get(provider).health.status !== "unhealthy") {
      const pools = this.#deps.pools.all().filter((pool) => pool.provider === provider);
      for (const pool of pools) this.#states.conditionOf(pool).noteRecovery();
    }
    this.#deps.onRoom();
  }

  /** Looks at what there is, then does what its pools need, also if not all could be looked at. */
  async #attendTo(provider: Provider): Promise<void> {
    const looks = await Promise.allSettled([this.#lookAtWorkers(provider)]);
    const pools = this.#deps.pools.all().filter((pool) => pool.provider === provider);
    const plans = await Promise.allSettled(pools.map((pool) => this.#carryOut(pool)));
    throwFirst([...looks, ...plans]);
  }

  /**
   * What there is of the workers of a provider, and of what nobody owns. One worker that cannot be
   * removed holds up no other; a provider that is away is not asked about one after the other.
   */
  async #lookAtWorkers(provider: Provider): Promise<void> {
    const { connections } = this.#deps;
    const own = this.#owned.all().filter((worker) => worker.provider === provider);
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
        if (this.#checks.get(provider).health.status === "unhealthy") throw error;
      }
    }
    await this.#sweepOrphans(provider);
    if (failures.length > 0) throw failures[0];
  }

  async #sweepOrphans(provider: Provider): Promise<void> {
    const pools = this.#deps.pools.all();
    const pool = pools.find((each) => each.provider === provider);
    // One look is enough where several providers see the same instances.
    const isFirst = pools.find((each) => each.providerName === pool?.providerName) === pool;
    if (!pool || !isFirst) return;
    // One that is removed while the provider lists it is nobody's when the list is there.
    const ownedBefore = new Set(this.#owned.all().map(({ workerId }) => workerId));
    await this.#orphans.sweep(pool, async (workerId) => {
      if (ownedBefore.has(workerId) || this.#owned.get(workerId) !== null) return true;
      const stored = await this.#deps.store.getWorker(workerId);
      if (!stored || !hasCome(stored) || stored.state === "terminated") return false;
      // Its pool is gone from the settings, and it may hold jobs.
      this.#owned.takeOver(stored, provider);
      return true;
    });
  }

  /** Their pool is gone from the settings: nobody would ever send them away. */
  #drainThoseWithoutPool(): void {
    const { connections, pools } = this.#deps;
    for (const connection of connections.all()) {
      const { pool } = connection;
      if (pool !== "" && pools.get(pool) === null) connection.drain(`its pool ${pool} is gone`);
    }
  }

  async #look(worker: OwnedWorker): Promise<void> {
    const { connections, clock, store } = this.#deps;
    if (worker.failure !== null) return await this.#removeFailed(worker, worker.failure);
    const connection = connections.get(worker.workerId);
    if (connection) {
      if (!worker.hasConnected) this.#noteConnected(worker, await store.getWorker(worker.workerId));
      const isBusy = this.#states.isBusy(worker);
      worker.hasTakenJob ||= isBusy || connection.assignedCount > 0;
      worker.idleSinceMs = isBusy ? null : (worker.idleSinceMs ?? clock.nowMs());
      return;
    }
    worker.idleSinceMs = null;
    const stored = await store.getWorker(worker.workerId);
    // It may have come and lost its stream between two rounds.
    if (stored && hasCome(stored) && !worker.hasConnected) this.#noteConnected(worker, stored);
    if (!stored || stored.state === "terminated") {
      await this.#owned.remove(worker, "left");
    } else if (!worker.hasConnected && (await this.#wasNeverMade(worker))) {
      await this.#owned.remove(worker, "the server ended while it was being made");
    } else if (worker.hasConnected && (await worker.provider.inspect(worker.workerId)) === "gone") {
      await this.#onGone(worker, "its processes are gone");
    } else if (worker.hasConnected && (await this.#isLost(worker))) {
      await this.#owned.remove(worker, `nothing was heard of it for ${LOST_AFTER_MS / 60_000} min`);
    }
  }

  /** Frozen, or cut off for good. What it may still run counts until its lease is over. */
  async #isLost({ workerId }: OwnedWorker): Promise<boolean> {
    const { clock, store } = this.#deps;
    const nowMs = clock.nowMs();
    if (nowMs - (await lastHeardAtMs(workerId, nowMs, this.#deps)) < LOST_AFTER_MS) return false;
    return (await store.listLiveAttempts(workerId)).length === 0;
  }

  /** Of a server that ended in the middle: nothing will come, and the place in the pool is wanted. */
  async #wasNeverMade({ workerId, provider }: OwnedWorker): Promise<boolean> {
    if (!this.#arrivingAtStart.delete(workerId)) return false;
    return (await provider.inspect(workerId)) === "gone";
  }

  /** Could not be made, nor removed: while its provider is not known to be well, no others are made. */
  async #removeFailed(worker: OwnedWorker, failure: string): Promise<void> {
    try {
      await this.#owned.remove(worker, failure);
      this.#states.conditionFor(worker)?.noteRecovery();
    } catch (error) {
      const { status } = this.#checks.get(worker.provider).health;
      const isAboutWorker = status === "healthy" || status === "degraded";
      // It counts as a new try, so that its pool waits on.
      if (!isAboutWorker) this.#noteFailure(worker, error, this.#deps.clock.nowMs());
      throw error;
    }
  }

  #noteConnected(worker: OwnedWorker, stored: Worker | null): void {
    worker.hasConnected = true;
    const condition = this.#states.conditionFor(worker);
    if (!condition) return;
    condition.noteSuccess();
    const info = this.#deps.connections.get(worker.workerId)?.info ?? null;
    if (stored) condition.noteRegistered(stored, info ?? stored.info);
  }

  /** Drains, makes and gives up what the pool's plan says. */
  async #carryOut(pool: Pool): Promise<void> {
    const { connections, clock } = this.#deps;
    const own = this.#owned.ofPool(pool.name);
    const known = own.filter(({ isLeaving, failure }) => !isLeaving && failure === null);
    const { definition, isDeleting } = pool;
    const workers = known.map((worker) => this.#factsOf(worker, pool));
    const plan = planPool(
      { definition, isDeleting, room: this.#states.roomOf(pool, own), workers },
      clock.nowMs(),
    );
    for (const { id, reason } of plan.drain) connections.get(id)?.drain(reason);
    this.#make(pool, plan.make);
    throwFirst(await Promise.allSettled(plan.late.map((id) => this.#giveUp(id, definition))));
  }

  async #giveUp(workerId: string, { startTimeoutMs, serverUrl }: PoolDefinition): Promise<void> {
    const worker = this.#owned.get(workerId);
    const stored = await this.#deps.store.getWorker(workerId);
    if (!worker || worker.isLeaving || (stored && hasCome(stored))) return;
    const url = serverUrl ?? this.#deps.serverUrl();
    const message = `worker ${workerId} did not connect within ${startTimeoutMs / 1_000} s; can it reach ${url} from where it runs?`;
    this.#noteFailure(worker, new AppError("unavailable", message));
    await this.#owned.remove(worker, message);
  }

  #factsOf(worker: OwnedWorker, pool: Pool): PoolWorker {
    const connection: WorkerConnection | null = this.#deps.connections.get(worker.workerId);
    const { templateKey, requestedAtMs, hasTakenJob, idleSinceMs, madeAtMs, hasConnected } = worker;
    return {
      id: worker.workerId,
      isArriving: !hasConnected,
      isConnected: connection !== null,
      isBusy: this.#states.isBusy(worker),
      hasTakenJob,
      idleSinceMs,
      madeAtMs,
      isOutdated: templateKey === null ? requestedAtMs < pool.updatedAtMs : templateKey !== pool.templateKey,
      isDraining: connection?.session.draining ?? false,
      isCordoned: connection?.isCordoned ?? false,
    };
  }

  async #forgetDeleted(): Promise<void> {
    for (const { name, isDeleting } of this.#deps.pools.all()) {
      if (!isDeleting || this.#owned.ofPool(name).length > 0) continue;
      await this.#deps.pools.forget(name);
      this.#states.forget(name);
    }
  }

  async #closeUnused(): Promise<void> {
    const { pools } = this.#deps;
    const used = new Set(this.#owned.all().map(({ provider }) => provider));
    await pools.closeUnused(used);
    for (const { provider } of pools.all()) used.add(provider);
    for (const [provider, stop] of this.#listening) {
      if (used.has(provider)) continue;
      stop();
      this.#listening.delete(provider);
    }
  }

  async #onGone(worker: OwnedWorker, message: string): Promise<void> {
    const { workerId } = worker;
    if (worker.isLeaving || this.#owned.get(workerId) !== worker) return;
    const { connections, log, store } = this.#deps;
    log.info({ workerId, reason: message }, "worker is gone");
    const hasConnected = worker.hasConnected || connections.get(workerId) !== null;
    try {
      const stored = hasConnected ? null : await store.getWorker(workerId);
      if (stored && !hasCome(stored)) this.#noteFailure(worker, new AppError("unavailable", message));
      await this.#owned.remove(worker, message);
    } catch (error) {
      // The next round finds the worker gone again.
      log.error({ err: error, workerId }, "could not handle the loss of a worker");
    }
  }
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** It has registered, whatever became of it. */
function hasCome({ state }: Worker): boolean {
  return state !== "creating" && state !== "connecting";
}
