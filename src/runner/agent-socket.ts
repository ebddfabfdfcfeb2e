/**
 * The runner's end of the link to the agent: a Unix socket that serves one agent at a time.
 *
 * A new connection replaces the old one, because an agent that comes again has died or forgotten
 * its first connection. What cannot be sent is dropped: the `hello` of the next connection tells
 * everything.
 */

import { chmod, link, rename, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { AppError, errorMessage, systemErrorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Service } from "../base/service.ts";
import { withSocketPath } from "../base/socket-path.ts";
import type { AgentToRunner, RunnerToAgent } from "../core/runner-link.ts";
import { LineSplitter } from "../protocol/line-splitter.ts";

/** Bytes that may wait for an agent that does not read; then it is cut off. */
const MAX_UNSENT_BYTES = 64 * 1024 * 1024;
/** Two runners that find the socket of a dead one at the same moment settle it within a few tries. */
const MAX_LISTEN_TRIES = 10;

export interface AgentSocketOptions {
  path: string;
  clock: Clock;
  log: Logger;
}

export interface AgentHandlers {
  /** Called first for each connection; what it sends goes out first. */
  onConnect: () => void;
  onMessage: (message: AgentToRunner) => void;
}

export class AgentSocket implements Service {
  readonly #options: AgentSocketOptions;
  readonly #server: Server;
  #current: Socket | null = null;
  #handlers: AgentHandlers | null = null;
  #lines: string[] = [];
  #lastConnectedAtMs: number;

  private constructor(options: AgentSocketOptions) {
    this.#options = options;
    this.#lastConnectedAtMs = options.clock.monotonicMs();
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** @throws AppError `already_exists` if another runner listens there. */
  static async listen(options: AgentSocketOptions): Promise<AgentSocket> {
    const agentSocket = new AgentSocket(options);
    try {
      await agentSocket.#listen();
    } catch (error) {
      await agentSocket.#close();
      throw error;
    }
    return agentSocket;
  }

  /** Begins to talk; an agent that connected before has waited. */
  serve(handlers: AgentHandlers): void {
    this.#handlers = handlers;
    if (this.#current) this.#talk(this.#current, handlers);
  }

  /** How long there has been no agent; 0 while there is one. */
  get silentMs(): number {
    return this.#current ? 0 : this.#options.clock.monotonicMs() - this.#lastConnectedAtMs;
  }

  /** Messages of one turn of the event loop go out in one write. */
  send(message: RunnerToAgent): void {
    if (this.#current === null) return;
    this.#lines.push(JSON.stringify(message));
    if (this.#lines.length === 1) queueMicrotask(() => this.#flush());
  }

  async stop(): Promise<void> {
    this.#flush();
    this.#current?.end();
    this.#current?.unref();
    this.#current = null;
    // As long as this runner answers, nobody else takes the place.
    await rm(this.#options.path, { force: true });
    await this.#close();
  }

  /**
   * Listens under a name of its own first: a socket that is in its place but does not answer is that of
   * a runner that was killed, and is removed.
   */
  async #listen(): Promise<void> {
    const { path } = this.#options;
    const mine = join(dirname(path), `s${process.pid}`);
    await rm(mine, { force: true });
    try {
      await withSocketPath(mine, (short) => this.#bind(short));
      await chmod(mine, 0o600);
      for (let tries = 0; tries < MAX_LISTEN_TRIES; tries += 1) {
        if (await tryLink(mine, path)) return;
        if (await answers(path)) {
          throw new AppError("already_exists", `listen on ${path}: another runner is there`);
        }
        await removeDead(path);
      }
      throw new AppError("unavailable", `listen on ${path}: others take it all the time`);
    } finally {
      await rm(mine, { force: true });
    }
  }

  #bind(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const onError = (cause: Error): void => {
        reject(new AppError("internal", `listen on ${path}: ${errorMessage(cause)}`, { cause }));
      };
      this.#server.once("error", onError);
      this.#server.listen(path, () => {
        this.#server.off("error", onError);
        resolve();
      });
    });
  }

  #close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    const { clock, log } = this.#options;
    this.#current?.destroy();
    this.#current = socket;
    this.#lines = [];
    socket.on("error", (error) => log.debug({ err: error }, "connection of the agent failed"));
    socket.on("close", () => {
      if (this.#current !== socket) return;
      this.#current = null;
      this.#lastConnectedAtMs = clock.monotonicMs();
    });
    if (this.#handlers) this.#talk(socket, this.#handlers);
  }

  #talk(socket: Socket, { onConnect, onMessage }: AgentHandlers): void {
    const splitter = new LineSplitter();
    onConnect();
    socket.on("data", (chunk) => {
      if (this.#current !== socket) return;
      try {
        for (const line of splitter.push(chunk)) onMessage(JSON.parse(line) as AgentToRunner);
      } catch (error) {
        this.#options.log.error({ err: error }, "message of the agent could not be handled");
        socket.destroy();
      }
    });
  }

  #flush(): void {
    const socket = this.#current;
    const lines = this.#lines.splice(0);
    if (socket === null || lines.length === 0) return;
    socket.write(`${lines.join("\n")}\n`);
    if (socket.writableLength > MAX_UNSENT_BYTES) {
      this.#options.log.warn({ bytes: socket.writableLength }, "agent does not read, connection is cut");
      socket.destroy();
    }
  }
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/**
 * Another runner may have put its own socket in the place of the dead one since that was asked, so what
 * was taken is asked again, and put back if it answers.
 */
async function removeDead(path: string): Promise<void> {
  const aside = join(dirname(path), `d${process.pid}`);
  try {
    await rename(path, aside);
  } catch (error) {
    // Another runner was faster.
    if (systemErrorCode(error) === "ENOENT") return;
    throw error;
  }
  if (await answers(aside)) await tryLink(aside, path);
  await rm(aside, { force: true });
}

async function answers(path: string): Promise<boolean> {
  const connected = (short: string): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(short);
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
  return await withSocketPath(path, connected);
}
