/** Writes what is known of the server in the text format of Prometheus; docs/metrics.md says what it means. */

import { Counter, Gauge, Registry, type Metric } from "prom-client";
import type { Histogram } from "../../core/histogram.ts";
import { PROVIDER_STATUSES } from "../../core/pool.ts";
import { START_PARTS } from "../../core/start-times.ts";
import type { LabelLimit } from "./label-limit.ts";
import type { MetricsPage, MetricsSources, StoredFacts } from "./metrics-page.ts";

type Labels = Record<string, string>;
type Sample = [labels: Labels, value: number];

interface Limits {
  queue: LabelLimit;
  pool: LabelLimit;
  provider: LabelLimit;
}

/**
 * The registry is made anew for each page: what has gone since the last one, such as a queue without
 * jobs, is then not shown with its last value for ever.
 */
export async function writeMetrics(
  sources: MetricsSources,
  stored: StoredFacts | null,
  limits: Limits,
): Promise<MetricsPage> {
  const page = new Page();
  addServer(page, sources, stored !== null);
  addJobs(page, sources, { stored, limits });
  addWorkers(page, sources, { stored, limits });
  addPools(page, sources, limits);
  return { contentType: page.registry.contentType, text: await page.registry.metrics() };
}

function addServer(page: Page, { version, counts, clock }: MetricsSources, isDatabaseUp: boolean): void {
  const { user, system } = process.cpuUsage();
  page.gauge("hodei_build_info", "Always 1; the label is the version.", [[{ version }, 1]]);
  page.gauge("hodei_database_up", "1 if the database answers.", [[{}, isDatabaseUp ? 1 : 0]]);
  page.counter("hodei_log_stored_bytes_total", "Bytes of log that workers sent and that are on disk.", [
    [{}, counts.logBytes],
  ]);
  page.gauge("process_resident_memory_bytes", "Memory of the server in use.", [
    [{}, process.memoryUsage.rss()],
  ]);
  page.counter("process_cpu_seconds_total", "CPU time of the server.", [[{}, (user + system) / 1e6]]);
  page.gauge("process_start_time_seconds", "When the server started, in seconds since 1970.", [
    [{}, clock.nowMs() / 1000 - process.uptime()],
  ]);
}

interface Facts {
  stored: StoredFacts | null;
  limits: Limits;
}

function addJobs(page: Page, sources: MetricsSources, { stored, limits }: Facts): void {
  const { counts, startTimes, clock } = sources;
  if (stored !== null) {
    const waiting = new Sums();
    const oldest = new Map<string, number>();
    for (const { queue: name, pending, oldestPendingSinceMs } of stored.backlogs) {
      const queue = limits.queue.labelOf(name);
      waiting.add({ queue }, pending);
      const waitSeconds = Math.max(0, clock.nowMs() - oldestPendingSinceMs) / 1000;
      oldest.set(queue, Math.max(oldest.get(queue) ?? 0, waitSeconds));
    }
    page.gauge("hodei_jobs_waiting", "Jobs that wait for a worker.", waiting.samples);
    const oldestSamples = [...oldest].map(([queue, seconds]): Sample => [{ queue }, seconds]);
    page.gauge("hodei_jobs_oldest_wait_seconds", "How long the oldest waiting job waits.", oldestSamples);
  }
  const running = new Sums();
  for (const { config, running: count } of sources.scheduler()?.queues([]) ?? []) {
    running.add({ queue: limits.queue.labelOf(config.name) }, count);
  }
  page.gauge("hodei_jobs_running", "Jobs that a worker was given and that have not ended.", running.samples);
  const ended = counts.ended.map(({ state, cause, count }): Sample => [{ state, cause }, count]);
  page.counter("hodei_jobs_ended_total", "Jobs that have ended, by final state and cause.", ended);
  page.counter("hodei_attempts_started_total", "Attempts whose first command ran.", [
    [{}, startTimes.histogram("starting").count],
  ]);
  page.histogram(
    "hodei_job_start_part_seconds",
    "How long each part of the way of a job to its first output took.",
    START_PARTS.map((part) => ({ labels: { part }, histogram: startTimes.histogram(part) })),
  );
  page.histogram("hodei_scheduling_round_seconds", "How long a round of scheduling took.", [
    { labels: {}, histogram: counts.schedulingRounds },
  ]);
  page.counter("hodei_scheduling_jobs_examined_total", "Waiting jobs that scheduling looked at.", [
    [{}, counts.jobsExamined],
  ]);
}

