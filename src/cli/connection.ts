/**
 * Finds a server and talks to it: the one that was named, the one that runs in the data directory,
 * or one inside this process for the time of one command.
 */

import { readFile } from "node:fs/promises";
import { Agent as HttpAgent, get as httpGet } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { resolve } from "node:path";
import {
  Code,
  ConnectError,
  createClient,
  type Client,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import {
  apiTokenPath,
  defaultDataDirectory,
  serverFilePath,
  type ServerFile,
} from "../base/data-directory.ts";
import { AppError, systemErrorCode } from "../base/errors.ts";
import { sharedAbortController } from "../base/shared-abort.ts";
import { JobService } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { PoolService } from "../protocol/gen/hodei/v1/pools_pb.ts";
import { SchedulerService } from "../protocol/gen/hodei/v1/scheduling_pb.ts";
import { ServerService } from "../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { DURATION_EXAMPLES, parseDurationMs } from "../spec/quantities.ts";
import type { CliEnvironment } from "./environment.ts";
import { fileProblem } from "./file-problem.ts";
import { invalidOption } from "./option-values.ts";

/** Whether a command can do with a server of its own when none runs. */
export type ConnectionNeed = "embedded_to_run" | "embedded_to_read" | "running_server";

export interface ConnectionOptions {
  server?: string;
  tokenFile?: string;
  dataDir?: string;
  reconnectTimeout?: string;
}

export interface Connection {
  url: string;
  jobs: Client<typeof JobService>;
  logs: Client<typeof LogService>;
  workers: Client<typeof WorkerService>;
  pools: Client<typeof PoolService>;
  scheduler: Client<typeof SchedulerService>;
  server: Client<typeof ServerService>;
  /** The server and its jobs end with this process. */
  isEmbedded: boolean;
  /** How long a command goes on without the server before it gives up. */
  reconnectTimeoutMs: number;
  /** The server has been there: when it is not any more, it may be expected back. */
  hasAnswered(): boolean;
  /** Aborts when the connection is closed: a command that was interrupted tries nothing again. */
  closed: AbortSignal;
  /** Looks where the server of the data directory is now: after a restart it may be on another port. */
  relocate(): Promise<void>;
  close(): Promise<void>;
}

const DEFAULT_RECONNECT_TIMEOUT_MS = 5 * 60_000;

/** @throws AppError `unavailable` with `details.hint` if there is no server. */
export async function connect(
  environment: CliEnvironment,
  options: ConnectionOptions,
  need: ConnectionNeed,
): Promise<Connection> {
  const reconnectTimeoutMs = chosenReconnectTimeoutMs(environment, options);
  const named = options.server ?? environment.variables["HODEI_SERVER"];
  if (named) {
    return open({ url: checkUrl(named), token: await chosenToken(environment, options), reconnectTimeoutMs });
  }

  const dataDirectory = chosenDataDirectory(environment, options);
  const findLocal = () => findLocalServer(dataDirectory, need);
  const findAgain = async (): Promise<string | null> => (await findLocal())?.url ?? null;
  const local = await findLocal();
  if (local) {
    const token =
      (await chosenToken(environment, options)) ??
      (await readToken(apiTokenPath(dataDirectory), environment));
    return open({ url: local.url, token, reconnectTimeoutMs, findAgain });
  }
  if (need === "running_server") {
    throw new AppError("unavailable", `connect: no server is running for ${dataDirectory}`, {
      details: { hint: "start one with: hodei dev" },
    });
  }
  const embedded = await environment.startEmbeddedServer({
    readOnly: need === "embedded_to_read",
    dataDirectory,
  });
  const stopServer = embedded.stop.bind(embedded);
  const { url, token } = embedded;
  // A server that only reads gives way to one that stays, and the command goes on with that.
  const next = need === "embedded_to_read" ? { findAgain } : {};
  return open({ url, token, reconnectTimeoutMs, stopServer, ...next });
}

function chosenReconnectTimeoutMs(environment: CliEnvironment, options: ConnectionOptions): number {
  const text = options.reconnectTimeout ?? environment.variables["HODEI_RECONNECT_TIMEOUT"];
  if (!text) return DEFAULT_RECONNECT_TIMEOUT_MS;
  const timeoutMs = parseDurationMs(text);
  if (timeoutMs !== null) return timeoutMs;
  const source = options.reconnectTimeout === undefined ? "HODEI_RECONNECT_TIMEOUT" : "--reconnect-timeout";
  throw invalidOption(source, `${JSON.stringify(text)} is not a duration: ${DURATION_EXAMPLES}`);
}

function chosenDataDirectory(environment: CliEnvironment, options: ConnectionOptions): string {
  const chosen = options.dataDir ?? environment.variables["HODEI_DATA_DIR"];
  return chosen
    ? resolve(environment.cwd, chosen)
    : defaultDataDirectory(environment.variables, environment.uid);
}

function checkUrl(text: string): string {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(withScheme) ? new URL(withScheme) : null;
  if (
    !url ||
    (url.protocol !== "http:" && url.protocol !== "https:") ||
    url.username !== "" ||
    url.password !== ""
  ) {
    throw new AppError(
      "invalid_argument",
      `connect: ${JSON.stringify(text)} is not the address of a server`,
      {
        details: { hint: "use an address such as http://127.0.0.1:8080" },
      },
    );
  }
  return url.href.replace(/\/+$/, "");
}

// ── Tokens ─────────────────────────────────────────────────────────────────────────────────────

/** The token that was chosen by option or variable; never one from the command line itself. */
async function chosenToken(environment: CliEnvironment, options: ConnectionOptions): Promise<string | null> {
  if (options.tokenFile) return readToken(options.tokenFile, environment);
  const token = environment.variables["HODEI_API_TOKEN"];
  if (token) return checkToken(token, "HODEI_API_TOKEN");
  const file = environment.variables["HODEI_API_TOKEN_FILE"];
  return file ? readToken(file, environment) : null;
}

async function readToken(file: string, environment: CliEnvironment): Promise<string> {
  const path = resolve(environment.cwd, file);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const isDenied = systemErrorCode(error) === "EACCES";
    const code = isDenied ? "permission_denied" : "invalid_argument";
    const hint = isDenied
      ? "the server belongs to another user; ask for a token and set HODEI_API_TOKEN_FILE"
      : "";
    throw new AppError(code, `read the API token of ${path}: ${fileProblem(error)}`, {
      cause: error,
      details: { hint },
    });
  }
  return checkToken(text.trim(), path);
}

