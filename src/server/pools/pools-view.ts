/** Pools and providers for the API: what there is, and changes to it. */

import { AppError } from "../../base/errors.ts";
import type { AppliedPool, PoolView, ProviderView } from "../../core/pool-view.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { PoolRegistry } from "./pool-registry.ts";
import type { Provisioner } from "./provisioner.ts";

export interface PoolsView {
  pools(): PoolView[];
  /** @throws AppError `invalid_argument`, `failed_precondition`, before anything is changed. */
  apply(
    definitions: readonly PoolDefinition[],
    options: { prune: boolean; dryRun: boolean },
  ): Promise<AppliedPool[]>;
  /** @throws AppError `not_found`, `failed_precondition`. */
  delete(name: string): Promise<void>;
  providers(): ProviderView[];
  /** Checks now; all of them for an empty name. @throws AppError `not_found`. */
  checkProviders(name: string): Promise<ProviderView[]>;
  /** Ends a worker through its provider; false if no provider made it. */
  removeWorker(workerId: string, reason: string): Promise<boolean>;
}

export interface PoolsDependencies {
  registry: PoolRegistry;
  provisioner: Provisioner;
  /** Pools have changed: workers may be missing, or too many, and jobs may fit now. */
  onPoolsChanged(): void;
}

export function createPoolsView({ registry, provisioner, onPoolsChanged }: PoolsDependencies): PoolsView {
  return {
    pools: () => provisioner.poolViews(),
    async apply(definitions, options) {
      const workerCount = (pool: string): number => provisioner.workerCount(pool);
      const applied = await registry.apply(definitions, { ...options, workerCount });
      if (options.dryRun || applied.every(({ change }) => change === "unchanged")) return applied;
      // So that whoever looks next sees whether its provider is there.
      await provisioner.checkNewProviders();
      onPoolsChanged();
      return applied;
    },
    async delete(name) {
      await registry.delete(name);
      onPoolsChanged();
    },
    providers: () => provisioner.providerViews(),
    async checkProviders(name) {
      if ((await provisioner.checkProviders(name)) === 0 && name !== "") {
        throw new AppError("not_found", `check provider ${name}: no pool has a provider of this name`);
      }
      const views = provisioner.providerViews();
      return name === "" ? views : views.filter((view) => view.name === name);
    },
    removeWorker: (workerId, reason) => provisioner.removeWorker(workerId, reason),
  };
}
