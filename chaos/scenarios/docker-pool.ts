/** Many jobs on few containers that take one job each, calmly and with a server that is killed. */

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import type { Engine } from "../../src/providers/docker/engine.ts";
import {
  makeImage,
  skipWithoutEngine,
  TEST_ENGINE_HOST,
  testEngine,
} from "../../src/providers/docker/test-engine.ts";
import { checkStorm } from "../check-storm.ts";
import { persist } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { UNFINISHED, type StormJob } from "../job-load.ts";
import { SeededRandom } from "../seeded-random.ts";
import { witnessJob } from "../witness-job.ts";
import { ContainerWatch } from "./container-watch.ts";
import { seconds } from "./job-calls.ts";
import { onCluster, type Scenario, type ScenarioContext } from "./scenario.ts";

const LONG = { jobs: 300, kills: 10 };
const SHORT = { jobs: 30, kills: 3 };

const MAX_CONTAINERS = 4;
/** Where the jobs find the directory of their traces in a container. */
const TRACE_MOUNT = "/witness";
const LABEL = "docker-pool";
/** Of the moments of the kills, which hit another part of a container's start each time. */
const SEED = 4;
const CALL_TIMEOUT_MS = 60_000;
/** A container starts and goes within seconds; the rest is for slow machines and restarts. */
const TIMEOUT_PER_JOB_MS = 8_000;
/** Some jobs wait for the end of a lease that a killed server could not see. */
const SETTLE_TIMEOUT_MS = 180_000;
const NONE_LEFT_TIMEOUT_MS = 60_000;
const POLL_MS = 250;

export const dockerPool: Scenario = {
  name: "docker-pool",
  description:
    "300 jobs on at most 4 containers for one job each, then again while the server is killed with -9 ten times",
  async run(context) {
    const skipped = await skipWithoutEngine();
    if (skipped !== false) throw new Error(`use a container engine: ${skipped}`);
    const { jobs, kills } = context.isShort ? SHORT : LONG;
    const image = await makeImage("shell");
    return [
      ...(await onPool(image, (pool) => run(pool, { jobs, kills: 0, context }))),
      ...(await onPool(image, (pool) => run(pool, { jobs, kills, context }))),
    ];
  },
};

interface Pool {
  cluster: Cluster;
  /** Of the jobs' traces; every container mounts it. */
  traces: string;
  watch: ContainerWatch;
}

/** A cluster whose only workers are containers, watched from before the first of them. */
async function onPool(image: string, body: (pool: Pool) => Promise<string[]>): Promise<string[]> {
  const traces = await mkdtemp(join(tmpdir(), "hodei-traces-"));
  const engine = testEngine();
  const docker = ["--docker-host", TEST_ENGINE_HOST, "--docker-image", image, "--docker-pull", "never"];
  const limits = ["--docker-max-workers", String(MAX_CONTAINERS), "--docker-ephemeral", "true"];
  const flags = [...docker, ...limits, "--docker-mounts", `${traces}:${TRACE_MOUNT}`];
  try {
    const problems = await onCluster({ workers: 0, workerIdleTimeout: "2s", flags }, (cluster) =>
      watched(engine, cluster, (watch) => body({ cluster, traces, watch })),
    );
    if (problems.length === 0) await rm(traces, { recursive: true });
    else problems.push(`the traces are kept in ${traces}`);
    return problems;
  } finally {
    engine.close();
  }
}

async function watched(
  engine: Engine,
  cluster: Cluster,
  body: (watch: ContainerWatch) => Promise<string[]>,
): Promise<string[]> {
  const owner = (await readFile(join(cluster.dataDirectory, "owner"), "utf8")).trim();
  const watch = await ContainerWatch.start(engine, owner);
  try {
    return await body(watch);
  } finally {
    await watch.stop();
  }
}

interface Round {
  jobs: number;
  kills: number;
  context: ScenarioContext;
}

