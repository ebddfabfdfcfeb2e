/**
 * The port for people and tools: Connect (also as plain JSON, for curl), gRPC-Web, `/healthz` and
 * `/readyz`, over HTTP/1.1.
 *
 * At a stop it accepts nothing new, ends streams with `unavailable` at once, lets unary calls end
 * within `drainMs`, and then cuts what is left.
 */

import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { fastifyConnectPlugin } from "@connectrpc/connect-fastify";
import helmet from "@fastify/helmet";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Service } from "../../base/service.ts";
import { toConnectError } from "../../protocol/errors.ts";
import type { RpcGuard } from "../auth/rpc-guard.ts";
import { readHealth, type HealthCheck } from "./health-report.ts";
import {
  DRAIN_MS,
  MAX_REQUEST_BYTES,
  routerOptions,
  shutdownController,
  stopOnce,
  type RpcServerOptions,
} from "./rpc-options.ts";
import { refuseCall } from "./rpc-refusal.ts";

export interface HttpServer extends Service {
  readonly port: number;
  /** Such as `http://127.0.0.1:8080`. */
  readonly url: string;
}

/** How long a client may take to send a whole request; answers may take as long as they like. */
const REQUEST_TIMEOUT_MS = 5 * 60_000;

/** @throws AppError if the address cannot be had. */
export async function startHttpServer(options: RpcServerOptions): Promise<HttpServer> {
  const shutdown = shutdownController();
  const app = fastify({
    bodyLimit: MAX_REQUEST_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Connect reads bodies by itself; the paths of RPCs are long.
    routerOptions: { maxParamLength: 500 },
    logger: false,
    forceCloseConnections: "idle",
  });
  app.addHook("onRequest", hostCheck(options.host));
  await app.register(helmet, { strictTransportSecurity: false });
  addProbes(app, options.health);
  app.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ code: "not_found", message: `there is nothing at ${request.url}` }),
  );
  app.setErrorHandler((error, request, reply) => {
    const status = httpStatus(error);
    if (status >= 500) options.log.error({ err: error, path: request.url }, "http request failed");
    return reply.code(status).send({ message: status >= 500 ? "internal error" : errorMessage(error) });
  });
  await app.register(async (scope) => addRpcs(scope, options, shutdown.signal));
  const url = await listen(app, options);
  return { port: Number(new URL(url).port), url, stop: stopOnce(() => stop(app, options, shutdown)) };
}

async function listen(app: FastifyInstance, { host, port, log }: RpcServerOptions): Promise<string> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    throw new AppError("failed_precondition", `listen on ${host}:${port}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  app.server.on("error", (error) => log.error({ err: error }, "http server failed"));
  const address = app.server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address");
  const isV6 = address.family === "IPv6";
  return `http://${isV6 ? `[${address.address}]` : address.address}:${address.port}`;
}

async function stop(
  app: FastifyInstance,
  options: RpcServerOptions,
  shutdown: AbortController,
): Promise<void> {
  shutdown.abort(new ConnectError("the server is stopping", Code.Unavailable));
  const callOff = options.clock.schedule(options.drainMs ?? DRAIN_MS, () => app.server.closeAllConnections());
  try {
    await app.close();
  } finally {
    callOff();
  }
}

const LOOPBACK_ADDRESS = /^(localhost|127(\.\d{1,3}){3}|::1)$/;
const LOOPBACK_NAMES: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

/**
 * A page of a foreign site can let its own name resolve to 127.0.0.1 and then read what this server
 * answers (DNS rebinding). The browser still sends that name as `host`, so a server on loopback
 * takes only the names of loopback. Elsewhere any name that can be part of a URL will do: nobody
 * knows under which names it is reached.
 */
function hostCheck(boundHost: string) {
  const onLoopback = LOOPBACK_ADDRESS.test(boundHost);
  const names = new Set([...LOOPBACK_NAMES, boundHost]);
  return async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> => {
    const host = (request.headers.host ?? "").toLowerCase();
    const fits = onLoopback ? names.has(host.replace(/:\d{1,5}$/, "")) : URL.canParse(`http://${host}`);
    if (fits) return undefined;
    const message = "the header `host` does not name this server";
    return reply.code(onLoopback ? 403 : 400).send({ code: "permission_denied", message });
  };
}

function addProbes(app: FastifyInstance, health: HealthCheck): void {
  app.get("/healthz", async (_request, reply) => reply.type("text/plain").send("ok\n"));
  app.get("/readyz", async (_request, reply) => {
    const report = await readHealth(health);
    const text = report.ready
      ? "ready\n"
      : `not ready\n${report.problems.map((problem) => `- ${problem}\n`).join("")}`;
    return reply
      .code(report.ready ? 200 : 503)
      .type("text/plain")
      .send(text);
  });
}

async function addRpcs(
  scope: FastifyInstance,
  options: RpcServerOptions,
  signal: AbortSignal,
): Promise<void> {
  scope.addHook("onRequest", guardHook(options.auth));
  await scope.register(fastifyConnectPlugin, {
    ...routerOptions(options, signal),
    // gRPC needs the trailers of HTTP/2 and has a port of its own.
    grpc: false,
    routes: (router: ConnectRouter) => options.routes(router),
  });
}

function guardHook(guard: RpcGuard) {
  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    const path = request.url.split("?", 1)[0] ?? "";
    const refusal = guard({ path, authorization: request.headers.authorization });
    if (refusal === null) return;
    reply.hijack();
    const error = toConnectError(refusal, () => "");
    refuseCall(error, { contentType: request.headers["content-type"], response: reply.raw });
  };
}

function httpStatus(error: unknown): number {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return 500;
  return typeof error.statusCode === "number" ? error.statusCode : 500;
}
