/**
 * The door to a container engine: its HTTP interface (Docker Engine API) over a Unix socket or TCP.
 *
 * Every failure is an `AppError` that keeps the engine's own words. Its code tells what can be tried
 * again (`unavailable`: the engine is not there, is busy or was stopped) from what cannot (a missing
 * image, a bad parameter, no permission).
 */

import { readFileSync } from "node:fs";
import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage, systemErrorCode, type ErrorCode } from "../../base/errors.ts";

export interface EngineOptions {
  /** As in `DOCKER_HOST`: `unix:///path/of/socket` or `tcp://host:port`. */
  host: string;
  /** Holds `ca.pem`, `cert.pem` and `key.pem`; TCP is then TLS. */
  tlsDirectory: string | null;
  clock: Clock;
}

export interface EngineCall {
  method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  path: string;
  query?: Record<string, string>;
  /** Sent as JSON; a stream is sent as a tar archive. */
  body?: unknown;
  headers?: Record<string, string>;
  /** For people: the verb and its object, as in `create container for worker w-7`. */
  what: string;
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** How long the engine may take to answer; a start under load takes seconds. */
const ANSWER_TIMEOUT_MS = 30_000;
/** What is kept of an answer that should be small. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** Half-open connections over TCP are found by it. */
const KEEP_ALIVE_MS = 15_000;

type Target = Pick<RequestOptions, "socketPath" | "host" | "port" | "agent">;

export class Engine {
  readonly #clock: Clock;
  readonly #host: string;
  readonly #target: Target;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #request: typeof httpRequest;
  /** A socket has no name of its own; over TCP the name is also what a certificate is checked for. */
  readonly #hostHeader: Record<string, string>;

  /** @throws AppError `invalid_argument` for an address that is none, or TLS files that are not there. */
  constructor(options: EngineOptions) {
    this.#clock = options.clock;
    this.#host = options.host;
    const address = parseAddress(options.host, options.tlsDirectory === null ? 2375 : 2376);
    const tls = options.tlsDirectory === null ? null : readTlsFiles(options.tlsDirectory);
    const isTls = tls !== null && "host" in address;
    const keepAlive = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS };
    this.#agent = isTls ? new HttpsAgent({ ...keepAlive, ...tls }) : new HttpAgent(keepAlive);
    this.#request = isTls ? httpsRequest : httpRequest;
    this.#target = { ...address, agent: this.#agent };
    this.#hostHeader = "socketPath" in address ? { host: "docker" } : {};
  }

  /** The answer, read as JSON; null if it is empty. */
  async call<T>(call: EngineCall): Promise<T> {
    const text = (await this.bytes(call)).toString("utf8");
    return (text === "" ? null : JSON.parse(text)) as T;
  }

  bytes(call: EngineCall): Promise<Buffer> {
    return this.#inTime(call, (response) => readAll(response, call.what));
  }

  /** Reads an answer that may be long, line by line. */
  lines(call: EngineCall, onLine: (line: string) => void): Promise<void> {
    return this.#inTime(call, async (response) => {
      for await (const line of linesOf(response)) onLine(line);
    });
  }

  async #inTime<T>(call: EngineCall, read: (response: IncomingMessage) => Promise<T>): Promise<T> {
    const timeout = new AbortController();
    const callOff = this.#clock.schedule(call.timeoutMs ?? ANSWER_TIMEOUT_MS, () => timeout.abort());
    const signal = call.signal ? AbortSignal.any([call.signal, timeout.signal]) : timeout.signal;
    try {
      return await read(await this.stream({ ...call, signal }));
    } catch (error) {
      if (!timeout.signal.aborted || call.signal?.aborted === true) throw this.#failure(call.what, error);
      throw new AppError("unavailable", `${call.what}: the engine at ${this.#host} does not answer`, {
        cause: error,
      });
    } finally {
      callOff();
    }
  }

  /** The answer as it comes. Whoever calls ends it, by `signal` or by reading it all. */
  async stream(call: EngineCall): Promise<IncomingMessage> {
    let response: IncomingMessage;
    try {
      response = await this.#send(call);
    } catch (error) {
      throw this.#failure(call.what, error);
    }
    const status = response.statusCode ?? 0;
    if (status < 400) return response;
    const body = await readAll(response, call.what);
    throw refusal(call.what, status, engineMessage(body.toString("utf8")));
  }

  close(): void {
    this.#agent.destroy();
  }

  #send({ method, path, query, body, headers, signal }: EngineCall): Promise<IncomingMessage> {
    const search = query ? `?${new URLSearchParams(query).toString()}` : "";
    const isArchive = body instanceof Readable;
    const type =
      body === undefined ? {} : { "content-type": isArchive ? "application/x-tar" : "application/json" };
    return new Promise((resolve, reject) => {
      const request = this.#request({
        ...this.#target,
        method,
        path: `${path}${search}`,
        headers: { ...this.#hostHeader, ...type, ...headers },
        ...(signal ? { signal } : {}),
      });
      request.once("response", resolve);
      request.once("error", reject);
      if (!isArchive) {
        request.end(body === undefined ? undefined : JSON.stringify(body));
        return;
      }
      body.once("error", (error) => request.destroy(error));
      body.pipe(request);
    });
  }

  #failure(what: string, error: unknown): AppError {
    if (error instanceof AppError) return error;
    const code = systemErrorCode(error);
    const why = explanation(code) ?? errorMessage(error);
    const kind: ErrorCode = code === "EACCES" ? "permission_denied" : "unavailable";
    return new AppError(kind, `${what}: no container engine at ${this.#host}: ${why}`, { cause: error });
  }
}

