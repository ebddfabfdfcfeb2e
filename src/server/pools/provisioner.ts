/**
 * Makes workers that are missing and removes those that nobody needs.
 *
 * `provision` books a worker before it is made, so that the next scheduling round does not ask for it
 * again. Whatever goes wrong between is found and mended by what runs in the background
 * (provisioning-loops.ts), for each provider by itself (provider-upkeep.ts). Whether a pool that fails
 * is asked again is decided in core/circuit-breaker.ts.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { Plan, PlannedPool } from "../../core/plan.ts";
import type { PoolView, ProviderView } from "../../core/pool-view.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { Orphans } from "./orphans.ts";
import { OwnedWorkers, type OwnedWorker } from "./owned-workers.ts";
import { PoolStates } from "./pool-states.ts";
import type { Pool, PoolSource } from "./pool.ts";
import { ProviderChecks } from "./provider-checks.ts";
import { ProviderUpkeep } from "./provider-upkeep.ts";
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

export class Provisioner {
  readonly #deps: ProvisionerDependencies;
  readonly #owned: OwnedWorkers;
  readonly #checks: ProviderChecks;
  readonly #orphans: Orphans;
  readonly #states: PoolStates;
  readonly #maker: WorkerMaker;
  readonly #upkeep: ProviderUpkeep;
  /** Providers that `attendTo` is at. */
  readonly #attended = new Set<Provider>();
  readonly #listening = new Map<Provider, () => void>();
  #isStopped = false;

  constructor(deps: ProvisionerDependencies) {
    this.#deps = deps;
    const owned = new OwnedWorkers(deps);
    const orphans = new Orphans(deps.log);
    const checks = new ProviderChecks({ ...deps, onChange: (provider) => this.#onHealthChanged(provider) });
    const states = new PoolStates({ ...deps, owned, checks });
    const onFailure = (worker: OwnedWorker, error: unknown): void => states.noteFailure(worker, error);
    const make = (pool: Pool, count: number): void => this.#make(pool, count);
    this.#maker = new WorkerMaker({ ...deps, owned, onFailure });
    this.#upkeep = new ProviderUpkeep({ ...deps, owned, orphans, checks, states, make });
    this.#owned = owned;
    this.#orphans = orphans;
    this.#checks = checks;
    this.#states = states;
    this.#listen();
  }

  /** Takes over the workers that an earlier server made. */
  async adopt(): Promise<void> {
    const { pools } = this.#deps;
    await this.#owned.adopt(pools, (worker) => {
      const pool = pools.get(worker.pool);
      if (pool) this.#states.conditionOf(pool).noteRegistered(worker, worker.info);
    });
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

  /** Mends what is wrong with the workers and the pools of a provider; to be called once at a time for each. */
  async attendTo(provider: Provider): Promise<void> {
    this.#attended.add(provider);
    try {
      await this.#upkeep.round(provider);
    } finally {
      this.#attended.delete(provider);
    }
  }

  /** Those that pools, workers or `attendTo` need. */
  providers(): Set<Provider> {
    const users = [...this.#deps.pools.all(), ...this.#owned.all()];
    return new Set([...this.#attended, ...users.map(({ provider }) => provider)]);
  }

  /** Listens to the providers that are needed now and closes the others. */
  async tidy(): Promise<void> {
    this.#listen();
    this.#drainThoseWithoutPool();
    const needed = this.providers();
    for (const [provider, stop] of this.#listening) {
      if (needed.has(provider)) continue;
      stop();
      this.#listening.delete(provider);
    }
    await this.#deps.pools.closeUnused(needed);
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
        if (worker?.provider === provider) void this.#upkeep.onGone(worker, message);
      });
      this.#listening.set(provider, stop);
    }
  }

  #make(pool: Pool, count: number): void {
    if (count > 0) this.#listen();
    this.#maker.make(pool, count);
  }

  #onHealthChanged(provider: Provider): void {
    if (this.#checks.get(provider).health.status !== "unhealthy") {
      const pools = this.#deps.pools.all().filter((pool) => pool.provider === provider);
      for (const pool of pools) this.#states.conditionOf(pool).noteRecovery();
    }
    this.#deps.onRoom();
  }

  /** Their pool is gone from the settings: nobody would ever send them away. */
  #drainThoseWithoutPool(): void {
    const { connections, pools } = this.#deps;
    for (const connection of connections.all()) {
      const { pool } = connection;
      if (pool !== "" && pools.get(pool) === null) connection.drain(`its pool ${pool} is gone`);
    }
  }
}
