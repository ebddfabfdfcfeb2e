/**
 * The faults of the storm. Each is brought about, lasts for a while, and is taken back; `inject`
 * resolves when it is. Those of one lane never overlap, those of different lanes do.
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { systemClock } from "../src/base/clock.ts";
import { isProcessAlive, signalProcess, type ProcessIdentity } from "../src/base/process-identity.ts";
import type { Cluster, WorkerProcesses } from "./cluster.ts";
import type { StormJob } from "./job-load.ts";
import type { Direction } from "./network-faults.ts";
import { clientBackends } from "./postgres-processes.ts";
import type { SeededRandom } from "./seeded-random.ts";
import { fillDisk } from "./small-disk.ts";
import { readTrace } from "./witness-job.ts";

export interface FaultContext {
  cluster: Cluster;
  random: SeededRandom;
  /** Newest last. */
  jobs: readonly StormJob[];
  /** The storm is over: take the fault back now. */
  signal: AbortSignal;
}

export interface Fault {
  name: string;
  lane: "server" | "database" | "agent" | "runner" | "job" | "network" | "disk" | "reader";
  /** How many of it are in the bag from which faults are drawn. */
  weight: number;
  needsNamespace: boolean;
  /** What was done, in words; null if there was nothing to do it to. */
  inject(context: FaultContext): Promise<string | null>;
}

/** How long a process is stopped. */
const FREEZE_MS = [1_000, 45_000] as const;
/** How long the network is cut: up to longer than the shortest lease. */
const CUT_MS = [2_000, 70_000] as const;
const BAD_NETWORK_MS = [3_000, 20_000] as const;
const FULL_DISK_MS = [2_000, 15_000] as const;
const DEAF_READER_MS = [2_000, 30_000] as const;

export const FAULTS: readonly Fault[] = [
  fault("kill -9 server", "server", 3, async ({ cluster }) => {
    await cluster.killServer();
    return "killed";
  }),
  fault("SIGTERM server (rolling restart)", "server", 3, async ({ cluster }) => {
    await cluster.restartServer();
    return "restarted";
  }),
  fault("SIGSTOP server, 1–45 s", "server", 1, (context) => {
    const pid = context.cluster.serverPid;
    return pid === null ? Promise.resolve(null) : freeze({ pid, startTicks: null }, context);
  }),
  fault("kill -9 PostgreSQL", "database", 2, async ({ cluster }) => {
    const postmaster = await cluster.postmaster();
    return postmaster && kill(postmaster);
  }),
  fault("kill -9 PostgreSQL backend", "database", 2, async ({ cluster, random }) => {
    const postmaster = await cluster.postmaster();
    const backend = postmaster && random.pick(await clientBackends(postmaster.pid));
    return backend && kill(backend);
  }),
  fault("kill -9 agent", "agent", 4, async (context) => {
    const worker = await pickWorker(context);
    return worker?.agent ? kill(worker.agent) : null;
  }),
  fault("SIGSTOP agent, 1–45 s", "agent", 2, async (context) => {
    const worker = await pickWorker(context);
    return worker?.agent ? freeze(worker.agent, context) : null;
  }),
  fault("kill -9 runner", "runner", 3, async (context) => {
    const worker = await pickWorker(context);
    return worker?.runner ? kill(worker.runner) : null;
  }),
  fault("kill -9 agent and runner", "runner", 2, async (context) => {
    const worker = await pickWorker(context);
    if (!worker?.agent || !worker.runner) return null;
    kill(worker.agent);
    return kill(worker.runner);
  }),
  fault("SIGSTOP runner, 1–45 s", "runner", 2, async (context) => {
    const worker = await pickWorker(context);
    return worker?.runner ? freeze(worker.runner, context) : null;
  }),
  fault("kill -9 job process", "job", 4, killJobProcess),
  fault("network cut, both ways, 2–70 s", "network", 1, (context) => cut("both", context), true),
  fault("network cut, agents → server", "network", 1, (context) => cut("to_server", context), true),
  fault("network cut, server → agents", "network", 1, (context) => cut("to_agents", context), true),
  fault("packet loss, 5–30 %", "network", 1, lose, true),
  fault("slow network, 50–500 ms", "network", 1, slow, true),
  fault("full disk of the workers", "disk", 2, (context) => fill("workers", context), true),
  fault("full disk of the server's logs", "disk", 2, (context) => fill("logs", context), true),
  fault("log reader that never reads", "reader", 2, readNothing),
];

