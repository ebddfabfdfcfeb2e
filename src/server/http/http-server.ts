/**
 * The port for people and tools: Connect (also as plain JSON, for curl), gRPC-Web, `/healthz`,
 * `/readyz` and `/metrics`, over HTTP/1.1.
 *
 * RPCs go from the socket straight to Connect: a web framework in between costs as much as the rest
 * of a small call. It serves everything else, and is loaded when somebody asks for such a thing.
 *
 * At a stop it accepts nothing new, ends streams with `unavailable` at once, lets unary calls end
 * within `drainMs`, and then cuts what is left.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Service } from "../../base/service.ts";
import { sharedAbortController } from "../../base/shared-abort.ts";
import { toConnectError } from "../../protocol/errors.ts";
import type { RpcGuard } from "../auth/rpc-guard.ts";
import { DRAIN_MS, routerOptions, stopOnce, type RpcServerOptions } from "./rpc-options.ts";
import { refuseCall } from "./rpc-refusal.ts";
import type { RequestListener } from "./web-pages.ts";

export interface HttpServer extends Service {
  readonly port: number;
  /** Such as `http://127.0.0.1:8080`. */
  readonly url: string;
}

/** How long a client may take to send a whole request; answers may take as long as they like. */
const REQUEST_TIMEOUT_MS = 5 * 60_000;
/** Longer than proxies and clients keep idle connections, so that they and not we close them. */
const KEEP_ALIVE_TIMEOUT_MS = 72_000;

/** @throws AppError if the address cannot be had. */
export async function startHttpServer(options: RpcServerOptions): Promise<HttpServer> {
  const shutdown = sharedAbortController();
  const timeouts = { requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS };
  const server = createServer(timeouts, requestListener(options, shutdown.signal));
  const url = await listen(server, options);
  return { port: Number(new URL(url).port), url, stop: stopOnce(() => stop(server, options, shutdown)) };
}

async function listen(server: Server, { host, port, log }: RpcServerOptions): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    const onError = (error: Error): void =>
      reject(
        new AppError("failed_precondition", `listen on ${host}:${port}: ${errorMessage(error)}`, {
          cause: error,
        }),
      );
    server.once("error", onError);
    server.listen({ host, port }, () => {
      server.off("error", onError);
      resolve();
    });
  });
  server.on("error", (error) => log.error({ err: error }, "http server failed"));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address");
  const isV6 = address.family === "IPv6";
  return `http://${isV6 ? `[${address.address}]` : address.address}:${address.port}`;
}

async function stop(server: Server, options: RpcServerOptions, shutdown: AbortController): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  shutdown.abort(new ConnectError("the server is stopping", Code.Unavailable));
  const callOff = options.clock.schedule(options.drainMs ?? DRAIN_MS, () => server.closeAllConnections());
  await closed;
  callOff();
}

function requestListener(options: RpcServerOptions, shutdown: AbortSignal): RequestListener {
  const hostRefusal = hostCheck(options.host);
  const rpcs = rpcListener(options, shutdown, webPages(options));
  return (request, response) => {
    // Else a connection whose last call ends during a stop would stay open for its keep-alive time.
    response.once("close", () => {
      if (shutdown.aborted) request.socket.destroySoon();
    });
    const status = hostRefusal(request.headers.host ?? "");
    if (status === null) rpcs(request, response);
    else refuseHost(response, status);
  };
}

function rpcListener(
  options: RpcServerOptions,
  shutdown: AbortSignal,
  others: RequestListener,
): RequestListener {
  const paths = new Set<string>();
  const handle = connectNodeAdapter({
    ...routerOptions(options, shutdown),
    // gRPC needs the trailers of HTTP/2 and has a port of its own.
    grpc: false,
    routes(router) {
      options.routes(router);
      for (const { requestPath } of router.handlers) paths.add(requestPath);
    },
  });
  const guarded = guardedListener(options.auth, handle);
  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    if (paths.has(path)) guarded(path, request, response);
    else others(request, response);
  };
}

function guardedListener(guard: RpcGuard, handle: RequestListener) {
  return (path: string, request: IncomingMessage, response: ServerResponse): void => {
    response.setHeader("x-content-type-options", "nosniff");
    const refusal = guard({ path, authorization: request.headers.authorization });
    if (refusal === null) {
      handle(request, response);
      return;
    }
    const error = toConnectError(refusal, () => "");
    refuseCall(error, { contentType: request.headers["content-type"], response });
  };
}

function webPages(options: RpcServerOptions): RequestListener {
  let pages: Promise<RequestListener> | null = null;
  const load = async () => (await import("./web-pages.ts")).createWebPages(options);
  return (request, response) => {
    pages ??= load();
    pages.then(
      (serve) => serve(request, response),
      (error: unknown) => {
        options.log.error({ err: error }, "http pages cannot be served");
        response.writeHead(500).end();
      },
    );
  };
}

const LOOPBACK_ADDRESS = /^(localhost|127(\.\d{1,3}){3}|::1)$/;
const LOOPBACK_NAMES: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

/**
 * A page of a foreign site can let its own name resolve to 127.0.0.1 and then read what this server
 * answers (DNS rebinding). The browser still sends that name as `host`, so a server on loopback
 * takes only the names of loopback. Elsewhere any name that can be part of a URL will do: nobody
 * knows under which names it is reached. Null for a name that fits, else the status of the refusal.
 */
function hostCheck(boundHost: string): (host: string) => number | null {
  const onLoopback = LOOPBACK_ADDRESS.test(boundHost);
  const names = new Set([...LOOPBACK_NAMES, boundHost]);
  return (host) => {
    const name = host.toLowerCase();
    const fits = onLoopback ? names.has(name.replace(/:\d{1,5}$/, "")) : URL.canParse(`http://${name}`);
    return fits ? null : onLoopback ? 403 : 400;
  };
}

function refuseHost(response: ServerResponse, status: number): void {
  const message = "the header `host` does not name this server";
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" });
  response.end(JSON.stringify({ code: "permission_denied", message }));
}
