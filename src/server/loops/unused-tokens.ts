/**
 * Forgets workers that a person wanted to start and never did: once their token cannot be used any more,
 * nobody waits for them.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Worker } from "../../core/worker.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import type { Store } from "../../storage/store.ts";

export const UNUSED_TOKENS_PERIOD_MS = 10 * 60_000;
/** The longest that a token can be valid, and an hour for clocks that differ. */
const UNUSED_AFTER_MS = 25 * 60 * 60_000;

export async function unusedTokensRound(deps: {
  store: Pick<Store, "listWorkers" | "changeWorker">;
  clock: Clock;
  log: Logger;
}): Promise<void> {
  const beforeMs = deps.clock.nowMs() - UNUSED_AFTER_MS;
  for await (const worker of everyWorker(deps.store)) {
    if (!neverCame(worker, beforeMs)) continue;
    deps.log.info({ workerId: worker.id }, "nobody has used the token of a worker");
    const message = "its token was not used in time";
    await deps.store.changeWorker({ workerId: worker.id, state: "terminated", message });
  }
}

function neverCame({ provider, registeredAtMs, createdAtMs }: Worker, beforeMs: number): boolean {
  return provider === "static" && registeredAtMs === null && createdAtMs < beforeMs;
}
