/** The part of WorkerService that is for people; workers use the rest. */

import type { Message } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { sha256Hex, uuidV4, uuidV7, type Random } from "../../base/random.ts";
import type { Worker } from "../../core/worker.ts";
import { workerToWire } from "../../protocol/convert-worker.ts";
import type {
  CreateWorkerTokenRequest,
  CreateWorkerTokenResponse,
  RemoveWorkerRequest,
  Worker as PbWorker,
  WorkerService,
} from "../../protocol/gen/hodei/v1/workers_pb.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { workerLabels } from "../workers/worker-labels.ts";
import { findWorker } from "./find-by-id.ts";
import { pageFromWire, pageTokenToWire } from "./page-token.ts";

type WorkersApi = Pick<
  Required<ServiceImpl<typeof WorkerService>>,
  "listWorkers" | "getWorkerInfo" | "drainWorker" | "cordonWorker" | "removeWorker" | "createWorkerToken"
>;

export interface WorkersApiDependencies {
  store: Store;
  clock: Clock;
  random: Random;
  /** Told after it is stored that a worker shall finish and leave. */
  onDrained: (workerId: string, reason: string) => void;
  /** Told after it is stored that a worker shall get no new jobs, or some again. */
  onCordoned: (workerId: string) => Promise<void>;
  /** Ends a worker through its provider; false if no provider made it. */
  removeWorker: (workerId: string, reason: string) => Promise<boolean>;
  /** Ends the session of a worker that no provider made, and what is known of it. */
  removeStatic: (worker: Worker, reason: string) => Promise<void>;
  connections: Pick<WorkerConnections, "shownState">;
  /** Where agents dial. */
  workerPort: { readonly port: number };
}

/** How long a token for a worker that a person starts is valid, if nobody says. */
const TOKEN_LIFETIME_MS = 5 * 60_000;

export function workersApi(deps: WorkersApiDependencies): WorkersApi {
  const { store } = deps;
  return {
    async listWorkers(request) {
      const { includeTerminated } = request;
      const page = await store.listWorkers({ includeTerminated }, pageFromWire(request));
      return {
        workers: await Promise.all(page.items.map((worker) => workerView(deps, worker))),
        nextPageToken: pageTokenToWire(page.nextCursor),
      };
    },

    async getWorkerInfo({ workerId }) {
      return { worker: await workerView(deps, await findWorker(store, workerId)) };
    },

    async drainWorker({ workerId, reason }) {
      const { id } = await findPresent(store, workerId, "drain");
      const message = reason || "drained by hand";
      await store.changeWorker({ workerId: id, state: "draining", message });
      deps.onDrained(id, message);
      return { worker: await workerView(deps, await findWorker(store, id)) };
    },

    async cordonWorker({ workerId, uncordon }) {
      const { id } = await findPresent(store, workerId, uncordon ? "uncordon" : "cordon");
      await store.changeWorker({ workerId: id, cordoned: !uncordon });
      await deps.onCordoned(id);
      return { worker: await workerView(deps, await findWorker(store, id)) };
    },

    removeWorker: (request) => removeWorker(deps, request),
    createWorkerToken: (request) => createWorkerToken(deps, request),
  };
}

/** @throws AppError `not_found`, or `failed_precondition` if it is gone. */
async function findPresent(store: Store, idOrPrefix: string, verb: string): Promise<Worker> {
  const worker = await findWorker(store, idOrPrefix);
  if (worker.state !== "terminated") return worker;
  throw new AppError("failed_precondition", `${verb} worker ${worker.id}: it is gone`);
}

async function removeWorker(
  deps: WorkersApiDependencies,
  { workerId, force, reason }: RemoveWorkerRequest,
): Promise<{ worker: PbWorker }> {
  const { store } = deps;
  const worker = await findPresent(store, workerId, "remove");
  const { length } = await store.listLiveAttempts(worker.id);
  if (length > 0 && !force) {
    const held = length === 1 ? "1 attempt" : `${length} attempts`;
    throw new AppError(
      "failed_precondition",
      `remove worker ${worker.id}: it holds ${held}; drain it to let them end, or set \`force\``,
    );
  }
  const message = reason || "removed by hand";
  const isRemoved = await deps.removeWorker(worker.id, message);
  if (!isRemoved) await deps.removeStatic(worker, message);
  return { worker: await workerView(deps, await findWorker(store, worker.id)) };
}

async function createWorkerToken(
  { store, clock, random, workerPort }: WorkersApiDependencies,
  { name, lifetime }: CreateWorkerTokenRequest,
): Promise<Omit<CreateWorkerTokenResponse, keyof Message>> {
  const nowMs = clock.nowMs();
  const workerId = uuidV7(clock, random);
  const token = uuidV4();
  const expiresAtMs = nowMs + (lifetime ? Math.round(durationMs(lifetime)) : TOKEN_LIFETIME_MS);
  await store.insertWorker({
    id: workerId,
    name: name || "static",
    provider: "static",
    pool: "",
    nowMs,
    token: { hash: sha256Hex(token), expiresAtMs },
  });
  return { workerId, token, expiresAt: timestampFromMs(expiresAtMs), workerPort: workerPort.port };
}

/** With the labels that selectors see, and what it holds. */
async function workerView({ store, connections }: WorkersApiDependencies, worker: Worker): Promise<PbWorker> {
  // A worker that is gone or never came holds nothing: no need to ask.
  const mayHold = worker.state !== "terminated" && worker.registeredAtMs !== null;
  const live = mayHold ? await store.listLiveAttempts(worker.id) : [];
  const info = worker.info && { ...worker.info, labels: workerLabels(worker, worker.info) };
  return workerToWire(
    { ...worker, info, state: connections.shownState(worker) },
    live.map(({ attempt }) => attempt.id),
  );
}