function addWorkers(page: Page, sources: MetricsSources, { stored, limits }: Facts): void {
  page.gauge("hodei_workers_connected", "Workers that are connected to this server.", [
    [{}, sources.connections.all().length],
  ]);
  if (stored === null) return;
  const workers = new Sums();
  for (const { state, pool } of stored.workers) workers.add({ state, pool: limits.pool.labelOf(pool) }, 1);
  page.gauge("hodei_workers", "Workers that are not gone, by state and pool.", workers.samples);
}

function addPools(page: Page, sources: MetricsSources, limits: Limits): void {
  const view = sources.pools();
  if (view === null) return;
  const most = new Sums();
  const blocked = new Sums();
  for (const { definition, problem } of view.pools()) {
    const pool = limits.pool.labelOf(definition.name);
    most.add({ pool }, definition.maxWorkers);
    blocked.add({ pool }, problem === "" ? 0 : 1);
  }
  page.gauge("hodei_pool_workers_max", "The most workers that a pool may have.", most.samples);
  page.gauge("hodei_pool_blocked", "1 if a pool can make no workers now.", blocked.samples);

  const statuses = new Sums();
  const found = new Sums();
  const destroyed = new Sums();
  for (const { name, status, orphans, orphansDestroyed } of view.providers()) {
    const provider = limits.provider.labelOf(name);
    for (const each of PROVIDER_STATUSES) statuses.add({ provider, status: each }, each === status ? 1 : 0);
    found.add({ provider }, orphans);
    destroyed.add({ provider }, orphansDestroyed);
  }
  page.gauge("hodei_provider_status", "1 for the health that a provider has.", statuses.samples);
  page.gauge("hodei_provider_orphans", "Instances that nobody owns and that are still there.", found.samples);
  page.counter(
    "hodei_provider_orphans_destroyed_total",
    "Instances that nobody owned and that were destroyed.",
    destroyed.samples,
  );
}

/** Adds up what falls under the same labels, because the rest of many names is one. */
class Sums {
  readonly #byKey = new Map<string, { labels: Labels; value: number }>();

  add(labels: Labels, value: number): void {
    const key = JSON.stringify(labels);
    const sum = this.#byKey.get(key) ?? { labels, value: 0 };
    sum.value += value;
    this.#byKey.set(key, sum);
  }

  get samples(): Sample[] {
    return [...this.#byKey.values()].map(({ labels, value }) => [labels, value]);
  }
}

/** From 5 ms, a fast dispatch, to an hour, a queue that is too long. */
const LIMITS_SECONDS = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600,
];

/** A metric without samples is left out: the library would show it as 0, without its labels. */
class Page {
  readonly registry = new Registry();

  gauge(name: string, help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    const gauge = new Gauge({ name, help, labelNames: labelNames(samples), registers: [this.registry] });
    for (const [labels, value] of samples) gauge.set(labels, value);
  }

  counter(name: string, help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    const counter = new Counter({ name, help, labelNames: labelNames(samples), registers: [this.registry] });
    for (const [labels, value] of samples) counter.inc(labels, value);
  }

  /**
   * The histogram of the library can only be filled one by one, so this is a metric of our own: all that
   * a registry asks of one are its name and its values.
   */
  histogram(name: string, help: string, series: readonly { labels: Labels; histogram: Histogram }[]): void {
    const values = series.flatMap(({ labels, histogram }) => histogramValues(name, labels, histogram));
    const get = async () => ({ name, help, type: "histogram", aggregator: "sum", values });
    this.registry.registerMetric({ name, get } as unknown as Metric);
  }
}

function labelNames(samples: readonly Sample[]): string[] {
  return Object.keys(samples[0]?.[0] ?? {});
}

function histogramValues(name: string, labels: Labels, histogram: Histogram) {
  const counts = histogram.countsWithin(LIMITS_SECONDS.map((seconds) => seconds * 1000));
  const buckets = LIMITS_SECONDS.map((le, index) => ({
    metricName: `${name}_bucket`,
    labels: { ...labels, le: String(le) },
    value: counts[index] ?? 0,
  }));
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: histogram.count },
    { metricName: `${name}_sum`, labels, value: histogram.sumMs / 1000 },
    { metricName: `${name}_count`, labels, value: histogram.count },
  ];
}
