/**
 * How the providers are, by asking each now and then. One that is unhealthy is not asked for workers;
 * one that does not answer in time is unhealthy, whatever it says later.
 */

import type { Clock } from "../../base/clock.ts";
import { errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Provider, ProviderHealth } from "../../providers/provider.ts";

export const PROVIDER_CHECK_PERIOD_MS = 15_000;
const CHECK_TIMEOUT_MS = 10_000;

export interface CheckedHealth {
  health: ProviderHealth;
  checkedAtMs: number | null;
}

const NEVER_CHECKED: CheckedHealth = { health: { status: "unknown" }, checkedAtMs: null };

export class ProviderChecks {
  readonly #deps: { clock: Clock; log: Logger; onChange(provider: Provider): void };
  readonly #known = new WeakMap<Provider, CheckedHealth>();
  readonly #checking = new Map<Provider, Promise<void>>();

  /** `onChange` is told when the status of a provider is another one than before. */
  constructor(deps: { clock: Clock; log: Logger; onChange(provider: Provider): void }) {
    this.#deps = deps;
  }

  get(provider: Provider): CheckedHealth {
    return this.#known.get(provider) ?? NEVER_CHECKED;
  }

  /** Resolves when it is known; never rejects. Calls for one provider at the same time are one. */
  check(provider: Provider): Promise<void> {
    const running = this.#checking.get(provider);
    if (running) return running;
    const check = this.#check(provider).finally(() => this.#checking.delete(provider));
    this.#checking.set(provider, check);
    return check;
  }

  async #check(provider: Provider): Promise<void> {
    const { clock, log, onChange } = this.#deps;
    const health = await this.#ask(provider);
    const before = this.get(provider).health;
    this.#known.set(provider, { health, checkedAtMs: clock.nowMs() });
    if (before.status === health.status) return;
    const fields = { provider: provider.name, status: health.status, reason: healthReason(health) };
    if (health.status === "unhealthy") log.error(fields, "provider is unhealthy");
    else if (before.status !== "unknown") log.info(fields, "provider has changed its health");
    onChange(provider);
  }

  async #ask(provider: Provider): Promise<ProviderHealth> {
    const over = new AbortController();
    const late = this.#deps.clock.sleep(CHECK_TIMEOUT_MS, over.signal).then((): ProviderHealth => {
      const reason = `it did not answer within ${CHECK_TIMEOUT_MS / 1_000} s`;
      return { status: "unhealthy", reason };
    });
    const answer = provider.healthCheck().catch((error: unknown): ProviderHealth => {
      return { status: "unhealthy", reason: errorMessage(error) };
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      over.abort();
    }
  }
}

/** What is wrong; empty if nothing is, or nothing is known. */
export function healthReason(health: ProviderHealth): string {
  return "reason" in health ? health.reason : "";
}
