import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { checkoutRoot } from "../../base/checkout-root.ts";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import type { PoolView, ProviderView } from "../../core/pool-view.ts";
import { defaultQueue, poolWith } from "../../core/pool.ts";
import { sampleDefinition } from "../../core/session-fixtures.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { createTokenGuard } from "../auth/rpc-guard.ts";
import type { HealthReport } from "../http/health-report.ts";
import { startHttpServer } from "../http/http-server.ts";
import type { QueueState } from "../scheduling/scheduler-view.ts";
import { StartTimes } from "../start-times/start-times.ts";
import { metricsPage, type MetricsSources } from "./metrics-page.ts";
import { ServerCounts } from "./server-counts.ts";

const TOKEN = "a-token-of-the-test";

async function setup(t: TestContext) {
  const store = createMemoryStore({ random: systemRandom });
  const counts = new ServerCounts();
  const startTimes = new StartTimes({ store, clock: systemClock, log: silentLogger });
  const state = {
    health: { ready: true, problems: [] } as HealthReport,
    queues: [] as QueueState[],
    pools: [] as PoolView[],
    providers: [] as ProviderView[],
    connected: [] as unknown[],
  };
  const sources: MetricsSources = {
    version: "1.2.3",
    counts,
    startTimes,
    health: () => state.health,
    store,
    connections: { all: () => state.connected, shownState: (worker) => worker.state },
    scheduler: () => ({ queues: () => state.queues }),
    pools: () => ({ pools: () => state.pools, providers: () => state.providers }),
    clock: systemClock,
    log: silentLogger,
  };
  const server = await startHttpServer({
    host: "127.0.0.1",
    port: 0,
    routes: () => {},
    interceptors: [],
    auth: createTokenGuard({ token: TOKEN }),
    log: silentLogger,
    clock: systemClock,
    health: () => state.health,
    metrics: metricsPage(sources),
  });
  t.after(() => server.stop());
  const get = (authorization?: string): Promise<Response> =>
    fetch(`${server.url}/metrics`, { headers: authorization === undefined ? {} : { authorization } });
  const scrape = async (): Promise<Map<string, number>> => {
    const response = await get(`Bearer ${TOKEN}`);
    assert.equal(response.status, 200);
    return parse(await response.text());
  };
  const newId = (): string => uuidV7(systemClock, systemRandom);
  const queue = async (name: string, count = 1): Promise<string> => {
    const definition = { ...sampleDefinition, queue: name };
    const nowMs = systemClock.nowMs();
    const jobs = Array.from({ length: count }, () => ({
      id: newId(),
      definition,
      idempotencyKey: null,
      nowMs,
    }));
    await store.insertJobs(jobs);
    return jobs[0]?.id ?? "";
  };
  return { store, counts, startTimes, state, get, scrape, newId, queue };
}

