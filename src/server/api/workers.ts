/** The part of WorkerService that is for people; workers use the rest. */

import type { ServiceImpl } from "@connectrpc/connect";
import type { Worker } from "../../core/worker.ts";
import { workerToWire } from "../../protocol/convert-worker.ts";
import type { Worker as PbWorker, WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import type { Store } from "../../storage/store.ts";
import { findWorker } from "./find-by-id.ts";
import { pageFromWire, pageTokenToWire } from "./page-token.ts";

type WorkersApi = Pick<Required<ServiceImpl<typeof WorkerService>>, "listWorkers" | "getWorkerInfo">;

export function workersApi(deps: { store: Store }): WorkersApi {
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
