/**
 * A real Hodei to be broken: `hodei server` with its private PostgreSQL, the process provider, and
 * the agents and runners that it makes. The server is started again whenever it ends, as an init
 * system would do it, unless it was asked to stop.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { Place, program } from "../e2e/program.ts";
import { systemClock } from "../src/base/clock.ts";
import { apiTokenPath } from "../src/base/data-directory.ts";
import { eventually } from "../src/base/eventually.ts";
import {
  identifyProcess,
  isProcessAlive,
  signalProcess,
  type ProcessIdentity,
} from "../src/base/process-identity.ts";
import { openClient, type ClusterClient } from "./cluster-client.ts";
import { NetworkFaults } from "./network-faults.ts";

export interface ClusterOptions {
  workers: number;
  workerJobs: number;
  /** A worker without a job for this long leaves: `10s`. */
  workerIdleTimeout: string;
  /** More flags for `hodei server`. */
  flags?: readonly string[];
  /** Added to the environment of the server, of which workers inherit a part. */
  environment?: Record<string, string>;
}

/** The processes of one worker that are alive. */
export interface WorkerProcesses {
  workerId: string;
  directory: string;
  agent: ProcessIdentity | null;
  runner: ProcessIdentity | null;
}

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;
const RESTART_DELAY_MS = 500;

export class Cluster {
  readonly place: Place;
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly network: NetworkFaults;
  /** How often the server ended without having been told to or killed by `killServer`. */
  unexpectedEnds = 0;
  readonly #options: ClusterOptions;
  #server: ChildProcess | null = null;
  #client: ClusterClient | null = null;
  #isWanted = false;
  #isKilled = false;
  readonly #workerIds = new Set<string>();
  #restart: Promise<void> = Promise.resolve();

  private constructor(place: Place, ports: { http: number; grpc: number }, options: ClusterOptions) {
    this.place = place;
    this.httpPort = ports.http;
    this.grpcPort = ports.grpc;
    this.network = new NetworkFaults(ports.grpc);
    this.#options = options;
  }

  /** Makes the directory; nothing runs yet. */
  static async make(options: ClusterOptions): Promise<Cluster> {
    const ports = { http: await freePort(), grpc: await freePort() };
    return new Cluster(await Place.make(), ports, options);
  }

  get directory(): string {
    return this.place.directory;
  }

  get dataDirectory(): string {
    return this.place.dataDirectory;
  }

  /** Of the HTTP port; the same after each restart. */
  get url(): string {
    return `http://127.0.0.1:${this.httpPort}`;
  }

  get tokenFile(): string {
    return apiTokenPath(this.dataDirectory);
  }

  /** Where the server and the processes it starts write what they say. */
  get serverLog(): string {
    return join(this.directory, "server.log");
  }