/** What a failed connection means, and what to do; null if the error says more itself. */
function explanation(code: string | null): string | null {
  const explained: Record<string, string> = {
    ENOENT: "its socket is not there; is it installed and running?",
    EACCES: "no permission to use its socket; root or a member of its group may",
    ECONNREFUSED: "nobody listens there; is it running?",
    ENOTFOUND: "there is no machine of this name",
    EPROTO: "it does not speak TLS there; leave the TLS directory out, or give its TLS port (usually 2376)",
    CERT_HAS_EXPIRED: "its certificate has expired; make a new one",
    ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name; dial it by a name that it is for",
  };
  if (code === null) return null;
  const isUntrusted = /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(code);
  if (isUntrusted) return `its certificate is not of the authority in ca.pem (${code})`;
  return explained[code] ?? null;
}

/** True if the engine does not know what was asked for. */
export function isNotFound(error: unknown): boolean {
  return error instanceof AppError && error.code === "not_found";
}

/** True if it is there already, or is being changed by somebody else at this moment. */
export function isConflict(error: unknown): boolean {
  return error instanceof AppError && error.code === "already_exists";
}

function parseAddress(
  host: string,
  usualPort: number,
): { socketPath: string } | { host: string; port: number } {
  const url = URL.canParse(host) ? new URL(host) : null;
  if (url?.protocol === "unix:" && url.pathname !== "") return { socketPath: url.pathname };
  if (url && ["tcp:", "http:", "https:"].includes(url.protocol) && url.hostname !== "") {
    const bare = url.hostname.replace(/^\[|\]$/g, "");
    return { host: bare, port: Number(url.port || usualPort) };
  }
  throw new AppError(
    "invalid_argument",
    `container engine ${JSON.stringify(host)}: give unix:///path/of/socket or tcp://host:port`,
  );
}

function readTlsFiles(directory: string): { ca: Buffer; cert: Buffer; key: Buffer } {
  const read = (name: string): Buffer => readFileSync(join(directory, name));
  try {
    return { ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem") };
  } catch (cause) {
    throw new AppError("invalid_argument", `read TLS files of the container engine: ${errorMessage(cause)}`, {
      cause,
    });
  }
}

async function readAll(response: IncomingMessage, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) {
      response.destroy();
      throw new AppError("internal", `${what}: the answer is larger than ${MAX_ANSWER_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Of an answer in UTF-8, also those that come in pieces; without the empty ones. */
export async function* linesOf(response: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of response) {
    const text = Buffer.concat([rest, chunk]);
    const end = text.lastIndexOf(10) + 1;
    rest = text.subarray(end);
    for (const line of text.subarray(0, end).toString("utf8").split("\n")) if (line.trim() !== "") yield line;
  }
  if (rest.length > 0) yield rest.toString("utf8");
}

function engineMessage(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === "string") return message;
  } catch {
    // A proxy in between answered, in its own words.
  }
  return text.trim().slice(0, 1_000);
}

/** What can be tried again and what cannot, by the status and, for a failed start, by its reason. */
function refusal(what: string, status: number, message: string): AppError {
  const codes: Record<number, ErrorCode> = {
    400: "invalid_argument",
    401: "permission_denied",
    403: "permission_denied",
    404: "not_found",
    409: "already_exists",
  };
  const code =
    codes[status] ?? (PERMANENT_START_FAILURE.test(message) ? "failed_precondition" : "unavailable");
  if (/HTTP request to an HTTPS server/i.test(message)) {
    const advice = "the engine wants TLS; give the directory with ca.pem, cert.pem and key.pem";
    return new AppError("failed_precondition", `${what}: ${advice}`, { details: { status } });
  }
  return new AppError(code, `${what}: ${message || `the engine answered with status ${status}`}`, {
    details: { status },
  });
}

/** Reported by engines with status 500, although no further try will help. */
const PERMANENT_START_FAILURE =
  /storage-opt is|exec format error|executable file not found|no such file or directory|unable to find user|not a directory|invalid (mount|argument)|unauthorized|access denied/i;