async function run(pool: Pool, { jobs: count, kills, context }: Round): Promise<string[]> {
  const { cluster, watch } = pool;
  const startedMs = systemClock.monotonicMs();
  const jobs = await submitAll(pool, count);
  const killed = await killServers(cluster, { count, kills });
  await eventually(async () => (await countUnfinished(cluster)) === 0, {
    timeoutMs: count * TIMEOUT_PER_JOB_MS + SETTLE_TIMEOUT_MS,
    intervalMs: POLL_MS,
    what: "the end of the jobs",
  });
  const tookMs = systemClock.monotonicMs() - startedMs;
  const problems = await checkContainers(watch, context);
  const checked = await checkStorm(cluster.client, { jobs, label: LABEL });
  problems.push(...checked.violations.map(({ kind, text }) => `${kind}: ${text}`));
  context.say(
    `${count} jobs, ${killed} kills of the server: ${checked.attempts} attempts in ${watch.started} containers, ` +
      `at most ${watch.mostRunning} running and ${watch.mostExisting} there at a time, ${seconds(tookMs)}`,
  );
  if (killed < kills) problems.push(`the jobs had ended after ${killed} of ${kills} kills`);
  if (kills === 0 && checked.attempts !== count) problems.push(`there were ${checked.attempts} attempts`);
  return problems;
}

/** All at once, so that many more wait than there may be containers. */
async function submitAll({ cluster, traces }: Pool, count: number): Promise<StormJob[]> {
  const planned = Array.from({ length: count }, (_, index) => plannedJob(traces, `job-${index + 1}`));
  for (const { directory } of planned) await mkdir(directory);
  const jobs = planned.map(({ definition, name }) => ({ definition, idempotencyKey: `${LABEL}/${name}` }));
  const { jobIds } = await persist(() => cluster.client.jobs.queueJobs({ jobs }), {
    timeoutMs: CALL_TIMEOUT_MS,
  });
  return planned.map((job, index) => ({ ...job, jobId: jobIds[index] ?? "" }));
}

/** Some tenths of a second long, with beats by which two attempts at a time would be seen. */
function plannedJob(traces: string, name: string): Omit<StormJob, "jobId"> {
  const witness = { name, directory: `${TRACE_MOUNT}/${name}`, rounds: 4, delaySeconds: 0.1 };
  return {
    kind: "container",
    name,
    directory: join(traces, name),
    definition: witnessJob(witness, { labels: { storm: LABEL } }),
    expected: { state: "succeeded" },
    failsWhenLost: false,
    act: { type: "none" },
    cancelledAtAttempt: null,
    pauses: [],
    wasHit: false,
  };
}

async function countUnfinished({ client }: Cluster): Promise<number> {
  const request = { states: [...UNFINISHED], labels: { storm: LABEL }, pageSize: 1_000 };
  const { jobs } = await persist(() => client.jobs.listJobs(request), { timeoutMs: CALL_TIMEOUT_MS });
  return jobs.length;
}

/** Spread over the jobs, each at another moment of what the pool does. Returns how many there were. */
async function killServers(
  cluster: Cluster,
  { count, kills }: { count: number; kills: number },
): Promise<number> {
  const random = new SeededRandom(SEED);
  for (let killed = 0; killed < kills; killed += 1) {
    const wantedEnds = Math.floor((killed * count) / kills);
    const left = await eventually(
      async () => {
        const now = await countUnfinished(cluster);
        return count - now >= wantedEnds ? { now } : null;
      },
      {
        timeoutMs: count * TIMEOUT_PER_JOB_MS + SETTLE_TIMEOUT_MS,
        intervalMs: POLL_MS,
        what: `the end of ${wantedEnds} jobs`,
      },
    );
    if (left.now === 0) return killed;
    await systemClock.sleep(random.integer(0, 1_500));
    await cluster.killServer();
    await cluster.untilServing();
  }
  return kills;
}

async function checkContainers(watch: ContainerWatch, { say }: ScenarioContext): Promise<string[]> {
  const problems: string[] = watch.problem === null ? [] : [watch.problem];
  if (watch.mostExisting > MAX_CONTAINERS) {
    problems.push(`there were ${watch.mostExisting} containers at a time, not ${MAX_CONTAINERS}`);
  }
  const startedMs = systemClock.monotonicMs();
  const isNoneLeft = async (): Promise<boolean> => (await watch.list()).length === 0;
  await eventually(isNoneLeft, {
    timeoutMs: NONE_LEFT_TIMEOUT_MS,
    intervalMs: POLL_MS,
    what: "the end of the last container",
  }).catch(async () => problems.push(`left behind: ${(await watch.list()).join("; ")}`));
  say(`no container left ${seconds(systemClock.monotonicMs() - startedMs)} after the last job`);
  return problems;
}
