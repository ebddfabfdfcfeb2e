/**
 * Notices workers that have fallen silent: their jobs become unreachable, which is visible and has
 * a deadline, and nothing else happens to them. A stream that is open but silent is closed, so that
 * a half-dead connection does not look alive. Silence is counted from the server's own start on, so
 * that workers can come back to a server that was away.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Job } from "../../core/job.ts";
import { isUnreachable, UNREACHABLE_AFTER_MS } from "../../core/lease.ts";
import type { Worker } from "../../core/worker.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import { keepsWorkerState } from "../../storage/store-rules.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";

export interface LivenessDependencies {
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  log: Logger;
  onJobChanged(job: Job): void;
}

export async function livenessRound(deps: LivenessDependencies): Promise<void> {
  const nowMs = deps.clock.nowMs();
  const listeningSinceMs = deps.connections.listeningSinceMs(nowMs);
  for (const connection of deps.connections.all()) {
    const heardAtMs = Math.max(connection.session.heardAtMs, listeningSinceMs);
    if (isUnreachable(heardAtMs, nowMs)) connection.goaway("no heartbeat");
  }
  const silent = everyWorker(deps.store, { heardBeforeMs: nowMs - UNREACHABLE_AFTER_MS });
  for await (const worker of silent) await look(worker, nowMs, deps);
}

/**
 * From when on the silence of a worker counts: when it was last heard, but not before this server
 * began to listen. A time from before, by another clock, may lie in the future.
 */
export async function lastHeardAtMs(
  workerId: string,
  nowMs: number,
  { store, connections }: Pick<LivenessDependencies, "store" | "connections">,
): Promise<number> {
  const listeningSinceMs = connections.listeningSinceMs(nowMs);
  const knownMs = connections.heardAtMs(workerId);
  if (knownMs !== null) return Math.max(knownMs, listeningSinceMs);
  const storedMs = (await store.getWorker(workerId))?.lastHeartbeatAtMs ?? listeningSinceMs;
  return storedMs > nowMs ? listeningSinceMs : Math.max(storedMs, listeningSinceMs);
}

async function look(worker: Worker, nowMs: number, deps: LivenessDependencies): Promise<void> {
  if (worker.lastHeartbeatAtMs === null || worker.state === "unreachable") return;
  const heardAtMs = await lastHeardAtMs(worker.id, nowMs, deps);
  if (!isUnreachable(heardAtMs, nowMs)) return;
  let isNews = !keepsWorkerState(worker.state, "unreachable");
  // The jobs first: a worker that is marked is not looked at again.
  for (const { attempt, job } of await deps.store.listLiveAttempts(worker.id)) {
    const input = { type: "disconnect", attemptId: attempt.id, heardAtMs } as const;
    const applied = await deps.store.applyInput({ jobId: job.id, input, nowMs });
    if (!applied.ok) continue;
    isNews = true;
    // The worker may have come back meanwhile: then its next heartbeat takes this back.
    deps.connections.jobSeen(applied.job);
    deps.onJobChanged(applied.job);
  }
  if (!isNews) return;
  deps.log.warn({ workerId: worker.id }, "worker is unreachable");
  await deps.store.changeWorker({ workerId: worker.id, state: "unreachable", message: "no heartbeat" });
}
