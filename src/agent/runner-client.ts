/**
 * The agent's end of the runner's socket: starts a runner where none answers, and connects again
 * whenever the connection is lost. A runner that is there already is adopted with all its attempts.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { commandOf } from "../base/brought-programs.ts";
import type { Clock } from "../base/clock.ts";
import { AppError, errorMessage, systemErrorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { identifyProcess, signalProcess, type ProcessIdentity } from "../base/process-identity.ts";
import type { Service } from "../base/service.ts";
import { withSocketPath } from "../base/socket-path.ts";
import type { AgentToRunner, RunnerToAgent } from "../core/runner-link.ts";
import { LineSplitter } from "../protocol/line-splitter.ts";
import { runnerSocketPath } from "../protocol/spool-layout.ts";

export interface RunnerClientOptions {
  directory: string;
  /** The one-file worker program that holds the runner. */
  workerProgram: string;
  environment: Record<string, string | undefined>;
  clock: Clock;
  log: Logger;
  onMessage(message: RunnerToAgent): void;
}

/** How long a new runner may take to listen. */
const START_TIMEOUT_MS = 15_000;
const CONNECT_INTERVAL_MS = 5;
/** How long a runner may take to end; less than a provider gives the agent. */
const SHUTDOWN_TIMEOUT_MS = 8_000;

export class RunnerClient implements Service {
  readonly #options: RunnerClientOptions;
  readonly #stopped = new AbortController();
  readonly #done: Promise<void>;
  #socket: Socket | null = null;
  #hasGreeted = false;

  constructor(options: RunnerClientOptions) {
    this.#options = options;
    this.#done = this.#keepConnected();
  }

  /**
   * Dropped until the runner has said hello. Its hello is the truth about what it holds, so an order
   * that overtook it would run without anybody knowing.
   */
  send(message: AgentToRunner): void {
    if (this.#hasGreeted) this.#write(message);
  }

  /** Resolves when the connection is closed. The runner goes on unless it was told to shut down. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#socket?.destroy();
    await this.#done;
  }

  /**
   * Tells the runner to end and waits until it has closed the connection. A runner that cannot be
   * told is sent a SIGTERM, which means the same. One that does not end in time is left alone: its
   * leases run out, and a provider kills it.
   */
  async shutDownRunner(kill: boolean): Promise<void> {
    const { clock, log } = this.#options;
    this.#stopped.abort();
    const socket = this.#socket;
    if (socket && !socket.destroyed) {
      const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
      const waiting = new AbortController();
      this.#write({ type: "shutdown", kill });
      await Promise.race([closed, clock.sleep(SHUTDOWN_TIMEOUT_MS, waiting.signal)]);
      waiting.abort();
      if (!socket.destroyed) log.error({}, "the runner does not end");
      socket.destroy();
    }
    await this.#done;
    if (!socket) await this.#terminateRunner();
  }

  #write(message: AgentToRunner): void {
    this.#socket?.write(`${JSON.stringify(message)}\n`);
  }

  async #keepConnected(): Promise<void> {
    const { log, clock } = this.#options;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        const socket = await this.#connectOrStart();
        // Nobody would end a connection that was made behind the back of `stop`.
        if (signal.aborted) socket.destroy();
        else await this.#serve(socket);
      } catch (error) {
        if (signal.aborted) return;
        log.error({ err: error }, "no runner");
        await clock.sleep(1_000, signal);
      }
    }
  }

  async #serve(socket: Socket): Promise<void> {
    const splitter = new LineSplitter();
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      const messages = this.#parse(splitter, chunk);
      if (messages === null) socket.destroy();
      for (const message of messages ?? []) {
        if (message.type === "hello") this.#hasGreeted = true;
        this.#options.onMessage(message);
      }
    });
    await new Promise<void>((resolve) => {
      // A reset connection is a closed one; the runner says hello again on the next.
      socket.once("error", () => socket.destroy());
      socket.once("close", () => resolve());
    });
    this.#socket = null;
    this.#hasGreeted = false;
  }

  /** Null if the runner does not keep to the protocol: the next connection begins anew. */
  #parse(splitter: LineSplitter, chunk: Buffer): RunnerToAgent[] | null {
    try {
      return splitter.push(chunk).map((line) => JSON.parse(line) as RunnerToAgent);
    } catch (error) {
      this.#options.log.error({ err: error }, "the runner sent what is no message");
      return null;
    }
  }

  async #connectOrStart(): Promise<Socket> {
    const path = runnerSocketPath(this.#options.directory);
    const running = await tryConnect(path);
    if (running) return running;
    const runner = await this.#startRunner();
    const { clock } = this.#options;
    const endMs = clock.monotonicMs() + START_TIMEOUT_MS;
    while (clock.monotonicMs() < endMs && !this.#stopped.signal.aborted && runner.exitCode() === null) {
      const socket = await tryConnect(path);
      if (socket) return socket;
      await clock.sleep(CONNECT_INTERVAL_MS);
    }
    throw new AppError(
      "unavailable",
      `start runner in ${this.#options.directory}: it does not listen, see runner.log`,
    );
  }

  async #startRunner(): Promise<{ exitCode(): number | null }> {
    const { directory, workerProgram, environment } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const logFile = openSync(join(directory, "runner.log"), "a", 0o600);
    const { HODEI_TOKEN: _token, HODEI_TOKEN_FILE: _tokenFile, ...inherited } = environment;
    const node = commandOf("node");
    const child = spawn(node.file, [...node.args, workerProgram, "runner"], {
      cwd: directory,
      env: { ...inherited, HODEI_WORKER_DIR: directory },
      detached: true,
      stdio: ["ignore", logFile, logFile],
    });
    closeSync(logFile);
    let exitCode: number | null = null;
    child.once("exit", (code) => {
      exitCode = code ?? 1;
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error) => {
        reject(new AppError("unavailable", `start runner: ${errorMessage(error)}`, { cause: error }));
      });
    });
    child.unref();
    await writeFile(this.#identityPath(), JSON.stringify(identifyProcess(child.pid ?? 0)));
    return { exitCode: () => exitCode };
  }

  #identityPath(): string {
    return join(this.#options.directory, "runner.pid");
  }

  async #terminateRunner(): Promise<void> {
    try {
      const identity = JSON.parse(await readFile(this.#identityPath(), "utf8")) as ProcessIdentity;
      signalProcess(identity, "SIGTERM");
    } catch (error) {
      // No runner was ever started here.
      if (systemErrorCode(error) === "ENOENT") return;
      this.#options.log.warn({ err: error }, "could not end the runner");
    }
  }
}

/** Null if nobody listens there. */
async function tryConnect(path: string): Promise<Socket | null> {
  try {
    return await withSocketPath(path, connected);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ECONNREFUSED") return null;
    throw error;
  }
}

async function connected(path: string): Promise<Socket> {
  const socket = createConnection(path);
  await once(socket, "connect");
  return socket;
}
