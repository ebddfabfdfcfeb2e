/**
 * The background of provisioning: a loop for each provider, so that one that does not answer holds up
 * no other, and one for what concerns none of them alone.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { Loop } from "../../base/loop.ts";
import type { Service } from "../../base/service.ts";
import type { Provider } from "../../providers/provider.ts";
import type { Provisioner } from "./provisioner.ts";

export interface ProvisioningLoopsDependencies {
  provisioner: Pick<Provisioner, "attendTo" | "providers" | "tidy">;
  clock: Clock;
  log: Logger;
}

const PERIOD_MS = 2_000;

export class ProvisioningLoops implements Service {
  readonly #deps: ProvisioningLoopsDependencies;
  readonly #common: Loop;
  readonly #byProvider = new Map<Provider, Loop>();

  constructor(deps: ProvisioningLoopsDependencies) {
    this.#deps = deps;
    this.#common = this.#loop("provisioning", () => this.#round());
  }

  /** Workers may be missing, or too many; or there are other providers. */
  hint(): void {
    this.#common.hint();
    for (const loop of this.#byProvider.values()) loop.hint();
  }

  /** Resolves when the rounds under way have ended: a provider that does not answer has its time-outs. */
  async stop(): Promise<void> {
    // First the one that starts the others.
    await this.#common.stop();
    await Promise.all([...this.#byProvider.values()].map((loop) => loop.stop()));
  }

  async #round(): Promise<void> {
    const { provisioner } = this.#deps;
    const providers = provisioner.providers();
    for (const provider of providers) {
      if (this.#byProvider.has(provider)) continue;
      const name = `provisioning by ${provider.name}`;
      this.#byProvider.set(
        provider,
        this.#loop(name, () => provisioner.attendTo(provider)),
      );
    }
    for (const [provider, loop] of this.#byProvider) {
      if (providers.has(provider)) continue;
      this.#byProvider.delete(provider);
      // Between two rounds: a provider that is attended to is one of them.
      await loop.stop();
    }
    await provisioner.tidy();
  }

  #loop(name: string, run: () => Promise<void>): Loop {
    const { clock, log } = this.#deps;
    return new Loop({ name, periodMs: PERIOD_MS, run, clock, log });
  }
}
