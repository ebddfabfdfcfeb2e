/** The part of WorkerService that workers call: Register, WorkerStream, Unregister. */

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../base/errors.ts";
import { sha256Hex } from "../../base/random.ts";
import { JOB_DEFAULTS } from "../../core/job.ts";
import { HEARTBEAT_INTERVAL_MS } from "../../core/lease.ts";
import { PROTOCOL_VERSION, type WorkerMessage } from "../../core/link.ts";
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
import { serveWorker, type ServeDependencies } from "./serve-worker.ts";

type LinkApi = Pick<ServiceImpl<typeof WorkerService>, "register" | "workerStream" | "unregister">;

export function linkApi(deps: ServeDependencies): LinkApi {
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
  deps: ServeDependencies,
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
  deps: ServeDependencies,
): AsyncGenerator<WorkerStreamResponse> {
  const worker = await authenticate(context, deps.store);
  const incoming = fromWire(requests);
  for await (const message of serveWorker({ worker, incoming, signal: context.signal }, deps)) {
    yield serverMessageToWire(message);
  }
}

async function* fromWire(requests: AsyncIterable<WorkerStreamRequest>): AsyncGenerator<WorkerMessage | null> {
  for await (const request of requests) yield workerMessageFromWire(request);
}
