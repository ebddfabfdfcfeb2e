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
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { sha256Hex, uuidV4, uuidV7, type Random } from "../../base/random.ts";
import type { Failure } from "../../core/circuit-breaker.ts";
import type { Job } from "../../core/job.ts";
import type { Plan, PlannedPool } from "../../core/plan.ts";
import { planPool, poolRoom, type PoolWorker } from "../../core/pool-plan.ts";
import { rankPools } from "../../core/pool-rank.ts";
import type { Worker } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnection } from "../workers/worker-connection.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { Orphans } from "./orphans.ts";
import { OwnedWorkers, type OwnedWorker } from "./owned-workers.ts";
import { PoolCondition } from "./pool-condition.ts";
import type { PoolView, ProviderView } from "./pool-view.ts";
import type { Pool, PoolSource } from "./pool.ts";
import { healthReason, ProviderChecks } from "./provider-checks.ts";
import { providerViews } from "./provider-views.ts";

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

/** How long a one-time token lives at least, from the moment the instance runs. */
const TOKEN_LIFETIME_MS = 5 * 60_000;

export class Provisioner {
  readonly #deps: ProvisionerDependencies;
  readonly #owned: OwnedWorkers;
  readonly #checks: ProviderChecks;
  readonly #orphans: Orphans;
  /** Workers that an earlier server began to make and that had not registered. */
  readonly #arrivingAtStart = new Set<string>();
  /** By pool name; a pool whose workers are made in another way begins anew. */
  readonly #conditions = new Map<string, { templateKey: string; condition: PoolCondition }>();
  readonly #listening = new Map<Provider, () => void>();
  readonly #creating = new Set<Promise<void>>();
  #isStopped = false;

  constructor(deps: ProvisionerDependencies) {
    this.#deps = deps;
    this.#owned = new OwnedWorkers(deps);
    this.#orphans = new Orphans(deps.log);
    this.#checks = new ProviderChecks({ ...deps, onChange: (provider) => this.#onHealthChanged(provider) });
    this.#listen();
  }

