/**
 * The port for workers and gRPC clients: gRPC over HTTP/2 in plain text, with the standard health
 * and reflection services.
 *
 * At a stop it accepts nothing new, tells clients to go elsewhere (GOAWAY), ends streams with
 * `unavailable` at once, lets unary calls end within `drainMs`, and then cuts what is left.
 */

import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AppError } from "../../base/errors.ts";
import type { Service } from "../../base/service.ts";
import { sharedAbortController } from "../../base/shared-abort.ts";
import { toConnectError } from "../../protocol/errors.ts";
import { grpcHealthRoutes } from "./grpc-health.ts";
import { grpcReflectionRoutes } from "./grpc-reflection.ts";
import { DRAIN_MS, routerOptions, stopOnce, type RpcServerOptions } from "./rpc-options.ts";
import { refuseCall } from "./rpc-refusal.ts";

export interface GrpcServer extends Service {
  readonly port: number;
}

/** What a client may send on one stream before it is read: with 64 KiB, a log of 200 MB/s would wait. */
const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
/** The same for a whole connection. */
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;
/** Calls at the same time on one connection; a client waits with more. */
const MAX_CONNECTION_STREAMS = 10_000;
/** Above it, Node.js refuses new streams of a session. The unit of the library is a megabyte. */
const SESSION_MEMORY_MEGABYTES = 128;

/** @throws AppError if the address cannot be had. */
export async function startGrpcServer(options: RpcServerOptions): Promise<GrpcServer> {
  const shutdown = sharedAbortController();
  const sessions = new Set<http2.ServerHttp2Session>();
  const sockets = new Set<Socket>();
  const server = http2.createServer(
    {
      settings: { initialWindowSize: STREAM_WINDOW_BYTES, maxConcurrentStreams: MAX_CONNECTION_STREAMS },
      maxSessionMemory: SESSION_MEMORY_MEGABYTES,
    },
    requestListener(options, shutdown.signal),
  );
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    session.once("close", () => sessions.delete(session));
    session.on("error", (error) => options.log.debug({ err: error }, "http2 session failed"));
  });
  // Workers and watchers may be silent for long.
  server.setTimeout(0);
  await listen(server, options);
  server.on("error", (error) => options.log.error({ err: error }, "grpc server failed"));
  const { port } = server.address() as AddressInfo;
  return { port, stop: stopOnce(() => stop({ server, sessions, sockets, options, shutdown })) };
}

function requestListener(options: RpcServerOptions, signal: AbortSignal) {
  const handle = connectNodeAdapter({
    ...routerOptions(options, signal),
    connect: false,
    grpcWeb: false,
    routes(router) {
      options.routes(router);
      grpcHealthRoutes(router, { health: options.health, clock: options.clock });
      // Last, so that it lists all the others.
      grpcReflectionRoutes(router);
    },
  });
  return (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse): void => {
    // The adapter makes a URL of it, and would throw where nobody catches.
    if (!URL.canParse(`http://${request.authority}`)) {
      response.writeHead(400);
      response.end();
      return;
    }
    const path = request.url.split("?", 1)[0] ?? "";
    const refusal = options.auth({ path, authorization: request.headers.authorization });
    if (refusal === null) {
      handle(request, response);
      return;
    }
    const error = toConnectError(refusal, () => "");
    refuseCall(error, { contentType: request.headers["content-type"], response });
  };
}

function listen(server: http2.Http2Server, { host, port }: RpcServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void =>
      reject(
        new AppError("failed_precondition", `listen on ${host}:${port}: ${error.message}`, { cause: error }),
      );
    server.once("error", onError);
    server.listen(port, host, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

async function stop(running: {
  server: http2.Http2Server;
  sessions: ReadonlySet<http2.ServerHttp2Session>;
  sockets: ReadonlySet<Socket>;
  options: RpcServerOptions;
  shutdown: AbortController;
}): Promise<void> {
  const { server, sessions, sockets, options, shutdown } = running;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  shutdown.abort(new ConnectError("the server is stopping", Code.Unavailable));
  for (const session of sessions) session.close();
  const callOff = options.clock.schedule(options.drainMs ?? DRAIN_MS, () => {
    // A session that is told to close would wait for the other end, which may be dead.
    for (const socket of sockets) socket.destroy();
  });
  await closed;
  callOff();
}
