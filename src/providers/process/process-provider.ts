/**
 * Makes workers as processes of this machine: for a laptop, and for a server of one's own.
 *
 * A worker is an agent in a directory of its own, `<directory>/<worker id>/`. The agent starts the
 * runner. Both are in sessions of their own and outlive this process, so a server that comes back
 * finds them by the identities they left in their directory. An agent that dies while its runner
 * lives is started again and adopts it; the instance is gone only when both are.
 */

import { spawn } from "node:child_process";
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

const INHERITED = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "HODEI_CGROUP"];
/** How long an agent has to end its jobs and its runner when it is asked to. */
const STOP_TIMEOUT_MS = 10_000;
/** How long a killed process may take to disappear. */
const KILL_TIMEOUT_MS = 5_000;
/** A local worker has no other server to wait for. */
const OFFLINE_EXIT = "5m";
/** An agent that dies more often than this in a row is not started again. */
const MAX_RESTARTS = 5;
const RESTART_DELAY_MS = 500;

export class ProcessProvider implements Provider {
  readonly name = "process";
  readonly capabilities = { events: true };
  readonly #options: ProcessProviderOptions;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  readonly #destroying = new Set<string>();
  #isClosed = false;

  constructor(options: ProcessProviderOptions) {
    this.#options = options;
  }

  async create(spec: WorkerSpec): Promise<WorkerHandle> {
    const directory = this.#directoryOf(spec.workerId);
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const tokenFile = join(directory, "token");
      await writeFile(tokenFile, spec.token, { mode: 0o600 });
      const pid = await this.#startAgent(directory, this.#agentEnvironment(spec, directory), 0);
      return { workerId: spec.workerId, instanceId: String(pid) };
    } catch (error) {
      await this.destroy(spec.workerId);
      const code = error instanceof AppError ? error.code : "unavailable";
      throw new AppError(code, `start worker ${spec.workerId} in ${directory}: ${errorMessage(error)}`, { cause: error });
    }
  }

  async destroy(workerId: string): Promise<void> {
    const directory = this.#directoryOf(workerId);
    this.#destroying.add(workerId);
    try {
      const agent = await readIdentity(join(directory, "agent.pid"));
      if (agent) await this.#end(agent, STOP_TIMEOUT_MS);
      const runner = await readIdentity(join(directory, "runner.pid"));
      if (runner) await this.#end(runner, STOP_TIMEOUT_MS);
      await rm(directory, { recursive: true, force: true, maxRetries: 3 });
    } finally {
      this.#destroying.delete(workerId);
    }
  }

  async inspect(workerId: string): Promise<InstanceState> {
    const directory = this.#directoryOf(workerId);
    const agent = await readIdentity(join(directory, "agent.pid"));
    const runner = await readIdentity(join(directory, "runner.pid"));
    const isRunning = (agent && isProcessAlive(agent)) || (runner && isProcessAlive(runner));
    return isRunning ? "running" : "gone";
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
      HODEI_WORKER_LABELS: Object.entries(spec.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(","),
    };
  }

  async #startAgent(directory: string, env: Record<string, string>, restarts: number): Promise<number> {
    const logFile = openSync(join(directory, "agent.log"), "a", 0o600);
    const child = spawn(process.execPath, [this.#options.workerProgram, "agent"], {
      cwd: directory,
      env,
      detached: true,
      stdio: ["ignore", logFile, logFile],
    });
    closeSync(logFile);
    const pid = await new Promise<number>((resolve, reject) => {
      child.once("spawn", () => resolve(child.pid ?? 0));
      child.once("error", reject);
    });
    child.once("exit", (code) => void this.#onAgentExit({ directory, env, restarts, code }));
    // Neither keeps this process alive nor dies with it.
    child.unref();
    await writeFile(join(directory, "agent.pid"), JSON.stringify(identifyProcess(pid)));
    return pid;
  }

  async #onAgentExit(exit: {
    directory: string;
    env: Record<string, string>;
    restarts: number;
    code: number | null;
  }): Promise<void> {
    const workerId = exit.env["HODEI_WORKER_ID"] ?? "";
    const { log, clock } = this.#options;
    if (this.#isClosed || this.#destroying.has(workerId)) return;
    const runner = await readIdentity(join(exit.directory, "runner.pid"));
    const hasRunner = runner !== null && isProcessAlive(runner);
    if (!hasRunner || exit.restarts >= MAX_RESTARTS) {
      const message = hasRunner ? "the agent cannot be kept running" : await lastWords(exit.directory, exit.code);
      if (hasRunner) await this.destroy(workerId);
      this.#emit({ type: "gone", workerId, message });
      return;
    }
    log.warn({ workerId, code: exit.code }, "agent died, starting it again");
    await clock.sleep(RESTART_DELAY_MS);
    if (this.#isClosed || this.#destroying.has(workerId)) return;
    try {
      await this.#startAgent(exit.directory, exit.env, exit.restarts + 1);
    } catch (error) {
      log.error({ err: error, workerId }, "could not start an agent again");
    }
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
      await eventually(isGone, { timeoutMs: KILL_TIMEOUT_MS, what: `the end of killed process ${identity.pid}` });
    }
  }
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
