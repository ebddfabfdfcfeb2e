/**
 * Makes workers as processes of this machine: for a laptop, and for a server of one's own.
 *
 * A worker is an agent in a directory of its own, `<directory>/<worker id>/`. The agent starts the
 * runner. Both are in sessions of their own and outlive this process, so a server that comes back
 * finds them by the identities they left in their directory. An agent that dies while its runner
 * lives is started again and adopts it. The instance is gone only when both are and nothing of their
 * jobs runs: a runner that was killed leaves a mark, and then the worker program ends what it left
 * (`worker sweep`) before anybody hears that the worker is gone.
 */

import { execFile, spawn } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { access, mkdir, readFile, readdir, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage, systemErrorCode } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { AGENT_REFUSED } from "../../base/exit-codes.ts";
import type { Logger } from "../../base/log.ts";
import { OneAtATime } from "../../base/one-at-a-time.ts";
import {
  identifyProcess,
  isProcessAlive,
  signalProcess,
  type ProcessIdentity,
} from "../../base/process-identity.ts";
import { readRunnerMark } from "../../base/runner-mark.ts";
import {
  capacityVariables,
  labelVariables,
  type InstanceState,
  type Provider,
  type ProviderEvent,
  type ProviderHealth,
  type WorkerHandle,
  type WorkerSpec,
} from "../provider.ts";

export interface ProcessProviderOptions {
  /** Holds a directory for each worker; made if it is not there. */
  directory: string;
  /** The one-file worker program; run by this process's own Node. */
  workerProgram: string;
  /** What agents and their jobs inherit: PATH, HOME and the like. */
  environment: Record<string, string | undefined>;
  clock: Clock;
  log: Logger;
}

const INHERITED = [
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "SHELL",
  "LANG",
  "LC_ALL",
  "TZ",
  "TMPDIR",
  "HODEI_CGROUP",
];
/** How long an agent has to end its jobs and its runner when it is asked to. */
const STOP_TIMEOUT_MS = 10_000;
/** How long a killed process may take to disappear. */
const KILL_TIMEOUT_MS = 5_000;
/**
 * Log leaves an agent in pieces of 64 KiB, each in memory outside of the heap. A young generation
 * that is small is collected often, which frees them at once; else they pile up until the whole heap
 * is marked, again and again: a third of an agent's time under a loud job.
 */
const NODE_OPTIONS = ["--max-semi-space-size=1"];
/** A local worker has no other server to wait for. */
const OFFLINE_EXIT = "5m";
/** An agent without work that dies more often than this in a row is not started again. */
const MAX_RESTARTS = 5;
/** The wait before a restart, doubled with each in a row. */
const RESTART_DELAY_MS = 200;
const MAX_RESTART_DELAY_MS = 2_000;
/** An agent that ran this long before it died begins a new row. */
const HEALTHY_RUN_MS = 3_000;
/** How long the end of what a killed runner has left may take; longer than the sweep tries. */
const SWEEP_TIMEOUT_MS = 20_000;
/** With less than this a worker can hardly keep the log of its jobs. */
const LOW_DISK_BYTES = 256 * 2 ** 20;
/** How long a runner may take to end after an agent that left on purpose. */
const RUNNER_END_MS = 5_000;

/** An agent that this process started or takes care of. */
interface AgentRun {
  startedAtMs: number;
  /** How often its predecessors died in a row. */
  restarts: number;
}

export class ProcessProvider implements Provider {
  readonly name = "process";
  readonly capabilities = { events: true };
  readonly #options: ProcessProviderOptions;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  /** By worker id; a worker that is destroyed is in here no more, which calls off its restart. */
  readonly #agents = new Map<string, AgentRun>();
  /** One verb at a time for each worker, so that none misses a process that another is starting. */
  readonly #verbs = new OneAtATime();
  /** Workers whose agent died and is started again in a moment. */
  readonly #restarting = new Set<string>();
  #isClosed = false;

  constructor(options: ProcessProviderOptions) {
    this.#options = options;
  }

