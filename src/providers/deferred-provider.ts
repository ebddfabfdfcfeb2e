/**
 * Stands for a provider that is not open yet: it is opened by the first verb, and as long as that
 * fails, by each verb anew. So a pool whose TLS files are not there when its server starts works as
 * soon as they are, with the workers that it had, and who only reads never opens any.
 */

import { AppError, errorMessage } from "../base/errors.ts";
import type {
  InstanceState,
  Provider,
  ProviderEvent,
  ProviderHealth,
  WorkerHandle,
  WorkerSpec,
} from "./provider.ts";

export class DeferredProvider implements Provider {
  readonly name: string;
  readonly capabilities = { events: true };
  readonly #open: () => Promise<Provider>;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  #opening: Promise<Provider> | null = null;
  #opened: Provider | null = null;
  #isClosed = false;

  /** `name` is that of the provider it stands for. */
  constructor(name: string, open: () => Promise<Provider>) {
    this.name = name;
    this.#open = open;
  }

  /** @throws what the opening of the provider throws. */
  opened(): Promise<Provider> {
    this.#opening ??= this.#tryToOpen();
    return this.#opening;
  }

  create(spec: WorkerSpec): Promise<WorkerHandle> {
    return this.#ask(`make worker ${spec.workerId}`, (provider) => provider.create(spec));
  }

  destroy(workerId: string): Promise<void> {
    return this.#ask(`destroy worker ${workerId}`, (provider) => provider.destroy(workerId));
  }

  inspect(workerId: string): Promise<InstanceState> {
    return this.#ask(`look for worker ${workerId}`, (provider) => provider.inspect(workerId));
  }

  list(): Promise<WorkerHandle[]> {
    return this.#ask("list workers", (provider) => provider.list());
  }

  async healthCheck(): Promise<ProviderHealth> {
    try {
      return await (await this.opened()).healthCheck();
    } catch (error) {
      return { status: "unhealthy", reason: errorMessage(error) };
    }
  }

  get activity(): string | null {
    return this.#opened?.activity ?? null;
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#listeners.clear();
    // One that could not be opened has nothing to let go of.
    const provider = await this.#opening?.catch(() => null);
    await provider?.close();
  }

  async #ask<T>(what: string, verb: (provider: Provider) => Promise<T>): Promise<T> {
    let provider: Provider;
    try {
      provider = await this.opened();
    } catch (cause) {
      // Whatever is wrong, it may be put right while the server runs.
      throw new AppError("unavailable", `${what}: ${errorMessage(cause)}`, { cause });
    }
    return await verb(provider);
  }

  async #tryToOpen(): Promise<Provider> {
    try {
      if (this.#isClosed) throw new AppError("unavailable", `open provider ${this.name}: it is closed`);
      const provider = await this.#open();
      provider.onEvent((event) => {
        for (const listener of this.#listeners) listener(event);
      });
      this.#opened = provider;
      return provider;
    } catch (error) {
      this.#opening = null;
      throw error;
    }
  }
}
