/** What a process has started, by name: it stops in reverse order, and what hangs can be told. */

import { stopAll, type Service } from "./service.ts";

export class StartedServices implements Service {
  readonly #services: { name: string; service: Service }[] = [];
  #stopping: Promise<void> | null = null;
  #current: string | null = null;

  add(name: string, service: Service): void {
    this.#services.push({ name, service });
  }

  /** The name of what is being stopped now; null before and after. */
  get stopsNow(): string | null {
    return this.#current;
  }

  /** Goes on after a failure, and rejects with the first one at the end. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const services = this.#services.toReversed().map(({ name, service }) => ({
      stop: () => {
        this.#current = name;
        return service.stop();
      },
    }));
    try {
      await stopAll(services);
    } finally {
      this.#current = null;
    }
  }
}