  /** Takes over the workers that an earlier server made. */
  async adopt(): Promise<void> {
    const { pools } = this.#deps;
    await this.#owned.adopt(pools, (worker) => {
      const pool = pools.get(worker.pool);
      if (pool && worker.info) this.#conditionOf(pool).capabilities = worker.info.capabilities;
    });
    for (const { workerId, hasConnected } of this.#owned.all()) {
      if (!hasConnected) this.#arrivingAtStart.add(workerId);
    }
  }

  /** Where workers can be made, as of now: those of the settings first, then the others by name. */
  plannedPools(): PlannedPool[] {
    const workers = this.#workersByPool();
    const pools = this.#deps.pools.all();
    const ranks = rankPools(pools.map((pool) => ({ ...pool.definition, ...this.#rankFacts(pool) })));
    return pools.map((pool) => {
      const condition = this.#conditionOf(pool);
      const { failure } = condition;
      const own = workers.get(pool.name) ?? [];
      return {
        name: pool.name,
        labels: pool.labels,
        taints: pool.taints,
        capabilities: condition.capabilities,
        capacity: pool.capacity,
        room: this.#roomOf(pool, own),
        arriving: this.#arrivingOf(own),
        maxWorkers: pool.definition.maxWorkers,
        rank: ranks.get(pool.name) ?? pools.length,
        problem: this.#problemOf(pool, own),
        permanentProblem: permanentProblem(failure),
      };
    });
  }

  /** Never makes more than there is room for, whatever was planned a moment ago. */
  provision(wanted: Pick<Plan["provision"][number], "pool" | "count">[]): void {
    for (const { pool: name, count } of wanted) {
      const pool = this.#deps.pools.get(name);
      if (pool) this.#make(pool, Math.min(count, this.#roomOf(pool, this.#owned.ofPool(name))));
    }
  }

  /** Compares the three facts and mends what differs. A provider that fails holds up no other one. */
  async round(): Promise<void> {
    this.#listen();
    const { pools } = this.#deps;
    const providers = new Set([...pools.all(), ...this.#owned.all()].map(({ provider }) => provider));
    const looks = await Promise.allSettled([...providers].map((provider) => this.#lookAt(provider)));
    const plans = await Promise.allSettled(pools.all().map((pool) => this.#carryOut(pool)));
    await this.#forgetDeleted();
    await this.#closeUnused();
    for (const step of [...looks, ...plans]) if (step.status === "rejected") throw step.reason;
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
    const workers = this.#workersByPool();
    return this.#deps.pools
      .all()
      .map((pool) => this.#viewOf(pool, workers.get(pool.name) ?? []))
      .toSorted((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
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
    await Promise.all(this.#creating);
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

  #workersByPool(): Map<string, OwnedWorker[]> {
    const byPool = new Map<string, OwnedWorker[]>();
    for (const worker of this.#owned.all()) {
      const known = byPool.get(worker.poolName);
      if (known) known.push(worker);
      else byPool.set(worker.poolName, [worker]);
    }
    return byPool;
  }

  #conditionOf({ name, templateKey }: Pool): PoolCondition {
    const known = this.#conditions.get(name);
    if (known?.templateKey === templateKey) return known.condition;
    const condition = new PoolCondition(this.#deps);
    this.#conditions.set(name, { templateKey, condition });
    return condition;
  }

  /** Null if its pool is made in another way by now, of which it says nothing. */
  #conditionFor(worker: Pick<OwnedWorker, "poolName" | "templateKey">): PoolCondition | null {
    const pool = this.#deps.pools.get(worker.poolName);
    const isSame = pool && (worker.templateKey ?? pool.templateKey) === pool.templateKey;
    return isSame ? this.#conditionOf(pool) : null;
  }

  #rankFacts(pool: Pool): { isDegraded: boolean; startTimeMs: number | null } {
    const { status } = this.#checks.get(pool.provider).health;
    const { starts, breaker } = this.#conditionOf(pool);
    const isDegraded = status === "degraded" || status === "unhealthy" || breaker !== "closed";
    return { isDegraded, startTimeMs: starts.medianMs };
  }

  #arrivingOf(workers: readonly OwnedWorker[]): number {
    return workers.filter(
      ({ workerId, hasConnected, failure }) =>
        !hasConnected && failure === null && !this.#deps.connections.get(workerId),
    ).length;
  }

  #roomOf(pool: Pool, workers: readonly OwnedWorker[]): number {
    return poolRoom({
      maxWorkers: pool.definition.maxWorkers,
      existing: workers.length,
      arriving: this.#arrivingOf(workers),
      breaker: this.#conditionOf(pool).breaker,
      isUsable: !this.#isStopped && !pool.isDeleting && !this.#isUnhealthy(pool),
    });
  }

  #isUnhealthy({ provider }: Pool): boolean {
    return this.#checks.get(provider).health.status === "unhealthy";
  }

  /** Null while workers can be made, or are as many as there may be. */
  #problemOf(pool: Pool, workers: readonly OwnedWorker[]): string | null {
    if (pool.isDeleting) return "it is being deleted";
    if (this.#isUnhealthy(pool)) {
      const reason = healthReason(this.#checks.get(pool.provider).health);
      return `provider ${pool.providerName} is unhealthy: ${reason}`;
    }
    const { breaker, failure } = this.#conditionOf(pool);
    const isHeldBack = breaker !== "closed" && this.#roomOf(pool, workers) === 0;
    return isHeldBack && failure ? failure.message : null;
  }

  #viewOf(pool: Pool, workers: readonly OwnedWorker[]): PoolView {
    const { definition, isFromSettings, isDeleting } = pool;
    const condition = this.#conditionOf(pool);
    return {
      definition,
      isFromSettings,
      isDeleting,
      workers: workers.length,
      arriving: this.#arrivingOf(workers),
      busy: workers.filter((worker) => this.#isBusy(worker)).length,
      problem: this.#problemOf(pool, workers) ?? "",
      retryAtMs: condition.retryAtMs,
      startTimeMs: condition.starts.medianMs,
    };
  }

  #isBusy({ workerId }: OwnedWorker): boolean {
    const { connections } = this.#deps;
    const attempts = connections.get(workerId)?.session.attempts.size ?? 0;
    return attempts > 0 || connections.isAssigning(workerId);
  }

  #make(pool: Pool, count: number): void {
    if (this.#isStopped) return;
    for (let made = 0; made < count; made += 1) {
      const creation = this.#create(pool).finally(() => this.#creating.delete(creation));
      this.#creating.add(creation);
    }
  }

  async #create(pool: Pool): Promise<void> {
    const { store, clock, random, log } = this.#deps;
    const workerId = uuidV7(clock, random);
    const worker = this.#owned.book(workerId, pool);
    const { requestedAtMs } = worker;
    this.#listen();
    const token = uuidV4();
    const name = `${pool.name}-${workerId.slice(-8)}`;
    const lifetimeMs = Math.max(TOKEN_LIFETIME_MS, pool.definition.startTimeoutMs);
    try {
      await store.insertWorker({
        id: workerId,
        name,
        provider: pool.provider.name,
        pool: pool.name,
        nowMs: requestedAtMs,
        token: { hash: sha256Hex(token), expiresAtMs: requestedAtMs + 2 * lifetimeMs },
      });
      const { serverUrl } = pool.definition;
      await pool.provider.create({
        workerId,
        name,
        pool: pool.name,
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
      log.info({ workerId, pool: pool.name }, "worker created");
    } catch (error) {
      this.#noteFailure(worker, error);
      worker.failure = errorMessage(error);
      worker.madeAtMs = clock.nowMs();
      await this.#owned.remove(worker, worker.failure).catch((cleanUpError: unknown) => {
        log.error({ err: cleanUpError, workerId }, "could not remove a worker");
      });
    }
  }

  #noteFailure(worker: OwnedWorker, error: unknown, triedAtMs = worker.requestedAtMs): void {
    const condition = this.#conditionFor(worker);
    const before = condition?.failure?.message;
    condition?.noteFailure(error, triedAtMs);
    if (condition?.failure?.message === before) return;
    const isPermanent = condition?.failure?.isPermanent ?? false;
    this.#deps.log.error({ err: error, pool: worker.poolName, isPermanent }, "could not create a worker");
  }

  #onHealthChanged(provider: Provider): void {
    if (this.#checks.get(provider).health.status !== "unhealthy") {
      const pools = this.#deps.pools.all().filter((pool) => pool.provider === provider);
      for (const pool of pools) this.#conditionOf(pool).noteRecovery();
    }
    this.#deps.onRoom();
  }

  /** What there is of the workers of a provider, and of what nobody owns. */
  async #lookAt(provider: Provider): Promise<void> {
    for (const worker of this.#owned.all()) {
      const isChanging = worker.isLeaving || worker.madeAtMs === null;
      if (worker.provider === provider && !isChanging) await this.#look(worker);
    }
    const pools = this.#deps.pools.all();
    const pool = pools.find((each) => each.provider === provider);
    // One look is enough where several providers see the same instances.
    const isFirst = pools.find((each) => each.providerName === pool?.providerName) === pool;
    if (!pool || !isFirst) return;
    // One that is removed while the provider lists it is nobody's when the list is there.
    const ownedBefore = new Set(this.#owned.all().map(({ workerId }) => workerId));
    await this.#orphans.sweep(
      pool,
      (workerId) => ownedBefore.has(workerId) || this.#owned.get(workerId) !== null,
    );
  }

  async #look(worker: OwnedWorker): Promise<void> {
    const { connections, clock, store } = this.#deps;
    if (worker.failure !== null) return await this.#removeFailed(worker, worker.failure);
    const connection = connections.get(worker.workerId);
    if (connection) {
      if (!worker.hasConnected) this.#noteConnected(worker, await store.getWorker(worker.workerId));
      const isBusy = this.#isBusy(worker);
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
    }
  }

  /** Of a server that ended in the middle: nothing will come, and the place in the pool is wanted. */
  async #wasNeverMade({ workerId, provider }: OwnedWorker): Promise<boolean> {
    if (!this.#arrivingAtStart.delete(workerId)) return false;
    return (await provider.inspect(workerId)) === "gone";
  }

  /** Could not be made, nor removed: until its provider answers again, no others are made. */
  async #removeFailed(worker: OwnedWorker, failure: string): Promise<void> {
    try {
      await this.#owned.remove(worker, failure);
      this.#conditionFor(worker)?.noteRecovery();
    } catch (error) {
      // It counts as a new try, so that its pool waits on.
      this.#noteFailure(worker, error, this.#deps.clock.nowMs());
      throw error;
    }
  }

  #noteConnected(worker: OwnedWorker, stored: Worker | null): void {
    worker.hasConnected = true;
    const condition = this.#conditionFor(worker);
    if (!condition) return;
    condition.noteSuccess();
    const info = this.#deps.connections.get(worker.workerId)?.info ?? stored?.info;
    if (info) condition.capabilities = info.capabilities;
    const registeredAtMs = stored?.registeredAtMs ?? null;
    if (registeredAtMs !== null) condition.starts.add(registeredAtMs - worker.requestedAtMs);
  }

  /** Drains, makes and gives up what the pool's plan says. */
  async #carryOut(pool: Pool): Promise<void> {
    const { connections, clock } = this.#deps;
    const own = this.#owned.ofPool(pool.name);
    const known = own.filter(({ isLeaving, failure }) => !isLeaving && failure === null);
    const { definition, isDeleting } = pool;
    const workers = known.map((worker) => this.#factsOf(worker, pool));
    const plan = planPool({ definition, isDeleting, room: this.#roomOf(pool, own), workers }, clock.nowMs());
    for (const { id, reason } of plan.drain) connections.get(id)?.drain(reason);
    this.#make(pool, plan.make);
    for (const id of plan.late) {
      const worker = this.#owned.get(id);
      const stored = await this.#deps.store.getWorker(id);
      if (!worker || worker.isLeaving || (stored && hasCome(stored))) continue;
      this.#noteFailure(worker, new Error(`worker ${id} did not connect`));
      await this.#owned.remove(worker, "did not connect in time");
    }
  }

  #factsOf(worker: OwnedWorker, pool: Pool): PoolWorker {
    const connection: WorkerConnection | null = this.#deps.connections.get(worker.workerId);
    const { templateKey, requestedAtMs, hasTakenJob, idleSinceMs, madeAtMs, hasConnected } = worker;
    return {
      id: worker.workerId,
      isArriving: !hasConnected,
      isConnected: connection !== null,
      isBusy: this.#isBusy(worker),
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
      this.#conditions.delete(name);
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

/** It has registered, whatever became of it. */
function hasCome({ state }: Worker): boolean {
  return state !== "creating" && state !== "connecting";
}

function permanentProblem(failure: Failure | null): PlannedPool["permanentProblem"] {
  if (failure?.isPermanent !== true) return null;
  const { message, triedAtMs } = failure;
  return { message, triedAtMs };
}
