/** The part of the memory store that keeps pools and queues as somebody configured them. */

import type { PoolDefinition, QueueConfig, StoredPool } from "../../core/pool.ts";
import { compareText } from "../store-rules.ts";

export abstract class MemoryConfiguration {
  readonly #pools = new Map<string, StoredPool>();
  readonly #queues = new Map<string, QueueConfig>();

  protected abstract assertOpen(what: string): void;

  async listPools(): Promise<StoredPool[]> {
    this.assertOpen("list pools");
    return structuredClone(
      [...this.#pools.values()].toSorted((a, b) => compareText(a.definition.name, b.definition.name)),
    );
  }

  async putPools(pools: readonly PoolDefinition[], nowMs: number): Promise<void> {
    this.assertOpen("store pools");
    for (const definition of structuredClone(pools)) {
      const createdAtMs = this.#pools.get(definition.name)?.createdAtMs ?? nowMs;
      this.#pools.set(definition.name, { definition, createdAtMs, updatedAtMs: nowMs, isDeleting: false });
    }
  }

  async markPoolsDeleting(names: readonly string[], nowMs: number): Promise<void> {
    this.assertOpen("mark pools as being deleted");
    for (const name of names) {
      const pool = this.#pools.get(name);
      if (pool && !pool.isDeleting) this.#pools.set(name, { ...pool, isDeleting: true, updatedAtMs: nowMs });
    }
  }

  async removePool(name: string): Promise<void> {
    this.assertOpen("remove pool");
    if (this.#pools.get(name)?.isDeleting) this.#pools.delete(name);
  }

  async listQueues(): Promise<QueueConfig[]> {
    this.assertOpen("list queues");
    return structuredClone([...this.#queues.values()].toSorted((a, b) => compareText(a.name, b.name)));
  }

  async configureQueues(change: { set: readonly QueueConfig[]; reset: readonly string[] }): Promise<void> {
    this.assertOpen("configure queues");
    for (const queue of structuredClone(change.set)) this.#queues.set(queue.name, queue);
    for (const name of change.reset) this.#queues.delete(name);
  }
}
