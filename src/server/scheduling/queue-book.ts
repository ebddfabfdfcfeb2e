/** What the scheduler keeps of each queue: how it is configured, and how much of its share it has had. */

import type { PlannedQueue } from "../../core/plan.ts";
import { defaultQueue, type QueueConfig } from "../../core/pool.ts";
import type { Store } from "../../storage/store.ts";
import type { ActiveJobs } from "./active-jobs.ts";
import type { QueueState } from "./scheduler-view.ts";

export type QueueChange = Parameters<Store["configureQueues"]>[0];

export class QueueBook {
  readonly #store: Pick<Store, "listQueues" | "configureQueues">;
  readonly #active: ActiveJobs;
  readonly #configs = new Map<string, QueueConfig>();
  /** Only of queues that have had a start since this server began: it forgets with the server. */
  readonly #passes = new Map<string, number>();
  readonly #starts = new Map<string, number>();

  constructor(store: Pick<Store, "listQueues" | "configureQueues">, active: ActiveJobs) {
    this.#store = store;
    this.#active = active;
  }

  async load(): Promise<void> {
    const configs = await this.#store.listQueues();
    this.#configs.clear();
    for (const config of configs) this.#configs.set(config.name, config);
  }

  async configure(change: QueueChange): Promise<void> {
    await this.#store.configureQueues(change);
    await this.load();
  }

  planned(names: Iterable<string>): PlannedQueue[] {
    return [...new Set(names)].map((name) => ({
      ...this.#config(name),
      running: this.#active.running(name),
      pass: this.#passes.get(name) ?? 0,
    }));
  }

  /** Every queue that is configured or has jobs at work, and `also`. */
  states(also: Iterable<string>): QueueState[] {
    const names = new Set([...this.#configs.keys(), ...this.#active.queues, ...also]);
    return [...names].toSorted().map((name) => ({
      config: this.#config(name),
      isConfigured: this.#configs.has(name),
      running: this.#active.running(name),
      starts: this.#starts.get(name) ?? 0,
    }));
  }

  notePasses(passes: ReadonlyMap<string, number>): void {
    for (const [name, pass] of passes) this.#passes.set(name, pass);
  }

  noteStart(queue: string): void {
    this.#starts.set(queue, (this.#starts.get(queue) ?? 0) + 1);
  }

  #config(name: string): QueueConfig {
    return this.#configs.get(name) ?? defaultQueue(name);
  }
}