function checkToken(token: string, source: string): string {
  // Anything else cannot stand in an HTTP header, and the error for that would show the token.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new AppError("invalid_argument", `read the API token: ${source} holds no token`);
}

// ── The server of the data directory ───────────────────────────────────────────────────────────

const HEALTH_TIMEOUT_MS = 2_000;

async function findLocalServer(dataDirectory: string, need: ConnectionNeed): Promise<ServerFile | null> {
  let file: Partial<ServerFile>;
  try {
    file = JSON.parse(await readFile(serverFilePath(dataDirectory), "utf8")) as Partial<ServerFile>;
  } catch (error) {
    if (systemErrorCode(error) === "EACCES") {
      throw new AppError("permission_denied", `look for a server in ${dataDirectory}: permission denied`, {
        cause: error,
        details: { hint: "choose a server with --server, or a data directory of your own with --data-dir" },
      });
    }
    // No file: no server runs. A file cut short by a crash says the same.
    return null;
  }
  if (typeof file?.url !== "string" || !URL.canParse(file.url)) return null;
  if (file.readOnly === true && need !== "embedded_to_read") return null;
  return (await isHealthy(file.url)) ? (file as ServerFile) : null;
}

function isHealthy(url: string): Promise<boolean> {
  return new Promise((answer) => {
    const request = httpGet(`${url}/healthz`, { timeout: HEALTH_TIMEOUT_MS, agent: false }, (response) => {
      response.resume();
      answer(response.statusCode === 200);
    });
    request.on("timeout", () => request.destroy());
    // Nobody listens: the file was left by a server that was killed.
    request.on("error", () => answer(false));
    request.on("close", () => answer(false));
  });
}

// ── Transport ──────────────────────────────────────────────────────────────────────────────────

const READ_MAX_BYTES = 64 * 1024 * 1024;

interface OpenOptions {
  url: string;
  token: string | null;
  reconnectTimeoutMs: number;
  /** Of a server in this process. */
  stopServer?: () => Promise<void>;
  /** Of a server of the data directory: its present address, or null while there is none. */
  findAgain?: () => Promise<string | null>;
}

function open(options: OpenOptions): Connection {
  const { reconnectTimeoutMs, stopServer, findAgain } = options;
  // Whoever is found by the data directory has answered a health check.
  let hasAnswered = findAgain !== undefined;
  const noteAnswer: Interceptor = (next) => async (request) => {
    const response = await next(request);
    hasAnswered = true;
    return response;
  };
  let current = dial(options, noteAnswer);
  let url = options.url;
  const closing = sharedAbortController();
  const openTransport = (): Transport => {
    if (closing.signal.aborted) throw new ConnectError("the connection is closed", Code.Canceled);
    return current.transport;
  };
  const transport: Transport = {
    unary: async (...call) => await openTransport().unary(...call),
    stream: async (...call) => await openTransport().stream(...call),
  };
  let stopped: Promise<void> | null = null;
  return {
    url,
    jobs: createClient(JobService, transport),
    logs: createClient(LogService, transport),
    workers: createClient(WorkerService, transport),
    pools: createClient(PoolService, transport),
    scheduler: createClient(SchedulerService, transport),
    server: createClient(ServerService, transport),
    isEmbedded: stopServer !== undefined && findAgain === undefined,
    reconnectTimeoutMs,
    hasAnswered: () => hasAnswered,
    closed: closing.signal,
    async relocate() {
      const found = (await findAgain?.()) ?? url;
      if (found === url || closing.signal.aborted) return;
      current.close();
      current = dial({ ...options, url: found }, noteAnswer);
      url = found;
    },
    close: () => {
      closing.abort();
      // Idle connections would keep this process alive, and the server waiting for it.
      current.close();
      stopped ??= stopServer?.() ?? Promise.resolve();
      return stopped;
    },
  };
}

function dial(
  { url, token }: Pick<OpenOptions, "url" | "token">,
  noteAnswer: Interceptor,
): { transport: Transport; close(): void } {
  const isTls = url.startsWith("https:");
  const agent = isTls ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
  const isLoopback = /^https?:\/\/(127\.|localhost|\[::1\])/.test(url);
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: token === null ? [noteAnswer] : [noteAnswer, withToken(token)],
    readMaxBytes: READ_MAX_BYTES,
    // Between two processes of one machine compression only costs.
    ...(isLoopback ? { acceptCompression: [] } : {}),
  });
  return { transport, close: () => agent.destroy() };
}

function withToken(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}