  async create(spec: WorkerSpec): Promise<WorkerHandle> {
    const { workerId } = spec;
    const directory = this.#directoryOf(workerId);
    return this.#verbs.run(workerId, async () => {
      const known = await readProcesses(directory);
      if (known.agent?.isAlive === true) return { workerId, instanceId: String(known.agent.identity.pid) };
      try {
        await mkdir(directory, { recursive: true, mode: 0o700 });
        await writeFile(join(directory, "token"), spec.token, { mode: 0o600 });
        const environment = JSON.stringify(this.#agentEnvironment(spec, directory));
        await writeFile(environmentPath(directory), environment, { mode: 0o600 });
        const pid = await this.#startAgent(workerId, 0);
        return { workerId, instanceId: String(pid) };
      } catch (error) {
        await this.#destroy(workerId).catch((cleanUpError: unknown) => {
          this.#options.log.error({ err: cleanUpError, workerId }, "could not remove a worker");
        });
        const code = error instanceof AppError ? error.code : "unavailable";
        throw new AppError(code, `start worker ${workerId} in ${directory}: ${errorMessage(error)}`, {
          cause: error,
        });
      }
    });
  }

  async destroy(workerId: string): Promise<void> {
    this.#directoryOf(workerId);
    this.#agents.delete(workerId);
    await this.#verbs.run(workerId, () => this.#destroy(workerId));
  }

  async inspect(workerId: string): Promise<InstanceState> {
    const { agent, runner, mayHaveStrays } = await readProcesses(this.#directoryOf(workerId));
    if (agent?.isAlive === true) return "running";
    if (runner?.isAlive === true) {
      this.#careFor(workerId);
      return "running";
    }
    if (mayHaveStrays) this.#sweepSoon(workerId);
    if (mayHaveStrays || this.#restarting.has(workerId)) return "running";
    return "gone";
  }

  /** Directories whose processes are gone are listed too: they still take room. */
  async list(): Promise<WorkerHandle[]> {
    const names = await readdir(this.#options.directory).catch((error: unknown) => {
      if (systemErrorCode(error) === "ENOENT") return [];
      throw error;
    });
    const handles: WorkerHandle[] = [];
    for (const workerId of names.filter(isWorkerId)) {
      const agent = await readIdentity(join(this.#directoryOf(workerId), "agent.pid"));
      handles.push({ workerId, instanceId: String(agent?.pid ?? "") });
    }
    return handles;
  }

  async healthCheck(): Promise<ProviderHealth> {
    try {
      await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
      await access(this.#options.directory, constants.W_OK | constants.X_OK);
      await access(this.#options.workerProgram, constants.R_OK);
      return await this.#diskHealth();
    } catch (error) {
      return { status: "unhealthy", reason: errorMessage(error) };
    }
  }

  async #diskHealth(): Promise<ProviderHealth> {
    const { directory } = this.#options;
    const disk = await statfs(directory);
    const freeBytes = disk.bavail * disk.bsize;
    if (freeBytes >= LOW_DISK_BYTES) return { status: "healthy" };
    return {
      status: "degraded",
      reason: `only ${Math.floor(freeBytes / 2 ** 20)} MiB are free in ${directory}`,
    };
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#listeners.clear();
    return Promise.resolve();
  }

  async #destroy(workerId: string): Promise<void> {
    const directory = this.#directoryOf(workerId);
    this.#agents.delete(workerId);
    const agent = await readIdentity(join(directory, "agent.pid"));
    if (agent) await this.#end(agent, STOP_TIMEOUT_MS);
    await this.#endJobs(workerId);
    await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  }

  /** Ends the runner with its jobs, and what a runner that was killed has left of them. */
  async #endJobs(workerId: string): Promise<void> {
    const directory = this.#directoryOf(workerId);
    for (const runner of await runnerIdentities(directory)) await this.#end(runner, STOP_TIMEOUT_MS);
    await this.#sweep(workerId);
  }

  #sweepSoon(workerId: string): void {
    if (this.#isClosed || this.#verbs.isBusy(workerId)) return;
    this.#verbs
      .run(workerId, () => this.#sweep(workerId))
      .catch((error: unknown) => {
        // The next inspection tries again.
        this.#options.log.error({ err: error, workerId }, "could not end what is left of a worker");
      });
  }

  /** @throws AppError `unavailable` with what could not be ended: then the worker is not gone. */
  async #sweep(workerId: string): Promise<void> {
    const directory = this.#directoryOf(workerId);
    if ((await readRunnerMark(directory)) === null) return;
    try {
      await promisify(execFile)(
        process.execPath,
        [this.#options.workerProgram, "sweep", "--dir", directory],
        {
          cwd: "/",
          env: {},
          timeout: SWEEP_TIMEOUT_MS,
          killSignal: "SIGKILL",
        },
      );
    } catch (cause) {
      const said = cause instanceof Error && "stderr" in cause ? String(cause.stderr).trim() : "";
      throw new AppError(
        "unavailable",
        `end the jobs of worker ${workerId}: ${said.slice(0, 1_000) || errorMessage(cause)}`,
        { cause },
      );
    }
  }

  #directoryOf(workerId: string): string {
    if (!isWorkerId(workerId)) {
      throw new AppError("invalid_argument", `worker id ${JSON.stringify(workerId)} is no UUID`);
    }
    return join(this.#options.directory, workerId);
  }

  #agentEnvironment(spec: WorkerSpec, directory: string): Record<string, string> {
    const inherited: Record<string, string> = {};
    for (const name of INHERITED) {
      const value = this.#options.environment[name];
      if (value !== undefined) inherited[name] = value;
    }
    return {
      ...inherited,
      ...spec.environment,
      HODEI_SERVER: spec.serverUrl,
      HODEI_TOKEN_FILE: join(directory, "token"),
      HODEI_WORKER_ID: spec.workerId,
      HODEI_WORKER_NAME: spec.name,
      HODEI_WORKER_DIR: directory,
      HODEI_WORKER_OFFLINE_EXIT: OFFLINE_EXIT,
      // Whoever destroys a worker does not wait for its jobs.
      HODEI_WORKER_DRAIN_TIMEOUT: "0s",
      ...capacityVariables(spec),
      ...labelVariables(spec),
    };
  }

  async #startAgent(workerId: string, restarts: number): Promise<number> {
    const directory = this.#directoryOf(workerId);
    const env = JSON.parse(await readFile(environmentPath(directory), "utf8")) as Record<string, string>;
    const logFile = openSync(join(directory, "agent.log"), "a", 0o600);
    const child = spawn(process.execPath, [...NODE_OPTIONS, this.#options.workerProgram, "agent"], {
      cwd: directory,
      env,
      detached: true,
      stdio: ["ignore", logFile, logFile],
    });
    closeSync(logFile);
    const run: AgentRun = { startedAtMs: this.#options.clock.monotonicMs(), restarts };
    const pid = await new Promise<number>((resolve, reject) => {
      child.once("spawn", () => resolve(child.pid ?? 0));
      child.once("error", reject);
    });
    this.#agents.set(workerId, run);
    child.once("exit", (code) => void this.#onAgentExit(workerId, run, code));
    // Neither keeps this process alive nor dies with it.
    child.unref();
    await writeFile(join(directory, "agent.pid"), JSON.stringify(identifyProcess(pid)));
    return pid;
  }

  /** The agent of an earlier server's worker died, of which nobody told this process. */
  #careFor(workerId: string): void {
    if (this.#isClosed || this.#agents.has(workerId) || this.#verbs.isBusy(workerId)) return;
    const run: AgentRun = { startedAtMs: this.#options.clock.monotonicMs(), restarts: 0 };
    this.#agents.set(workerId, run);
    void this.#onAgentExit(workerId, run, null);
  }

  async #onAgentExit(workerId: string, run: AgentRun, code: number | null): Promise<void> {
    // Ended by whoever destroys the worker, which is gone when that is done, and not about to restart.
    if (this.#agents.get(workerId) !== run) return;
    this.#restarting.add(workerId);
    try {
      const directory = this.#directoryOf(workerId);
      const livedMs = this.#options.clock.monotonicMs() - run.startedAtMs;
      const restarts = livedMs > HEALTHY_RUN_MS ? 0 : run.restarts;
      const hasLeft = code === 0 || code === AGENT_REFUSED;
      // One that left on purpose has told its runner to end as well, which may take a moment longer.
      await outlives(directory, hasLeft ? RUNNER_END_MS : restartDelayMs(restarts));
      if (this.#isClosed || this.#agents.get(workerId) !== run) return;
      if (!hasLeft && (await isWorthRestart(directory, { code, restarts }))) {
        await this.#verbs.run(workerId, () => this.#restart(workerId, run, restarts + 1));
        return;
      }
      this.#agents.delete(workerId);
      await this.#verbs.run(workerId, () => this.#endJobs(workerId));
      this.#emit({ type: "gone", workerId, message: await lastWords(directory, code) });
    } catch (error) {
      // Whoever inspects the worker next finds it as it is.
      this.#agents.delete(workerId);
      this.#options.log.error({ err: error, workerId }, "could not take care of a worker whose agent ended");
    } finally {
      this.#restarting.delete(workerId);
    }
  }

  async #restart(workerId: string, run: AgentRun, restarts: number): Promise<void> {
    if (this.#isClosed || this.#agents.get(workerId) !== run) return;
    this.#options.log.warn({ workerId, restarts }, "agent died, starting it again");
    await this.#startAgent(workerId, restarts);
  }

  #emit(event: ProviderEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  async #end(identity: ProcessIdentity, timeoutMs: number): Promise<void> {
    if (!signalProcess(identity, "SIGTERM")) return;
    const isGone = (): boolean => !isProcessAlive(identity);
    try {
      await eventually(isGone, { timeoutMs, what: `the end of process ${identity.pid}` });
    } catch {
      // It had its time: SIGKILL cannot be ignored.
      signalProcess(identity, "SIGKILL");
      await eventually(isGone, {
        timeoutMs: KILL_TIMEOUT_MS,
        what: `the end of killed process ${identity.pid}`,
      });
    }
  }
}

/** What the agent is started with, kept for the case that another server must start it again. */
function environmentPath(directory: string): string {
  return join(directory, "agent.json");
}

/** Resolves after so long, or as soon as no runner lives. */
async function outlives(directory: string, waitMs: number): Promise<void> {
  const isGone = async (): Promise<boolean> => (await readProcesses(directory)).runner?.isAlive !== true;
  try {
    await eventually(isGone, { timeoutMs: waitMs, what: "the end of the runner" });
  } catch {
    // It lives on, and the caller looks for itself.
  }
}

function restartDelayMs(restarts: number): number {
  return Math.min(MAX_RESTART_DELAY_MS, RESTART_DELAY_MS * 2 ** Math.min(restarts, 10));
}

/**
 * Whether an agent that died is started again. For ever, as long as a runner has work: no job dies
 * because its agent does. One that was killed before it had a runner has its whole life before it;
 * one that gave up by itself there would do so again.
 */
async function isWorthRestart(
  directory: string,
  died: { code: number | null; restarts: number },
): Promise<boolean> {
  const { runner } = await readProcesses(directory);
  if (runner === null) return died.code === null && died.restarts < MAX_RESTARTS;
  if (!runner.isAlive) return false;
  return died.restarts < MAX_RESTARTS || (await holdsAttempts(directory));
}

/** The runner keeps a directory for each attempt; directories that wait for one begin with a dot. */
async function holdsAttempts(directory: string): Promise<boolean> {
  const names = await readdir(join(directory, "attempts")).catch(() => []);
  return names.some((name) => !name.startsWith("."));
}

interface FoundProcess {
  identity: ProcessIdentity;
  isAlive: boolean;
}

interface FoundProcesses {
  agent: FoundProcess | null;
  runner: FoundProcess | null;
  /** No runner has said that nothing of its jobs is left. */
  mayHaveStrays: boolean;
}

async function readProcesses(directory: string): Promise<FoundProcesses> {
  const find = (identity: ProcessIdentity): FoundProcess => ({ identity, isAlive: isProcessAlive(identity) });
  const agent = await readIdentity(join(directory, "agent.pid"));
  const runners = (await runnerIdentities(directory)).map(find);
  return {
    agent: agent && find(agent),
    runner: runners.find(({ isAlive }) => isAlive) ?? runners[0] ?? null,
    mayHaveStrays: (await readRunnerMark(directory)) !== null,
  };
}

/** As its agent knows it, and as it says itself: an agent may die before it has noted what it started. */
async function runnerIdentities(directory: string): Promise<ProcessIdentity[]> {
  const noted = await readIdentity(join(directory, "runner.pid"));
  const marked = (await readRunnerMark(directory))?.runner ?? null;
  return [noted, marked].filter((identity) => identity !== null);
}

function isWorkerId(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
}

async function readIdentity(path: string): Promise<ProcessIdentity | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as ProcessIdentity;
  } catch {
    // Not started yet, removed, or half written: there is nothing to signal.
    return null;
  }
}

/** The last line of the agent's log says why it left, which its exit code does not. */
async function lastWords(directory: string, code: number | null): Promise<string> {
  const text = await readFile(join(directory, "agent.log"), "utf8").catch(() => "");
  const last = text.trimEnd().split("\n").at(-1)?.slice(0, 500) ?? "";
  return `the agent ended with code ${code ?? "none"}${last ? `: ${last}` : ""}`;
}
