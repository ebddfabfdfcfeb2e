/**
 * Makes workers as processes of this machine: for a laptop, and for a server of one's own.
 *
 * A worker is an agent in a directory of its own, `<directory>/<worker id>/`. The agent starts the
 * runner. Both are in sessions of their own and outlive this process, so a server that comes back
 * finds them by the identities they left in their directory. An agent that dies while its runner
 * lives is started again and adopts it; the instance is gone only when both are. Jobs of a runner that
 * was killed may outlive even that: they are ended when the worker is destroyed.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage, systemErrorCode } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import type { Logger } from "../../base/log.ts";
import {
  identifyProcess,
  isProcessAlive,
  signalProcess,
  type ProcessIdentity,
} from "../../base/process-identity.ts";
import type {
  InstanceState,
  Provider,
  ProviderEvent,
  ProviderHealth,
  WorkerHandle,
  WorkerSpec,
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
/** An agent that dies more often than this in a row is not started again. */
const MAX_RESTARTS = 5;
const RESTART_DELAY_MS = 500;
/** An agent that ran this long before it died begins a new row. */
const HEALTHY_RUN_MS = 60_000;
/** How long the end of what a killed runner has left may take; longer than SIGKILL may be resisted. */
const SWEEP_TIMEOUT_MS = 45_000;
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
  readonly #busy = new Map<string, Promise<unknown>>();
  #isClosed = false;

  constructor(options: ProcessProviderOptions) {
    this.#options = options;
  }

  async create(spec: WorkerSpec): Promise<WorkerHandle> {
    const { workerId } = spec;
    const directory = this.#directoryOf(workerId);
    return this.#alone(workerId, async () => {
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
    await this.#alone(workerId, () => this.#destroy(workerId));
  }

  async inspect(workerId: string): Promise<InstanceState> {
    const { agent, runner } = await readProcesses(this.#directoryOf(workerId));
    if (agent?.isAlive === true) return "running";
    if (runner?.isAlive !== true) return "gone";
    this.#careFor(workerId);
    return "running";
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
      await stat(this.#options.workerProgram);
      return { status: "healthy" };
    } catch (error) {
      return { status: "unhealthy", reason: errorMessage(error) };
    }
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

  /** One verb at a time for each worker, so that none misses a process that another is starting. */
  async #alone<T>(workerId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(workerId) ?? Promise.resolve();
    const done = before.then(work, work);
    this.#busy.set(workerId, done);
    try {
      return await done;
    } finally {
      if (this.#busy.get(workerId) === done) this.#busy.delete(workerId);
    }
  }

  async #destroy(workerId: string): Promise<void> {
    const directory = this.#directoryOf(workerId);
    this.#agents.delete(workerId);
    const agent = await readIdentity(join(directory, "agent.pid"));
    if (agent) await this.#end(agent, STOP_TIMEOUT_MS);
    const runner = await readIdentity(join(directory, "runner.pid"));
    if (runner) await this.#end(runner, STOP_TIMEOUT_MS);
    await this.#sweep(directory);
    await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * A runner that ended in good order has no attempts left. One that was killed has, and their
   * processes run on: nobody may call the worker gone before they are.
   */
  async #sweep(directory: string): Promise<void> {
    const attempts = await readdir(join(directory, "attempts")).catch(() => []);
    if (attempts.length === 0) return;
    const code = await this.#runSweep(directory);
    if (code === 0) return;
    throw new AppError(
      "unavailable",
      `end what is left of the worker in ${directory}: code ${code ?? "none"}`,
    );
  }

  async #runSweep(directory: string): Promise<number | null> {
    const env = JSON.parse(await readFile(environmentPath(directory), "utf8")) as Record<string, string>;
    const logFile = openSync(join(directory, "agent.log"), "a", 0o600);
    const child = spawn(process.execPath, [this.#options.workerProgram, "sweep"], {
      cwd: directory,
      env,
      stdio: ["ignore", logFile, logFile],
    });
    closeSync(logFile);
    const callOff = this.#options.clock.schedule(SWEEP_TIMEOUT_MS, () => child.kill("SIGKILL"));
    try {
      const [code] = (await once(child, "exit")) as [number | null];
      return code;
    } finally {
      callOff();
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
      HODEI_WORKER_JOBS: String(spec.capacity.jobs),
      HODEI_WORKER_CPU_MILLIS: String(spec.capacity.cpuMillis),
      HODEI_WORKER_MEMORY: String(spec.capacity.memoryBytes),
      HODEI_WORKER_OFFLINE_EXIT: OFFLINE_EXIT,
      // Whoever destroys a worker does not wait for its jobs.
      HODEI_WORKER_DRAIN_TIMEOUT: "0s",
      HODEI_WORKER_LABELS: Object.entries(spec.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(","),
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
    if (this.#isClosed || this.#agents.has(workerId) || this.#busy.has(workerId)) return;
    const run: AgentRun = { startedAtMs: this.#options.clock.monotonicMs(), restarts: 0 };
    this.#agents.set(workerId, run);
    void this.#onAgentExit(workerId, run, null);
  }

  async #onAgentExit(workerId: string, run: AgentRun, code: number | null): Promise<void> {
    try {
      const directory = this.#directoryOf(workerId);
      // One that left on purpose has told its runner to end as well, which may take a moment longer.
      const hasRunner = await outlives(directory, code === 0 ? RUNNER_END_MS : RESTART_DELAY_MS);
      if (this.#isClosed || this.#agents.get(workerId) !== run) return;
      const livedMs = this.#options.clock.monotonicMs() - run.startedAtMs;
      const restarts = livedMs > HEALTHY_RUN_MS ? 0 : run.restarts;
      if (!hasRunner) {
        this.#agents.delete(workerId);
        this.#emit({ type: "gone", workerId, message: await lastWords(directory, code) });
      } else if (code === 0 || restarts >= MAX_RESTARTS) {
        await this.destroy(workerId);
        this.#emit({ type: "gone", workerId, message: "the agent cannot be kept running" });
      } else {
        await this.#alone(workerId, () => this.#restart(workerId, run, restarts + 1));
      }
    } catch (error) {
      // Whoever inspects the worker next finds it as it is.
      this.#agents.delete(workerId);
      this.#options.log.error({ err: error, workerId }, "could not take care of a worker whose agent ended");
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

/** Whether the runner still lives after so long; false as soon as it does not. */
async function outlives(directory: string, waitMs: number): Promise<boolean> {
  const runner = await readIdentity(join(directory, "runner.pid"));
  if (!runner) return false;
  try {
    await eventually(() => !isProcessAlive(runner), { timeoutMs: waitMs, what: "the end of the runner" });
    return false;
  } catch {
    // The time is over, and that is the answer.
    return true;
  }
}

interface FoundProcess {
  identity: ProcessIdentity;
  isAlive: boolean;
}

async function readProcesses(
  directory: string,
): Promise<{ agent: FoundProcess | null; runner: FoundProcess | null }> {
  const find = async (name: string): Promise<FoundProcess | null> => {
    const identity = await readIdentity(join(directory, name));
    return identity && { identity, isAlive: isProcessAlive(identity) };
  };
  return { agent: await find("agent.pid"), runner: await find("runner.pid") };
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
