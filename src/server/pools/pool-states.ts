/**
 * The pools as they are now: their workers, their troubles, and where workers can be made. Everything
 * is read anew with each call, because workers come and go at any time.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Failure } from "../../core/circuit-breaker.ts";
import type { PlannedPool } from "../../core/plan.ts";
import { poolRoom } from "../../core/pool-plan.ts";
import { rankPools } from "../../core/pool-rank.ts";
import type { PoolView } from "../../core/pool-view.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import type { OwnedWorker, OwnedWorkers } from "./owned-workers.ts";
import { PoolCondition } from "./pool-condition.ts";
import type { Pool, PoolSource } from "./pool.ts";
import { healthReason, type ProviderChecks } from "./provider-checks.ts";

export interface PoolStatesDependencies {
  pools: PoolSource;
  owned: OwnedWorkers;
  checks: Pick<ProviderChecks, "get">;
  connections: WorkerConnections;
  clock: Clock;
  random: Random;
  log: Logger;
}

export class PoolStates {
  readonly #deps: PoolStatesDependencies;
  /** By pool name; a pool whose workers are made in another way begins anew. */
  readonly #conditions = new Map<string, { templateKey: string; condition: PoolCondition }>();
  #isStopped = false;

  constructor(deps: PoolStatesDependencies) {
    this.#deps = deps;
  }

  /** From now on there is room in no pool. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Where workers can be made, as of now: those of the settings first, then the others by name. */
  planned(): PlannedPool[] {
    const workers = this.#workersByPool();
    const pools = this.#deps.pools.all();
    const ranks = rankPools(pools.map((pool) => ({ ...pool.definition, ...this.#rankFacts(pool) })));
    return pools.map((pool) => {
      const condition = this.conditionOf(pool);
      const { failure } = condition;
      const own = workers.get(pool.name) ?? [];
      return {
        name: pool.name,
        labels: pool.labels,
        taints: pool.taints,
        capabilities: condition.capabilities,
        capacity: pool.capacity,
        room: this.roomOf(pool, own),
        arriving: this.#arrivingOf(own),
        maxWorkers: pool.definition.maxWorkers,
        rank: ranks.get(pool.name) ?? pools.length,
        activity: pool.provider.activity ?? null,
        problem: this.#problemOf(pool, own),
        permanentProblem: permanentProblem(failure),
      };
    });
  }

  /** By name. */
  views(): PoolView[] {
    const workers = this.#workersByPool();
    return this.#deps.pools
      .all()
      .map((pool) => this.#viewOf(pool, workers.get(pool.name) ?? []))
      .toSorted((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
  }

  #workersByPool(): Map<string, OwnedWorker[]> {
    const byPool = new Map<string, OwnedWorker[]>();
    for (const worker of this.#deps.owned.all()) {
      const known = byPool.get(worker.poolName);
      if (known) known.push(worker);
      else byPool.set(worker.poolName, [worker]);
    }
    return byPool;
  }

  /** What is known of a pool. */
  conditionOf({ name, templateKey }: Pool): PoolCondition {
    const known = this.#conditions.get(name);
    if (known?.templateKey === templateKey) return known.condition;
    const condition = new PoolCondition(this.#deps);
    this.#conditions.set(name, { templateKey, condition });
    return condition;
  }

  /** Of a worker's pool; null if that is made in another way by now, of which it says nothing. */
  conditionFor(worker: Pick<OwnedWorker, "poolName" | "templateKey">): PoolCondition | null {
    const pool = this.#deps.pools.get(worker.poolName);
    const isSame = pool && (worker.templateKey ?? pool.templateKey) === pool.templateKey;
    return isSame ? this.conditionOf(pool) : null;
  }

  /** Its pool failed to make a worker: `triedAtMs` is when that began. */
  noteFailure(worker: OwnedWorker, error: unknown, triedAtMs = worker.requestedAtMs): void {
    const condition = this.conditionFor(worker);
    const before = condition?.failure?.message;
    condition?.noteFailure(error, triedAtMs);
    if (condition?.failure?.message === before) return;
    const isPermanent = condition?.failure?.isPermanent ?? false;
    this.#deps.log.error({ err: error, pool: worker.poolName, isPermanent }, "could not create a worker");
  }

  /** The pool is no more. */
  forget(name: string): void {
    this.#conditions.delete(name);
  }

  #rankFacts(pool: Pool): { isDegraded: boolean; startTimeMs: number | null } {
    const { status } = this.#deps.checks.get(pool.provider).health;
    const { starts, breaker } = this.conditionOf(pool);
    const isDegraded = status === "degraded" || status === "unhealthy" || breaker !== "closed";
    return { isDegraded, startTimeMs: starts.medianMs };
  }

  #arrivingOf(workers: readonly OwnedWorker[]): number {
    return workers.filter(
      ({ workerId, hasConnected, failure }) =>
        !hasConnected && failure === null && !this.#deps.connections.get(workerId),
    ).length;
  }

  /** How many more workers may be made now. */
  roomOf(pool: Pool, workers: readonly OwnedWorker[] = this.#deps.owned.ofPool(pool.name)): number {
    return poolRoom({
      maxWorkers: pool.definition.maxWorkers,
      existing: workers.length,
      arriving: this.#arrivingOf(workers),
      breaker: this.conditionOf(pool).breaker,
      isUsable: !this.#isStopped && !pool.isDeleting && !this.#isUnhealthy(pool),
    });
  }

  #isUnhealthy({ provider }: Pool): boolean {
    return this.#deps.checks.get(provider).health.status === "unhealthy";
  }

  /** Null while workers can be made, or are as many as there may be. */
  #problemOf(pool: Pool, workers: readonly OwnedWorker[]): string | null {
    if (pool.isDeleting) return "it is being deleted";
    if (this.#isUnhealthy(pool)) {
      const reason = healthReason(this.#deps.checks.get(pool.provider).health);
      return `provider ${pool.providerName} is unhealthy: ${reason}`;
    }
    const { breaker, failure } = this.conditionOf(pool);
    const isHeldBack = breaker !== "closed" && this.roomOf(pool, workers) === 0;
    return isHeldBack && failure ? failure.message : null;
  }

  #viewOf(pool: Pool, workers: readonly OwnedWorker[]): PoolView {
    const { definition, isFromSettings, isDeleting } = pool;
    const condition = this.conditionOf(pool);
    return {
      definition,
      isFromSettings,
      isDeleting,
      workers: workers.length,
      arriving: this.#arrivingOf(workers),
      busy: workers.filter((worker) => this.isBusy(worker)).length,
      problem: this.#problemOf(pool, workers) ?? "",
      retryAtMs: condition.retryAtMs,
      startTimeMs: condition.starts.medianMs,
    };
  }

  /** It holds attempts, or is being given one. */
  isBusy({ workerId }: OwnedWorker): boolean {
    const { connections } = this.#deps;
    const attempts = connections.get(workerId)?.session.attempts.size ?? 0;
    return attempts > 0 || connections.isAssigning(workerId);
  }
}

function permanentProblem(failure: Failure | null): PlannedPool["permanentProblem"] {
  if (failure?.isPermanent !== true) return null;
  const { message, triedAtMs } = failure;
  return { message, triedAtMs };
}
