/**
 * `/metrics`: what Prometheus scrapes. The library that writes its format takes longer to load than
 * a server takes to start, so it is loaded for the first scrape.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Worker } from "../../core/worker.ts";
import { everyWorker } from "../../storage/every-worker.ts";
import type { Store } from "../../storage/store.ts";
import { readHealth, type HealthCheck } from "../http/health-report.ts";
import type { PoolsView } from "../pools/pools-view.ts";
import type { SchedulerView } from "../scheduling/scheduler-view.ts";
import type { StartTimes } from "../start-times/start-times.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { LabelLimit } from "./label-limit.ts";
import type { ServerCounts } from "./server-counts.ts";

export interface MetricsSources {
  version: string;
  counts: ServerCounts;
  startTimes: Pick<StartTimes, "histogram">;
  health: HealthCheck;
  store: Pick<Store, "listBacklogs" | "listWorkers">;
  connections: { all(): readonly unknown[] } & Pick<WorkerConnections, "shownState">;
  /** Null while this server schedules nothing and makes no workers. */
  scheduler: () => Pick<SchedulerView, "queues"> | null;
  pools: () => Pick<PoolsView, "pools" | "providers"> | null;
  clock: Clock;
  log: Logger;
}

export interface MetricsPage {
  contentType: string;
  text: string;
}

/** What the database says, for one page; null if it did not answer. */
export interface StoredFacts {
  backlogs: Awaited<ReturnType<Store["listBacklogs"]>>;
  workers: Pick<Worker, "state" | "pool">[];
}

/** Names that get series of their own: of queues, of pools, and of providers. */
const MAX_NAMES = 100;
/** More workers than a server can have. */
const MAX_WORKERS = 20_000;

/** A page at each call, one at a time: scrapes that come together get the same one. */
export function metricsPage(sources: MetricsSources): () => Promise<MetricsPage> {
  const limits = {
    queue: new LabelLimit(MAX_NAMES),
    pool: new LabelLimit(MAX_NAMES),
    provider: new LabelLimit(MAX_NAMES),
  };
  let underWay: Promise<MetricsPage> | null = null;
  const write = async (): Promise<MetricsPage> => {
    const { writeMetrics } = await import("./prometheus-text.ts");
    return await writeMetrics(sources, await readStored(sources), limits);
  };
  return () =>
    (underWay ??= write().finally(() => {
      underWay = null;
    }));
}

/** A server without its database is just what the page must be able to show. */
async function readStored(sources: MetricsSources): Promise<StoredFacts | null> {
  const { health, store, log } = sources;
  if (!(await readHealth(health)).ready) return null;
  try {
    const [backlogs, workers] = await Promise.all([store.listBacklogs(), listWorkers(sources)]);
    return { backlogs, workers };
  } catch (error) {
    log.warn({ err: error }, "could not read what the metrics show of the database");
    return null;
  }
}

async function listWorkers({ store, connections }: MetricsSources): Promise<StoredFacts["workers"]> {
  const workers: StoredFacts["workers"] = [];
  for await (const worker of everyWorker(store)) {
    workers.push({ state: connections.shownState(worker), pool: worker.pool });
    if (workers.length >= MAX_WORKERS) break;
  }
  return workers;
}