// oxlint-disable-next-line max-params -- a row of the table above
function fault(
  name: string,
  lane: Fault["lane"],
  weight: number,
  inject: Fault["inject"],
  needsNamespace = false,
): Fault {
  return { name, lane, weight, inject, needsNamespace };
}

async function pickWorker({ cluster, random }: FaultContext): Promise<WorkerProcesses | null> {
  return random.pick(await cluster.workers());
}

function kill(identity: ProcessIdentity): string | null {
  return signalProcess(identity, "SIGKILL") ? `killed ${identity.pid}` : null;
}

async function freeze(identity: ProcessIdentity, context: FaultContext): Promise<string | null> {
  if (!signalProcess(identity, "SIGSTOP")) return null;
  const forMs = await last(FREEZE_MS, context);
  // It may have been killed meanwhile, which is fine.
  signalProcess(identity, "SIGCONT");
  return `stopped ${identity.pid} for ${seconds(forMs)}`;
}

/** A process of a job that runs: its shell, or a child of it. */
async function killJobProcess({ jobs, random }: FaultContext): Promise<string | null> {
  for (const job of random.shuffled(jobs.slice(-200))) {
    const { holders } = await readTrace(job.directory);
    const alive = holders.filter((holder) => holder.startTicks !== "gone" && isProcessAlive(holder));
    const victim = random.pick(alive);
    if (!victim || !signalProcess(victim, "SIGKILL")) continue;
    job.wasHit = true;
    return `killed ${victim.pid} of ${job.name}`;
  }
  return null;
}

async function cut(direction: Direction, context: FaultContext): Promise<string> {
  const { network } = context.cluster;
  await network.cut(direction);
  const forMs = await last(CUT_MS, context);
  await network.heal();
  return `for ${seconds(forMs)}`;
}

async function lose(context: FaultContext): Promise<string> {
  const { network } = context.cluster;
  const part = 0.05 + 0.25 * context.random.fraction();
  await network.lose(part);
  const forMs = await last(BAD_NETWORK_MS, context);
  await network.heal();
  return `${(part * 100).toFixed(0)} % for ${seconds(forMs)}`;
}

async function slow(context: FaultContext): Promise<string> {
  const { network } = context.cluster;
  const how = await network.slow(context.random.integer(50, 500));
  const forMs = await last(BAD_NETWORK_MS, context);
  await network.heal();
  return `${how} for ${seconds(forMs)}`;
}

async function fill(name: "workers" | "logs", context: FaultContext): Promise<string> {
  const empty = await fillDisk(context.cluster, name);
  const forMs = await last(FULL_DISK_MS, context);
  await empty();
  return `for ${seconds(forMs)}`;
}

/** Follows the log of a job over a pipe that nobody empties. */
async function readNothing(context: FaultContext): Promise<string | null> {
  const { cluster, random, jobs } = context;
  const loud = jobs.slice(-100).filter(({ kind }) => kind === "loud" || kind === "wide");
  const job = random.pick(loud);
  if (!job) return null;
  const env = { HODEI_SERVER: cluster.url, HODEI_API_TOKEN_FILE: cluster.tokenFile };
  const reader: ChildProcess = cluster.place.start(["logs", "--follow", job.jobId], { env });
  const ended = once(reader, "exit");
  const forMs = await last(DEAF_READER_MS, context);
  reader.kill("SIGKILL");
  await ended;
  return `of ${job.name} for ${seconds(forMs)}`;
}

async function last([minMs, maxMs]: readonly [number, number], context: FaultContext): Promise<number> {
  const startedMs = systemClock.monotonicMs();
  await systemClock.sleep(context.random.spread(minMs, maxMs), context.signal);
  return systemClock.monotonicMs() - startedMs;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
