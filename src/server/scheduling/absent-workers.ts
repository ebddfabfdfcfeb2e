/**
 * Workers that exist and have no stream here now: a job may wait for one, and `hodei explain` says of
 * each why it takes nothing. Read from the database from time to time.
 */

import type { Clock } from "../../base/clock.ts";
import type { PlannedWorker } from "../../core/plan.ts";
import type { Worker } from "../../core/worker.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import type { Store } from "../../storage/store.ts";
import { LOST_AFTER_MS } from "../pools/provider-upkeep.ts";
import { workerLabels } from "../workers/worker-labels.ts";

const REFRESH_MS = 5_000;

export class AbsentWorkers {
  readonly #store: Pick<Store, "listWorkers">;
  readonly #clock: Clock;
  #workers: PlannedWorker[] = [];
  #readAtMs: number | null = null;

  constructor(store: Pick<Store, "listWorkers">, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Reads them, unless that was done a moment ago. */
  async refresh(): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    if (this.#readAtMs !== null && nowMs - this.#readAtMs < REFRESH_MS) return;
    const workers: PlannedWorker[] = [];
    for await (const worker of everyWorker(this.#store)) {
      const planned = plannedAbsent(worker);
      if (planned) workers.push(planned);
    }
    this.#workers = workers;
    this.#readAtMs = nowMs;
  }

  /** As of the last look, without those of which `isConnected` knows better. */
  list(isConnected: (workerId: string) => boolean): PlannedWorker[] {
    return this.#workers.filter(({ id }) => !isConnected(id));
  }
}

/** Null for one that has not registered: nobody knows what it will be. */
function plannedAbsent(worker: Worker): PlannedWorker | null {
  const { info } = worker;
  if (info === null) return null;
  return {
    id: worker.id,
    name: info.name,
    pool: worker.pool,
    labels: workerLabels(worker, info),
    taints: info.taints,
    capabilities: info.capabilities,
    capacity: info.capacity,
    free: { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0, jobs: 0 },
    strategy: "least_loaded",
    running: [],
    lastAssigned: 0,
    ...absence(worker),
  };
}

/** Why it takes no jobs, and what has to happen before it does or another one comes. */
function absence(worker: Worker): { unavailable: string; remedy: string } {
  const remove = `hodei workers remove ${worker.id}`;
  switch (worker.state) {
    case "unreachable":
      return { unavailable: `it is unreachable: ${silence(worker)}`, remedy: returnOf(worker) };
    case "draining":
      return {
        unavailable: "it is draining",
        remedy: "wait for another worker: it leaves when its jobs have ended",
      };
    case "broken":
      return {
        unavailable: "it is broken: it could not end a process",
        remedy: `look at its machine, then remove it: ${remove}`,
      };
    default:
      return { unavailable: `it is not connected: ${silence(worker)}`, remedy: returnOf(worker) };
  }
}

function silence({ lastHeartbeatAtMs }: Worker): string {
  return lastHeartbeatAtMs === null
    ? "nothing was heard of it since it registered"
    : `nothing was heard of it since ${timeText(lastHeartbeatAtMs)}`;
}

function returnOf({ id, provider, lastHeartbeatAtMs }: Worker): string {
  const mend = "it takes jobs again as soon as it is heard: see that its machine runs and reaches the server";
  if (provider === "static" || lastHeartbeatAtMs === null)
    return `${mend}; if it never will: hodei workers remove --force ${id}`;
  const until = timeText(lastHeartbeatAtMs + LOST_AFTER_MS);
  return `${mend}; if it holds no job and stays silent until ${until}, it is removed, and its pool can make another`;
}

/** To the second, in UTC. */
function timeText(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/\.\d+Z$/, "Z");
}
