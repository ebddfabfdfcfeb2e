/** Pools that are only a list, and providers that are as a test says. */

import { AppError } from "../../base/errors.ts";
import type { AppliedPool, PoolView, ProviderView } from "../../core/pool-view.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { PoolsView } from "../pools/pools-view.ts";

export class FakePools implements PoolsView {
  readonly definitions = new Map<string, PoolDefinition>();
  readonly removed: { workerId: string; reason: string }[] = [];
  /** Workers that a provider made. */
  readonly made = new Set<string>();
  views: Partial<PoolView> = {};
  providerViews: ProviderView[] = [];

  pools(): PoolView[] {
    return [...this.definitions.values()].map((definition) => ({
      definition,
      isFromSettings: false,
      isDeleting: false,
      workers: 0,
      arriving: 0,
      busy: 0,
      problem: "",
      retryAtMs: null,
      startTimeMs: null,
      ...this.views,
    }));
  }

  async apply(
    definitions: readonly PoolDefinition[],
    { prune, dryRun }: { prune: boolean; dryRun: boolean },
  ): Promise<AppliedPool[]> {
    const applied: AppliedPool[] = definitions.map(({ name }) => ({
      name,
      change: this.definitions.has(name) ? "updated" : "created",
    }));
    const kept = new Set(definitions.map(({ name }) => name));
    const pruned = prune ? [...this.definitions.keys()].filter((name) => !kept.has(name)) : [];
    if (!dryRun) {
      for (const definition of definitions) this.definitions.set(definition.name, definition);
      for (const name of pruned) this.definitions.delete(name);
    }
    return [...applied, ...pruned.map((name): AppliedPool => ({ name, change: "deleted" }))];
  }

  async delete(name: string): Promise<void> {
    if (!this.definitions.delete(name)) throw new AppError("not_found", `delete pool ${name}: there is none`);
  }

  providers(): ProviderView[] {
    return this.providerViews;
  }

  async checkProviders(name: string): Promise<ProviderView[]> {
    const checked = this.providerViews.filter((provider) => name === "" || provider.name === name);
    if (name !== "" && checked.length === 0) throw new AppError("not_found", `check provider ${name}: none`);
    return checked;
  }

  async removeWorker(workerId: string, reason: string): Promise<boolean> {
    if (!this.made.has(workerId)) return false;
    this.removed.push({ workerId, reason });
    return true;
  }
}
