/** Whether this server can do its work, for probes over HTTP and gRPC. */

import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage } from "../../base/errors.ts";

export interface HealthReport {
  ready: boolean;
  /** Why it is not ready, for people. */
  problems: string[];
}

export type HealthCheck = () => HealthReport | Promise<HealthReport>;

/** A database that does not answer within this time counts as gone: probes are impatient. */
const PING_LIMIT_MS = 2_000;

export interface DatabaseHealthDependencies {
  store: { ping(): Promise<void> };
  clock: Clock;
  /** Why the database is known to be away; it is not asked then. */
  problem?: () => string | null;
}

/** Ready as long as the database answers. */
export function databaseHealth(deps: DatabaseHealthDependencies): HealthCheck {
  return async () => {
    const known = deps.problem?.() ?? null;
    if (known !== null) return { ready: false, problems: [`database: ${known}`] };
    const limit = new AbortController();
    try {
      await Promise.race([
        deps.store.ping(),
        deps.clock.sleep(PING_LIMIT_MS, limit.signal).then(() => {
          if (limit.signal.aborted) return;
          throw new AppError("unavailable", `no answer within ${PING_LIMIT_MS} ms`);
        }),
      ]);
      return { ready: true, problems: [] };
    } catch (error) {
      return { ready: false, problems: [`database: ${errorMessage(error)}`] };
    } finally {
      limit.abort();
    }
  };
}

/** A check that fails is itself a reason. */
export async function readHealth(check: HealthCheck): Promise<HealthReport> {
  try {
    return await check();
  } catch (error) {
    return { ready: false, problems: [errorMessage(error)] };
  }
}
