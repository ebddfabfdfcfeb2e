/** Stands for a provider that could not be opened: it is unhealthy, and every verb says why. */

import { AppError } from "../base/errors.ts";
import type { InstanceState, Provider, ProviderHealth, WorkerHandle, WorkerSpec } from "./provider.ts";

export class UnavailableProvider implements Provider {
  readonly name: string;
  readonly capabilities = { events: false };
  readonly #reason: string;

  /** `name` is that of the provider it stands for. */
  constructor(name: string, reason: string) {
    this.name = name;
    this.#reason = reason;
  }

  create(spec: WorkerSpec): Promise<WorkerHandle> {
    return this.#fail(`make worker ${spec.workerId}`);
  }

  destroy(workerId: string): Promise<void> {
    return this.#fail(`destroy worker ${workerId}`);
  }

  inspect(workerId: string): Promise<InstanceState> {
    return this.#fail(`look for worker ${workerId}`);
  }

  list(): Promise<WorkerHandle[]> {
    return this.#fail("list workers");
  }

  healthCheck(): Promise<ProviderHealth> {
    return Promise.resolve({ status: "unhealthy", reason: this.#reason });
  }

  onEvent(): () => void {
    return () => {};
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #fail(what: string): Promise<never> {
    return Promise.reject(new AppError("unavailable", `${what}: ${this.#reason}`));
  }
}
