/** The part of WorkerService that workers call: Register, WorkerStream, Unregister. */

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { sha256Hex, type Random } from "../../base/random.ts";
import { JOB_DEFAULTS } from "../../core/job.ts";
import { HEARTBEAT_INTERVAL_MS } from "../../core/lease.ts";
import { PROTOCOL_VERSION } from "../../core/link.ts";
import type { Worker } from "../../core/worker.ts";
import { serverMessageToWire, workerMessageFromWire } from "../../protocol/convert-link.ts";
import { workerInfoFromWire } from "../../protocol/convert-worker.ts";
import type {
  RegisterRequest,
  WorkerService,
  WorkerStreamRequest,
  WorkerStreamResponse,
} from "../../protocol/gen/hodei/v1/workers_pb.ts";
import type { Store } from "../../storage/store.ts";
import { WorkerConnection, type ConnectionDependencies } from "./worker-connection.ts";
import type { WorkerConnections } from "./worker-connections.ts";

export interface LinkDependencies extends ConnectionDependencies {
  store: Store;
  clock: Clock;
  random: Random;
  log: Logger;
  connections: WorkerConnections;
}

type LinkApi = Pick<ServiceImpl<typeof WorkerService>, "register" | "workerStream" | "unregister">;

export function linkApi(deps: LinkDependencies): LinkApi {
  return {
    async register(request) {
      const sessionToken = Buffer.from(deps.random.bytes(32)).toString("base64url");
      const worker = await register(request, sessionToken, deps);
      return {
        workerId: worker.id,
        sessionToken,
        heartbeatInterval: durationFromMs(HEARTBEAT_INTERVAL_MS),
        lease: durationFromMs(JOB_DEFAULTS.leaseMs),
      };
    },
    workerStream(requests, context) {
      return workerStream(requests, context, deps);
    },
    async unregister(_request, context) {
      const worker = await authenticate(context, deps.store);
      // From here on nothing new is assigned; what is under way is waited for, and then it may not go.
      deps.connections.get(worker.id)?.drain("it leaves");
      await deps.connections.assigned(worker.id);
      const live = await deps.store.listLiveAttempts(worker.id);
      if (live.length > 0) {
        throw new AppError("failed_precondition", `worker ${worker.id} still holds ${live.length} attempts`);
      }
      await deps.store.changeWorker({ workerId: worker.id, state: "terminated", message: "left" });
      deps.onRoom();
      deps.onIdle();
      return {};
    },
  };
}

const REFUSALS = {
  unknown_token: "the one-time token is unknown",
  used_token: "the one-time token was used already",
  expired_token: "the one-time token is too old",
  wrong_worker: "the one-time token belongs to another worker",
} as const;

async function register(
  request: RegisterRequest,
  sessionToken: string,
  deps: LinkDependencies,
): Promise<Worker> {
  if (request.protocolVersion !== PROTOCOL_VERSION) {
    throw new AppError(
      "failed_precondition",
      `register worker: it speaks protocol version ${request.protocolVersion}, this server ${PROTOCOL_VERSION}`,
    );
  }
  if (!request.worker) throw new AppError("invalid_argument", "worker: must be set");
  const outcome = await deps.store.registerWorker({
    tokenHash: sha256Hex(request.token),
    registrationKey: request.registrationKey,
    sessionTokenHash: sha256Hex(sessionToken),
    info: workerInfoFromWire(request.worker),
    nowMs: deps.clock.nowMs(),
  });
  if (!outcome.ok) throw new AppError("unauthenticated", `register worker: ${REFUSALS[outcome.refusal]}`);
  return outcome.worker;
}

async function authenticate(context: HandlerContext, store: Store): Promise<Worker> {
  const header = context.requestHeader.get("authorization") ?? "";
  const token = /^Bearer (\S+)$/i.exec(header)?.[1];
  const worker = token ? await store.findWorkerBySession(sha256Hex(token)) : null;
  if (!worker)
    throw new AppError("unauthenticated", "worker session: the session token is unknown or revoked");
  return worker;
}

async function* workerStream(
  requests: AsyncIterable<WorkerStreamRequest>,
  context: HandlerContext,
  deps: LinkDependencies,
): AsyncGenerator<WorkerStreamResponse> {
  const worker = await authenticate(context, deps.store);
  const incoming = requests[Symbol.asyncIterator]();
  const connection = await greet(worker, incoming, deps);
  try {
    await takeIn(connection, worker, { deps, signal: context.signal });
    // Ends by itself: the transport ends the requests together with this response.
    void read(connection, incoming, deps.log);
    for await (const message of connection.messages) yield serverMessageToWire(message);
  } finally {
    deps.connections.remove(connection);
    deps.onRoom();
    deps.onIdle();
  }
}

/** Waits for the hello and answers it; nothing is assigned to the worker meanwhile. */
async function greet(
  worker: Worker,
  incoming: AsyncIterator<WorkerStreamRequest>,
  deps: LinkDependencies,
): Promise<WorkerConnection> {
  const first = await incoming.next();
  const hello = first.done ? null : workerMessageFromWire(first.value);
  if (hello?.type !== "hello") {
    throw new AppError("invalid_argument", "worker stream: the first message must be hello");
  }
  if (deps.connections.isStopped) throw new AppError("unavailable", "worker stream: the server stops");
  // The older stream takes no more jobs from here on, so that none is assigned behind our back.
  deps.connections.get(worker.id)?.goaway("the worker has connected again");
  await deps.connections.assigned(worker.id);
  const info = { ...hello.worker, workerId: worker.id };
  const connection = new WorkerConnection({ id: worker.id, pool: worker.pool, info }, deps);
  await connection.hello(hello);
  return connection;
}

/** From here on the worker counts, unless it has left again while it was greeted. */
async function takeIn(
  connection: WorkerConnection,
  worker: Worker,
  { deps, signal }: { deps: LinkDependencies; signal: AbortSignal },
): Promise<void> {
  const { workerId, info } = connection;
  // A worker that could not end a process finishes what it holds, also after a reconnect.
  const isBroken = worker.state === "broken";
  if (isBroken) connection.drain(worker.message);
  const state = isBroken ? {} : { state: "ready" as const, message: "" };
  await deps.store.changeWorker({ workerId, ...state, info, lastHeartbeatAtMs: deps.clock.nowMs() });
  if (signal.aborted) throw new AppError("unavailable", `worker stream: worker ${workerId} has left again`);
  signal.addEventListener("abort", () => connection.close(), { once: true });
  deps.connections.add(connection);
  deps.log.info({ workerId, attempts: connection.session.attempts.size }, "worker connected");
  deps.onRoom();
  deps.onIdle();
}

async function read(
  connection: WorkerConnection,
  incoming: AsyncIterator<WorkerStreamRequest>,
  log: Logger,
): Promise<void> {
  try {
    for (;;) {
      const next = await incoming.next();
      if (next.done || connection.isClosed) break;
      const message = workerMessageFromWire(next.value);
      if (message === null) continue;
      if (message.type === "hello") throw new AppError("invalid_argument", "worker stream: a second hello");
      await connection.receive(message);
    }
  } catch (error) {
    if (!connection.isClosed) {
      log.info({ err: error, workerId: connection.workerId }, "worker stream ended");
    }
  } finally {
    connection.close();
  }
}