  /** @throws Error before the first start of the server. */
  get client(): ClusterClient {
    if (!this.#client) throw new Error("use the API: the server was never started");
    return this.#client;
  }

  /** Starts the server and waits until it answers. From now on it is started again when it ends. */
  async startServer(): Promise<void> {
    this.#isWanted = true;
    this.#spawnServer();
    await this.untilServing();
  }

  /** Waits until the server answers. */
  async untilServing(timeoutMs = START_TIMEOUT_MS): Promise<void> {
    await eventually(() => this.isServing(), {
      timeoutMs,
      intervalMs: 50,
      what: `an answer of the server (see ${this.serverLog})`,
    });
    if (this.#client) return;
    const token = (await readFile(this.tokenFile, "utf8")).trim();
    this.#client = openClient({ url: this.url, token });
  }

  /** Whether the server answers and can reach its database. */
  async isServing(): Promise<boolean> {
    try {
      const signal = AbortSignal.timeout(2_000);
      const answer = await fetch(`${this.url}/readyz`, { signal });
      await answer.arrayBuffer();
      return answer.ok;
    } catch {
      // Not there, or too slow to be called serving.
      return false;
    }
  }

  get serverPid(): number | null {
    const server = this.#server;
    return server && server.exitCode === null && server.signalCode === null ? (server.pid ?? null) : null;
  }

  /** Ends the server at once and waits until it has ended; it comes back by itself. */
  async killServer(): Promise<void> {
    await this.#signalServer("SIGKILL");
  }

  /** Ends the server in good order, as an upgrade does, and waits until it has ended; it comes back. */
  async restartServer(): Promise<void> {
    await this.#signalServer("SIGTERM");
  }

  /** Stops the server for good; its workers go on without it. Returns the exit code. */
  async stopServer(): Promise<number | null> {
    this.#isWanted = false;
    await this.#restart;
    const server = this.#server;
    if (!server || this.serverPid === null) return server?.exitCode ?? null;
    this.#isKilled = true;
    const ended = once(server, "exit");
    server.kill("SIGTERM");
    const callOff = systemClock.schedule(STOP_TIMEOUT_MS, () => server.kill("SIGKILL"));
    await ended;
    callOff();
    return server.exitCode;
  }

  /** What the provider has made and is alive, by what it left in its directory. */
  async workers(): Promise<WorkerProcesses[]> {
    const parent = join(this.dataDirectory, "workers");
    const names = await readdir(parent).catch(() => []);
    const workers = await Promise.all(
      names.map(async (workerId) => {
        const directory = join(parent, workerId);
        const agent = await readLiving(join(directory, "agent.pid"));
        const runner = await readLiving(join(directory, "runner.pid"));
        return { workerId, directory, agent, runner };
      }),
    );
    return workers.filter(({ agent, runner }) => agent !== null || runner !== null);
  }

  /** Of every worker that there was while the server answered, those that have left included. */
  async knownWorkerIds(): Promise<string[]> {
    if (this.serverPid !== null && this.#client) {
      const { workers } = await this.#client.workers.listWorkers({
        includeTerminated: true,
        pageSize: 1_000,
      });
      for (const { info } of workers) if (info) this.#workerIds.add(info.workerId);
    }
    return [...this.#workerIds];
  }

  /** The first process of PostgreSQL, if it is alive. */
  async postmaster(): Promise<ProcessIdentity | null> {
    const path = join(this.dataDirectory, "postgres", "data", "postmaster.pid");
    const text = await readFile(path, "utf8").catch(() => "");
    const pid = Number.parseInt(text, 10);
    if (!Number.isSafeInteger(pid) || pid <= 0) return null;
    const identity = identifyProcess(pid);
    return isProcessAlive(identity) ? identity : null;
  }

  /** Waits until every worker has left, which they do when they are idle. */
  async untilNoWorkers(timeoutMs: number): Promise<void> {
    await eventually(async () => (await this.workers()).length === 0, {
      timeoutMs,
      intervalMs: 250,
      what: "the leave of all workers",
    });
  }

  /** Whatever still runs here is killed, and counted; the directory is kept if it is wanted. */
  async close(options: { keep: boolean }): Promise<void> {
    await this.stopServer();
    this.#client?.close();
    for (const line of await this.place.leftovers()) {
      signalProcess(identifyProcess(Number.parseInt(line, 10)), "SIGKILL");
    }
    if (!options.keep) await this.place.remove();
  }

  #spawnServer(): void {
    const { workers, workerJobs, workerIdleTimeout, flags = [], environment } = this.#options;
    const args = [
      ...["server", "--http-port", String(this.httpPort), "--grpc-port", String(this.grpcPort)],
      ...["--max-workers", String(workers), "--worker-jobs", String(workerJobs)],
      ...["--worker-idle-timeout", workerIdleTimeout, ...flags],
    ];
    const log = openSync(this.serverLog, "a");
    const server = spawn(process.execPath, [program, ...args], {
      env: this.place.environment(environment),
      cwd: this.directory,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    this.#server = server;
    this.#isKilled = false;
    server.once("exit", () => {
      if (!this.#isKilled) this.unexpectedEnds += 1;
      if (this.#isWanted) this.#restart = this.#startAgain();
    });
  }

  async #startAgain(): Promise<void> {
    await systemClock.sleep(RESTART_DELAY_MS);
    if (this.#isWanted) this.#spawnServer();
  }

  async #signalServer(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const server = this.#server;
    if (!server || this.serverPid === null) return;
    this.#isKilled = true;
    const ended = once(server, "exit");
    server.kill(signal);
    const callOff = systemClock.schedule(STOP_TIMEOUT_MS, () => server.kill("SIGKILL"));
    await ended;
    callOff();
  }
}

async function readLiving(path: string): Promise<ProcessIdentity | null> {
  try {
    const identity = JSON.parse(await readFile(path, "utf8")) as ProcessIdentity;
    return isProcessAlive(identity) ? identity : null;
  } catch {
    // Not started yet, removed, or half written.
    return null;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
