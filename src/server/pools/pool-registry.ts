/**
 * The pools that there are: those of the settings, which nobody changes while the server runs, and
 * those that people apply, which the database keeps.
 *
 * Pools that make their workers in the same way share one instance of a provider, which is closed when
 * the last of them and its last worker are gone. A stored pool whose provider cannot be opened, because
 * its TLS files are gone for example, stays, says why it makes no workers, and makes some as soon as
 * the provider can be opened, which each health check tries.
 */

import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Service } from "../../base/service.ts";
import { isSamePool, providerKey } from "../../core/pool-change.ts";
import { mountProblems, poolProblems } from "../../core/pool-problems.ts";
import type { AppliedPool } from "../../core/pool-view.ts";
import { poolWith, type PoolDefinition, type PoolProvider, type StoredPool } from "../../core/pool.ts";
import { DeferredProvider } from "../../providers/deferred-provider.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Store } from "../../storage/store.ts";
import { poolOf, type Machine, type Pool, type PoolSource } from "./pool.ts";

export interface PoolRegistryDependencies {
  store: Pick<Store, "listPools" | "putPools" | "markPoolsDeleting" | "removePool">;
  /** Trusted: they may mount what they like. */
  settingsPools: readonly PoolDefinition[];
  /** @throws AppError with what is wrong with the template. */
  makeProvider(definition: PoolDefinition): Promise<Provider>;
  nameProvider(provider: PoolProvider): string;
  machine: Machine;
  /** Directories of the machine that containers of applied pools may see. */
  allowedMounts: readonly string[];
  clock: Clock;
  log: Logger;
}

export interface ApplyOptions {
  /** Deletes every other pool that people have applied. */
  prune: boolean;
  dryRun: boolean;
  /** How many workers of a pool there are. */
  workerCount(pool: string): number;
}

export async function openPoolRegistry(deps: PoolRegistryDependencies): Promise<PoolRegistry> {
  const registry = new PoolRegistry(deps);
  await registry.open();
  return registry;
}

export class PoolRegistry implements PoolSource, Service {
  readonly #deps: PoolRegistryDependencies;
  readonly #pools = new Map<string, Pool>();
  readonly #providers = new Map<string, Provider>();
  /** Changes go one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #sorted: readonly Pool[] | null = null;

  constructor(deps: PoolRegistryDependencies) {
    this.#deps = deps;
  }

  /** @throws AppError `invalid_argument` if a pool of the settings cannot be. */
  async open(): Promise<void> {
    const { settingsPools, store, log } = this.#deps;
    for (const definition of settingsPools) {
      assertNoProblems("settings", [definition]);
      this.#set(await this.#poolOf(definition, { isFromSettings: true }));
    }
    for (const stored of await store.listPools()) {
      const { name } = stored.definition;
      if (this.#pools.has(name)) log.warn({ pool: name }, "a pool of the settings hides a stored one");
      else this.#set(await this.#storedPool(stored));
    }
  }

  all(): readonly Pool[] {
    this.#sorted ??= [...this.#pools.values()].toSorted(
      (a, b) =>
        Number(b.isFromSettings) - Number(a.isFromSettings) ||
        (a.isFromSettings ? 0 : a.name < b.name ? -1 : 1),
    );
    return this.#sorted;
  }

  get(name: string): Pool | null {
    return this.#pools.get(name) ?? null;
  }

  /** Makes or changes pools, all or none; the answer is in the order of the request, then the pruned. */
  apply(definitions: readonly PoolDefinition[], options: ApplyOptions): Promise<AppliedPool[]> {
    return this.#alone(() => this.#apply(definitions, options));
  }

