/** The providers as people see them: those in the same place are one, as bad as the worst of them. */

import type { ProviderView } from "../../core/pool-view.ts";
import type { ProviderStatus } from "../../core/pool.ts";
import type { Orphans } from "./orphans.ts";
import type { Pool } from "./pool.ts";
import { healthReason, type ProviderChecks } from "./provider-checks.ts";

/** By name. */
export function providerViews(
  pools: readonly Pool[],
  { checks, orphans }: { checks: Pick<ProviderChecks, "get">; orphans: Pick<Orphans, "of"> },
): ProviderView[] {
  const names = [...new Set(pools.map(({ providerName }) => providerName))].toSorted();
  return names.map((name) => {
    const own = pools.filter(({ providerName }) => providerName === name);
    const checked = own.map(({ provider }) => checks.get(provider));
    const worst = checked.toSorted((a, b) => severity(b.health.status) - severity(a.health.status))[0];
    const times = checked.flatMap(({ checkedAtMs }) => (checkedAtMs === null ? [] : [checkedAtMs]));
    const { destroyed, left } = orphans.of(name);
    return {
      name,
      status: worst?.health.status ?? "unknown",
      reason: worst ? healthReason(worst.health) : "",
      checkedAtMs: times.length === 0 ? null : Math.min(...times),
      pools: own.map((pool) => pool.name),
      orphansDestroyed: destroyed,
      orphans: left,
    };
  });
}

/** From good to bad. */
const BY_SEVERITY: readonly ProviderStatus[] = ["healthy", "unknown", "degraded", "unhealthy"];

function severity(status: ProviderStatus): number {
  return BY_SEVERITY.indexOf(status);
}
