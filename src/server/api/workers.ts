/** The part of WorkerService that is for people; workers use the rest. */

import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../base/errors.ts";
import type { Worker } from "../../core/worker.ts";
import { workerToWire } from "../../protocol/convert-worker.ts";
import type { Worker as PbWorker, WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import type { Store } from "../../storage/store.ts";
import { findWorker } from "./find-by-id.ts";
import { pageFromWire, pageTokenToWire } from "./page-token.ts";

type WorkersApi = Pick<
  Required<ServiceImpl<typeof WorkerService>>,
  "listWorkers" | "getWorkerInfo" | "drainWorker"
>;

export interface WorkersApiDeps {
  store: Store;
  /** Told after it is stored that a worker shall finish and leave. */
  onDrained: (workerId: string, reason: string) => void;
}

export function workersApi(deps: WorkersApiDeps): WorkersApi {
  const { store } = deps;
  return {
    async listWorkers(request) {
      const { includeTerminated } = request;
      const page = await store.listWorkers({ includeTerminated }, pageFromWire(request));
      return {
        workers: await Promise.all(page.items.map((worker) => withAttemptIds(store, worker))),
        nextPageToken: pageTokenToWire(page.nextCursor),
      };
    },

    async getWorkerInfo({ workerId }) {
      return { worker: await withAttemptIds(store, await findWorker(store, workerId)) };
    },

    async drainWorker({ workerId, reason }) {
      const { id, state } = await findWorker(store, workerId);
      if (state === "terminated") throw new AppError("failed_precondition", `drain worker ${id}: it is gone`);
      const message = reason || "drained by hand";
      await store.changeWorker({ workerId: id, state: "draining", message });
      deps.onDrained(id, message);
      return { worker: await withAttemptIds(store, await findWorker(store, id)) };
    },
  };
}

async function withAttemptIds(store: Store, worker: Worker): Promise<PbWorker> {
  // A worker that is gone or never came holds nothing: no need to ask.
  const mayHold = worker.state !== "terminated" && worker.registeredAtMs !== null;
  const live = mayHold ? await store.listLiveAttempts(worker.id) : [];
  return workerToWire(
    worker,
    live.map(({ attempt }) => attempt.id),
  );
}