  delete(name: string): Promise<void> {
    return this.#alone(async () => {
      const pool = this.get(name);
      if (!pool) throw new AppError("not_found", `delete pool ${name}: there is none of this name`);
      assertNotFromSettings(`delete pool ${name}`, pool);
      await this.#markDeleting([name]);
    });
  }

  forget(name: string): Promise<void> {
    return this.#alone(async () => {
      if (this.get(name)?.isDeleting !== true) return;
      await this.#deps.store.removePool(name);
      this.#pools.delete(name);
      this.#sorted = null;
    });
  }

  closeUnused(used: ReadonlySet<Provider>): Promise<void> {
    return this.#alone(async () => {
      const needed = new Set([...used, ...this.all().map(({ provider }) => provider)]);
      for (const [key, provider] of this.#providers) {
        if (needed.has(provider)) continue;
        this.#providers.delete(key);
        await provider.close();
      }
    });
  }

  /** Lets go of the providers; workers stay. */
  async stop(): Promise<void> {
    const providers = [...this.#providers.values()];
    this.#providers.clear();
    for (const provider of providers) await provider.close();
  }

  async #apply(
    definitions: readonly PoolDefinition[],
    { prune, dryRun, workerCount }: ApplyOptions,
  ): Promise<AppliedPool[]> {
    this.#assertValid(definitions, workerCount);
    const { store, clock } = this.#deps;
    const nowMs = clock.nowMs();
    const changed = definitions.filter((definition) => this.#changeTo(definition) !== "unchanged");
    const pruned = prune ? this.#othersThan(definitions) : [];
    const answer = [
      ...definitions.map((definition) => ({ name: definition.name, change: this.#changeTo(definition) })),
      ...pruned.map((name) => ({ name, change: "deleted" as const })),
    ];
    // Before anything is changed: a template that cannot be opened is refused by this.
    const pools: Pool[] = [];
    for (const definition of changed) pools.push(await this.#changedPool(definition, nowMs));
    if (dryRun) return answer;
    if (changed.length > 0) await store.putPools(changed, nowMs);
    for (const pool of pools) this.#set(pool);
    if (pruned.length > 0) await this.#markDeleting(pruned);
    return answer;
  }

  #assertValid(definitions: readonly PoolDefinition[], workerCount: (pool: string) => number): void {
    assertNoProblems("apply pools", definitions, this.#deps.allowedMounts);
    for (const { name, provider } of definitions) {
      const before = this.get(name);
      if (!before) continue;
      assertNotFromSettings(`change pool ${name}`, before);
      const place = this.#deps.nameProvider(provider);
      // After a restart nobody would know where its workers are.
      if (place !== before.providerName && workerCount(name) > 0) {
        throw new AppError(
          "failed_precondition",
          `change pool ${name}: it has workers at ${before.providerName}, so it cannot move to ${place}; give the new pool another name, or delete this one and wait until its workers are gone`,
        );
      }
    }
  }

  #changeTo(definition: PoolDefinition): AppliedPool["change"] {
    const before = this.get(definition.name);
    if (!before) return "created";
    return !before.isDeleting && isSamePool(before.definition, definition) ? "unchanged" : "updated";
  }

  /** Names of the other pools that people have applied. */
  #othersThan(definitions: readonly PoolDefinition[]): string[] {
    const named = new Set(definitions.map(({ name }) => name));
    return this.all()
      .filter((pool) => !pool.isFromSettings && !pool.isDeleting && !named.has(pool.name))
      .map(({ name }) => name);
  }

  /** `updatedAtMs` stays where workers are made as before: older ones would be replaced. */
  async #changedPool(definition: PoolDefinition, nowMs: number): Promise<Pool> {
    const before = this.get(definition.name);
    const pool = await this.#poolOf(definition, { updatedAtMs: nowMs });
    if (pool.provider instanceof DeferredProvider) await pool.provider.opened();
    return before?.templateKey === pool.templateKey ? { ...pool, updatedAtMs: before.updatedAtMs } : pool;
  }

  async #markDeleting(names: readonly string[]): Promise<void> {
    const { store, clock } = this.#deps;
    await store.markPoolsDeleting(names, clock.nowMs());
    for (const name of names) {
      const pool = this.get(name);
      if (pool) this.#set({ ...pool, isDeleting: true });
    }
  }

  async #storedPool({ definition: stored, isDeleting, updatedAtMs }: StoredPool): Promise<Pool> {
    const definition = poolWith(stored);
    const facts = { isDeleting, updatedAtMs };
    try {
      return await this.#poolOf(definition, facts);
    } catch (error) {
      this.#deps.log.error({ err: error, pool: definition.name }, "could not open the provider of a pool");
      const open = (): Promise<Provider> => this.#deps.makeProvider(definition);
      const deferred = new DeferredProvider(definition.provider.type, open);
      this.#providers.set(providerKey(definition), deferred);
      return await this.#poolOf(definition, facts);
    }
  }

  async #poolOf(
    definition: PoolDefinition,
    facts: Partial<Pick<Pool, "isFromSettings" | "isDeleting" | "updatedAtMs">>,
  ): Promise<Pool> {
    const { machine, makeProvider, nameProvider } = this.#deps;
    const key = providerKey(definition);
    const provider = this.#providers.get(key) ?? (await makeProvider(definition));
    this.#providers.set(key, provider);
    return poolOf(definition, {
      provider,
      providerName: nameProvider(definition.provider),
      machine,
      ...facts,
    });
  }

  #set(pool: Pool): void {
    this.#pools.set(pool.name, pool);
    this.#sorted = null;
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done;
    return done;
  }
}

/** `allowedMounts` is left out where any is allowed. */
function assertNoProblems(
  what: string,
  definitions: readonly PoolDefinition[],
  allowedMounts?: readonly string[],
): void {
  const problems = definitions.flatMap((definition, index) => {
    const isRepeated = definitions.slice(0, index).some(({ name }) => name === definition.name);
    const found = [
      ...poolProblems(definition),
      ...(allowedMounts ? mountProblems(definition, allowedMounts) : []),
      ...(isRepeated ? [{ path: "name", message: "another pool of the request has it too" }] : []),
    ];
    return found.map((problem) => ({ pool: definition.name, ...problem }));
  });
  if (problems.length === 0) return;
  const lines = problems.map(({ pool, path, message }) => `pool ${pool}: ${path}: ${message}`);
  throw new AppError("invalid_argument", `${what}: ${lines.join("; ")}`, { details: { problems } });
}

function assertNotFromSettings(what: string, pool: Pool): void {
  if (!pool.isFromSettings) return;
  const message = `${what}: it belongs to the settings of the server; change the flags that it is started with`;
  throw new AppError("failed_precondition", message);
}
