/**
 * The storm: jobs of all kinds while everything below them breaks, at random from a seed. When it is
 * over, every job must end by itself, and is then held against what it did.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/base/clock.ts";
import { errorMessage } from "../src/base/errors.ts";
import { checkStorm, type CheckedJobs } from "./check-storm.ts";
import { Cluster } from "./cluster.ts";
import { FaultInjector, type FaultRecord } from "./fault-injector.ts";
import { FAULTS } from "./faults.ts";
import { JobLoad } from "./job-load.ts";
import { findLeftovers, removeCgroups } from "./leftovers.ts";
import { NetworkFaults } from "./network-faults.ts";
import { SeededRandom } from "./seeded-random.ts";
import { mountSmallDisks, unmountSmallDisks } from "./small-disk.ts";
import { violation, type Violation } from "./violation.ts";

export interface StormOptions {
  seed: number;
  /** How long faults are injected and jobs submitted; null: until there were enough of both. */
  durationMs: number | null;
  faults: number | null;
  jobs: number | null;
  /** Only faults with one of these in their name; empty: all. */
  only: readonly string[];
  meanFaultIntervalMs: number;
  onProgress(line: string): void;
}

export interface StormResult {
  directory: string;
  faults: FaultRecord[];
  /** Names of faults that this machine or user does not allow. */
  leftOut: string[];
  jobs: number;
  checked: CheckedJobs;
  violations: Violation[];
  /** By code: how often a call had to be repeated, and the last answer. */
  retries: JobLoad["retries"];
  unexpectedServerEnds: number;
  durationMs: number;
  /** From the end of the last fault to the end of the last job. */
  settledMs: number;
}

const WORKERS = 2;
const WORKER_JOBS = 8;
const PROGRESS_MS = 5_000;
/** The longest that a job may take to end after the last fault: a lease, some retries, a long job. */
const SETTLE_TIMEOUT_MS = 8 * 60_000;
const SETTLE_POLL_MS = 500;
const LEAVE_TIMEOUT_MS = 90_000;

export async function runStorm(options: StormOptions): Promise<StormResult> {
  const startedMs = systemClock.monotonicMs();
  const hasNamespace = await NetworkFaults.isPossible();
  const wanted = FAULTS.filter(
    ({ name }) => options.only.length === 0 || options.only.some((part) => name.includes(part)),
  );
  const faults = wanted.filter(({ needsNamespace }) => hasNamespace || !needsNamespace);
  const cluster = await Cluster.make({ workers: WORKERS, workerJobs: WORKER_JOBS, workerIdleTimeout: "10s" });
  if (hasNamespace) await mountSmallDisks(cluster);
  await mkdir(join(cluster.directory, "jobs"));
  await cluster.startServer();

  const storm = await blow(cluster, { ...options, injected: faults });
  const problems = storm.problems.map((text) => violation("run", text));
  const violations = [...problems, ...storm.checked.violations];
  violations.push(...(await endCluster(cluster, hasNamespace)));
  await cluster.close({ keep: violations.length > 0 });
  await removeCgroups(cluster);
  return {
    ...storm,
    directory: cluster.directory,
    leftOut: wanted.filter((fault) => !faults.includes(fault)).map(({ name }) => name),
    violations,
    unexpectedServerEnds: cluster.unexpectedEnds,
    durationMs: systemClock.monotonicMs() - startedMs,
  };
}

type Blown = Pick<StormResult, "faults" | "jobs" | "checked" | "retries" | "settledMs"> & {
  problems: string[];
};

async function blow(cluster: Cluster, options: StormOptions & { injected: typeof FAULTS }): Promise<Blown> {
  const random = new SeededRandom(options.seed);
  const label = `seed-${options.seed}`;
  const load = new JobLoad({
    client: cluster.client,
    directory: join(cluster.directory, "jobs"),
    random: random.fork(),
    label,
    enough: options.jobs,
  });
  const injector = new FaultInjector({
    cluster,
    random: random.fork(),
    faults: options.injected,
    jobs: () => load.jobs,
    meanIntervalMs: options.meanFaultIntervalMs,
    enough: options.faults,
  });
  const stopProgress = reportProgress(options.onProgress, load, injector);
  try {
    await untilOver(options, load, injector);
    options.onProgress("the storm is over, waiting for the jobs to end");
    await injector.finish();
    const calmMs = systemClock.monotonicMs();
    await load.finish();
    await untilSettled(load);
    const settledMs = systemClock.monotonicMs() - calmMs;
    options.onProgress(`settled in ${(settledMs / 1_000).toFixed(1)} s, checking ${load.jobs.length} jobs`);
    const checked = await checkStorm(cluster.client, { jobs: load.jobs, label });
    const problems = [...load.problems, ...injector.problems];
    const { records: faults } = injector;
    // For whoever has to find out what led to a violation.
    await writeFile(join(cluster.directory, "faults.json"), JSON.stringify(faults, null, 1));
    return { faults, jobs: load.jobs.length, checked, retries: load.retries, settledMs, problems };
  } finally {
    stopProgress();
  }
}

async function untilOver(options: StormOptions, load: JobLoad, injector: FaultInjector): Promise<void> {
  const endMs = options.durationMs === null ? Infinity : systemClock.monotonicMs() + options.durationMs;
  while (systemClock.monotonicMs() < endMs && !(load.hasEnough && injector.hasEnough)) {
    await systemClock.sleep(SETTLE_POLL_MS);
  }
}

/** A job that does not end is found by the check. */
async function untilSettled(load: JobLoad): Promise<void> {
  const endMs = systemClock.monotonicMs() + SETTLE_TIMEOUT_MS;
  while ((await load.countUnfinished()) > 0 && systemClock.monotonicMs() < endMs) {
    await systemClock.sleep(SETTLE_POLL_MS);
  }
}

/** Workers leave when they are idle, then the server stops; nothing may be left. */
async function endCluster(cluster: Cluster, hasSmallDisks: boolean): Promise<Violation[]> {
  const violations: Violation[] = [];
  await cluster
    .untilNoWorkers(LEAVE_TIMEOUT_MS)
    .catch((error: unknown) => violations.push(violation("leftover", errorMessage(error))));
  await cluster.knownWorkerIds();
  const code = await cluster.stopServer();
  if (code !== 0) violations.push(violation("run", `the server ended with ${code}`));
  const leftovers = await findLeftovers(cluster);
  if (hasSmallDisks) {
    const busy = await unmountSmallDisks(cluster);
    leftovers.push(...busy.map((path) => `${path} is still in use`));
  }
  violations.push(...leftovers.map((text) => violation("leftover", text)));
  return violations;
}

function reportProgress(report: (line: string) => void, load: JobLoad, injector: FaultInjector): () => void {
  const startedMs = systemClock.monotonicMs();
  let callOff = (): void => {};
  const tick = (): void => {
    const s = Math.round((systemClock.monotonicMs() - startedMs) / 1_000);
    const done = load.jobs.length - load.unfinished;
    const broken = injector.active.join(", ") || "nothing";
    report(
      `${s} s: ${done} of ${load.jobs.length} jobs ended, ${injector.records.length} faults; broken now: ${broken}`,
    );
    callOff = systemClock.schedule(PROGRESS_MS, tick);
  };
  tick();
  return () => callOff();
}
