/** Instances that a provider lists and nobody owns, such as what a server left that was killed. */

import type { Logger } from "../../base/log.ts";
import type { Pool } from "./pool.ts";

interface Count {
  destroyed: number;
  /** Worker ids of those that could not be destroyed. */
  left: ReadonlySet<string>;
}

export class Orphans {
  readonly #log: Logger;
  /** By the name of the provider. */
  readonly #counts = new Map<string, Count>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Since the server started, and those that are still there. */
  of(providerName: string): { destroyed: number; left: number } {
    const count = this.#counts.get(providerName);
    return { destroyed: count?.destroyed ?? 0, left: count?.left.size ?? 0 };
  }

  /** Destroys what nobody owns; the first failure is thrown when all have been tried. */
  async sweep(
    { provider, providerName }: Pool,
    isOwned: (workerId: string) => Promise<boolean>,
  ): Promise<void> {
    const before = this.#counts.get(providerName);
    let destroyed = before?.destroyed ?? 0;
    const left = new Set<string>();
    const failures: unknown[] = [];
    for (const { workerId } of await provider.list()) {
      if (await isOwned(workerId)) continue;
      if (before?.left.has(workerId) !== true) {
        this.#log.warn({ workerId, provider: providerName }, "destroying a worker that nobody owns");
      }
      try {
        await provider.destroy(workerId);
        destroyed += 1;
      } catch (error) {
        left.add(workerId);
        failures.push(error);
      }
    }
    this.#counts.set(providerName, { destroyed, left });
    if (failures.length > 0) throw failures[0];
  }
}