/** By name and labels. Refuses what is not of the format, or has no help and type before it. */
function parse(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const types = new Map<string, string>();
  assert.ok(text.endsWith("\n"));
  for (const line of text.split("\n")) {
    const [, metric, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? [];
    if (metric !== undefined && type !== undefined) types.set(metric, type);
    if (line === "" || line.startsWith("# ")) continue;
    const [, name = "", labels = "", value] =
      /^([a-z_]+)(\{(?:[a-z_]+="[^"\n]*",?)+\})? (\S+)$/.exec(line) ?? [];
    assert.ok(value !== undefined && !Number.isNaN(Number(value)), `not a sample: ${line}`);
    const family = name.replace(/_(bucket|sum|count)$/, "");
    const kind = types.get(name) ?? types.get(family);
    assert.ok(kind !== undefined, `no type for ${name}`);
    if (kind === "counter") assert.match(name, /_total$/);
    assert.ok(!samples.has(name + labels), `twice: ${line}`);
    samples.set(name + labels, Number(value));
  }
  return samples;
}

test("the page is for those who have the token", async (t) => {
  const { get } = await setup(t);
  for (const authorization of [undefined, "Bearer wrong", `Basic ${TOKEN}`]) {
    const response = await get(authorization);
    assert.equal(response.status, 401);
    assert.equal(response.headers.get("www-authenticate"), "Bearer");
    assert.doesNotMatch(await response.text(), /hodei_/);
  }
  const response = await get(`Bearer ${TOKEN}`);
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
});

test("jobs that wait, run and have ended are counted", async (t) => {
  const { store, counts, state, scrape, newId, queue } = await setup(t);
  await queue("builds", 3);
  await queue("deploys");
  state.queues = [{ config: defaultQueue("builds"), isConfigured: false, running: 2, starts: 9 }];
  const jobId = await queue("done");
  const cancelled = await store.applyInput({
    jobId,
    input: { type: "cancel", reason: "x" },
    nowMs: systemClock.nowMs(),
  });
  assert.ok(cancelled.ok);
  counts.onJobChanged(cancelled.job);
  counts.onJobChanged(cancelled.job);
  counts.onJobChanged({ ...cancelled.job, id: newId(), state: "failed", cause: "exit_code" });
  counts.onJobChanged({ ...cancelled.job, id: newId(), state: "succeeded", cause: null });
  counts.onLogStored(1_000);
  counts.onLogStored(24);

  const samples = await scrape();
  assert.equal(samples.get('hodei_jobs_waiting{queue="builds"}'), 3);
  assert.equal(samples.get('hodei_jobs_waiting{queue="deploys"}'), 1);
  assert.equal(samples.get('hodei_jobs_waiting{queue="done"}'), undefined);
  assert.equal(samples.get('hodei_jobs_running{queue="builds"}'), 2);
  assert.equal(samples.get('hodei_jobs_ended_total{state="cancelled",cause="cancelled"}'), 1);
  assert.equal(samples.get('hodei_jobs_ended_total{state="failed",cause="exit_code"}'), 1);
  assert.equal(samples.get('hodei_jobs_ended_total{state="succeeded",cause=""}'), 1);
  assert.equal(samples.get("hodei_log_stored_bytes_total"), 1_024);
  const oldest = samples.get('hodei_jobs_oldest_wait_seconds{queue="builds"}') ?? -1;
  assert.ok(oldest >= 0 && oldest < 60);
});

test("a job that ends again after a retry counts again", async (t) => {
  const { counts, scrape } = await setup(t);
  const job = { id: "j", state: "failed", cause: "exit_code", version: 4 } as Job;
  for (const changed of [job, { ...job, state: "pending", version: 5 } as Job, { ...job, version: 8 }]) {
    counts.onJobChanged(changed);
  }
  assert.equal((await scrape()).get('hodei_jobs_ended_total{state="failed",cause="exit_code"}'), 2);
});

test("what has gone since the last page is not shown any more", async (t) => {
  const { state, scrape } = await setup(t);
  state.queues = [{ config: defaultQueue("old"), isConfigured: false, running: 1, starts: 1 }];
  assert.equal((await scrape()).get('hodei_jobs_running{queue="old"}'), 1);
  state.queues = [];
  const left = [...(await scrape()).keys()].filter((name) => name.startsWith("hodei_jobs_running"));
  assert.deepEqual(left, []);
});

test("more than a hundred queues share one series, and lose nothing", async (t) => {
  const { scrape, queue } = await setup(t);
  for (let number = 0; number < 130; number += 1) await queue(`user-${number}`);
  const waiting = [...(await scrape())].filter(([name]) => name.startsWith("hodei_jobs_waiting{"));
  assert.equal(waiting.length, 101);
  assert.equal(waiting.find(([name]) => name.includes('"other"'))?.[1], 30);
});

test("workers, pools and providers are shown by state", async (t) => {
  const { store, state, scrape, newId } = await setup(t);
  const nowMs = systemClock.nowMs();
  for (const wanted of ["ready", "ready", "unreachable", "terminated"] as const) {
    const id = newId();
    await store.insertWorker({ id, name: id, provider: "process", pool: "local", nowMs, token: null });
    await store.changeWorker({ workerId: id, state: wanted });
  }
  state.connected = [{}, {}];
  const definition = poolWith({ name: "local", provider: { type: "process" }, maxWorkers: 7 });
  const pool = { isFromSettings: true, isDeleting: false, workers: 3, arriving: 0, busy: 1, retryAtMs: null };
  state.pools = [{ ...pool, definition, problem: "the disk is full", startTimeMs: null }];
  const provider = { reason: "slow", checkedAtMs: nowMs, pools: ["local"], orphans: 1, orphansDestroyed: 5 };
  state.providers = [{ ...provider, name: "docker unix:///run/docker.sock", status: "degraded" }];

  const samples = await scrape();
  assert.equal(samples.get('hodei_workers{state="ready",pool="local"}'), 2);
  assert.equal(samples.get('hodei_workers{state="unreachable",pool="local"}'), 1);
  assert.equal(samples.get('hodei_workers{state="terminated",pool="local"}'), undefined);
  assert.equal(samples.get("hodei_workers_connected"), 2);
  assert.equal(samples.get('hodei_pool_workers_max{pool="local"}'), 7);
  assert.equal(samples.get('hodei_pool_blocked{pool="local"}'), 1);
  const label = 'provider="docker unix:///run/docker.sock"';
  assert.equal(samples.get(`hodei_provider_status{${label},status="degraded"}`), 1);
  assert.equal(samples.get(`hodei_provider_status{${label},status="healthy"}`), 0);
  assert.equal(samples.get(`hodei_provider_orphans{${label}}`), 1);
  assert.equal(samples.get(`hodei_provider_orphans_destroyed_total{${label}}`), 5);
});

test("docs/metrics.md names every metric, and none that is not there", async (t) => {
  const { counts, state, scrape, store, newId, queue } = await setup(t);
  await queue("builds");
  const id = newId();
  await store.insertWorker({ id, name: id, provider: "process", pool: "p", nowMs: 1, token: null });
  counts.onJobChanged({ id: "j", state: "failed", cause: "exit_code", version: 4 } as Job);
  state.queues = [{ config: defaultQueue("builds"), isConfigured: false, running: 2, starts: 9 }];
  const definition = poolWith({ name: "p", provider: { type: "process" } });
  const pool = { isFromSettings: true, isDeleting: false, workers: 3, arriving: 0, busy: 1, retryAtMs: null };
  state.pools = [{ ...pool, definition, problem: "", startTimeMs: null }];
  const provider = { reason: "", checkedAtMs: 1, pools: ["p"], orphans: 0, orphansDestroyed: 0 };
  state.providers = [{ ...provider, name: "process", status: "healthy" }];
  const shown = [...(await scrape()).keys()].map((key) => key.replace(/\{.*/, ""));
  const names = new Set(shown.map((name) => name.replace(/_(bucket|sum|count)$/, "")));
  const text = readFileSync(join(checkoutRoot(), "docs", "metrics.md"), "utf8");
  const documented = new Set(
    [...text.matchAll(/^\| `((hodei|process)_[a-z_]+)`/gm)].map(([, name = ""]) => name),
  );
  assert.deepEqual(documented, names);
});

test("histograms are cumulative and agree with their counts and sums", async (t) => {
  const { counts, startTimes, scrape } = await setup(t);
  for (const durationMs of [1, 8, 40, 90_000, 10_000_000]) {
    startTimes.histogram("creating").record(durationMs);
    counts.onSchedulingRound({ durationMs, jobsExamined: 10 });
  }
  startTimes.histogram("starting").record(1);
  const samples = await scrape();
  const bucket = (le: string): number | undefined =>
    samples.get(`hodei_job_start_part_seconds_bucket{part="creating",le="${le}"}`);
  const cumulative = ["0.005", "0.01", "0.05", "60", "120", "3600", "+Inf"].map(bucket);
  assert.deepEqual(cumulative, [1, 2, 3, 3, 4, 4, 5]);
  assert.equal(samples.get('hodei_job_start_part_seconds_count{part="creating"}'), 5);
  assert.equal(samples.get('hodei_job_start_part_seconds_sum{part="creating"}'), 10_090.049);
  assert.equal(samples.get('hodei_job_start_part_seconds_count{part="total"}'), 0);
  assert.equal(samples.get('hodei_scheduling_round_seconds_bucket{le="+Inf"}'), 5);
  assert.equal(samples.get("hodei_scheduling_jobs_examined_total"), 50);
  assert.equal(samples.get("hodei_attempts_started_total"), 1);
});

test("without its database the server still shows what it knows itself", async (t) => {
  const { state, scrape, queue } = await setup(t);
  await queue("builds");
  assert.equal((await scrape()).get("hodei_database_up"), 1);
  state.health = { ready: false, problems: ["database: gone"] };
  const samples = await scrape();
  assert.equal(samples.get("hodei_database_up"), 0);
  assert.equal(samples.get('hodei_jobs_waiting{queue="builds"}'), undefined);
  assert.equal(samples.get('hodei_build_info{version="1.2.3"}'), 1);
  assert.ok((samples.get("process_resident_memory_bytes") ?? 0) > 1e6);
  const startedAt = samples.get("process_start_time_seconds") ?? 0;
  assert.ok(Math.abs(startedAt * 1000 - systemClock.nowMs()) < 600_000);
});
