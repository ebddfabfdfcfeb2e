/**
 * A provider for tests: its workers are names in a set, and it misbehaves as it is told to.
 *
 * Nothing runs, so no agent ever connects; whoever wants workers that do makes them itself.
 */

import { AppError } from "../../base/errors.ts";
import type {
  InstanceState,
  Provider,
  ProviderEvent,
  ProviderHealth,
  WorkerHandle,
  WorkerSpec,
} from "../provider.ts";

export interface Misbehaviour {
  /** `create` fails with it. */
  createFailure: Error | null;
  /** A failing `create` has made the instance all the same: its answer was lost. */
  losesAnswers: boolean;
  /** `create` waits for it. */
  createDelay: Promise<void>;
  /** `destroy`, `inspect` and `list` wait for it. */
  answerDelay: Promise<void>;
  /** `destroy`, `inspect` and `list` fail with it. */
  outage: Error | null;
  /** Only `destroy` fails with it. */
  destroyFailure: Error | null;
  /** Workers whose `destroy` fails, whatever that of others does. */
  stuck: ReadonlySet<string>;
  /** Nobody is told of instances that are gone. */
  isSilent: boolean;
  health: ProviderHealth;
  /** `healthCheck` waits for it. */
  healthDelay: Promise<void>;
}

export class FakeProvider implements Provider {
  readonly name = "fake";
  readonly capabilities = { events: true };
  /** Worker ids; they outlive a provider that is closed. */
  readonly instances: Set<string>;
  /** What was asked of it, in order. */
  readonly specs: WorkerSpec[] = [];
  /** `destroy`, `inspect` and `list`, in order. */
  readonly asked: string[] = [];
  readonly misbehaviour: Misbehaviour;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  /** By worker id, so that a `destroy` meets what a `create` makes. */
  readonly #creating = new Map<string, Promise<unknown>>();

  constructor(misbehaviour: Partial<Misbehaviour> = {}, instances = new Set<string>()) {
    this.instances = instances;
    this.misbehaviour = {
      createFailure: null,
      losesAnswers: false,
      createDelay: Promise.resolve(),
      answerDelay: Promise.resolve(),
      outage: null,
      isSilent: false,
      health: { status: "healthy" },
      healthDelay: Promise.resolve(),
      destroyFailure: null,
      stuck: new Set(),
      ...misbehaviour,
    };
  }

  create(spec: WorkerSpec): Promise<WorkerHandle> {
    const creation = this.#create(spec);
    this.#creating.set(spec.workerId, creation);
    return creation;
  }

  async destroy(workerId: string): Promise<void> {
    await Promise.allSettled([this.#creating.get(workerId)]);
    await this.#answer("destroy", workerId);
    if (this.misbehaviour.destroyFailure) throw this.misbehaviour.destroyFailure;
    if (this.misbehaviour.stuck.has(workerId)) {
      throw new AppError("unavailable", `destroy ${workerId}: it is stuck`);
    }
    this.instances.delete(workerId);
  }

  async inspect(workerId: string): Promise<InstanceState> {
    await this.#answer("inspect", workerId);
    return this.instances.has(workerId) ? "running" : "gone";
  }

  async list(): Promise<WorkerHandle[]> {
    await this.#answer("list", "all workers");
    return [...this.instances].map((workerId) => ({ workerId, instanceId: workerId }));
  }

  async healthCheck(): Promise<ProviderHealth> {
    await this.misbehaviour.healthDelay;
    return this.misbehaviour.health;
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
  }

  /** The instance ends by itself. */
  lose(workerId: string): void {
    this.instances.delete(workerId);
    if (this.misbehaviour.isSilent) return;
    for (const listener of this.#listeners) listener({ type: "gone", workerId, message: "it fell over" });
  }

  async #create(spec: WorkerSpec): Promise<WorkerHandle> {
    const { workerId } = spec;
    this.specs.push(spec);
    await this.misbehaviour.createDelay;
    const { createFailure, losesAnswers } = this.misbehaviour;
    if (createFailure === null || losesAnswers) this.instances.add(workerId);
    if (createFailure) throw createFailure;
    return { workerId, instanceId: workerId };
  }

  async #answer(verb: string, what: string): Promise<void> {
    this.asked.push(verb);
    await this.misbehaviour.answerDelay;
    const { outage } = this.misbehaviour;
    if (outage) throw new AppError("unavailable", `${verb} ${what}: ${outage.message}`, { cause: outage });
  }
}
