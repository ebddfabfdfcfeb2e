/** Pools and providers for the API: what there is, and changes to it. */

import { AppError } from "../../base/errors.ts";
import type { PoolRegistry } from "./pool-registry.ts";
import type { PoolsView } from "./pool-view.ts";
import type { Provisioner } from "./provisioner.ts";

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
