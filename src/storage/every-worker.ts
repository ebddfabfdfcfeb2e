/** Reads workers page by page, for whoever wants to see each of them. */

import type { Worker } from "../core/worker.ts";
import type { Store, WorkerFilter } from "./store.ts";

const PAGE_WORKERS = 500;

/** Newest first, those that are not terminated. A page is read when the one before it was used up. */
export async function* everyWorker(
  store: Pick<Store, "listWorkers">,
  filter: Omit<WorkerFilter, "includeTerminated"> = {},
): AsyncGenerator<Worker> {
  let cursor: string | null = null;
  do {
    const page = await store.listWorkers(
      { ...filter, includeTerminated: false },
      { limit: PAGE_WORKERS, cursor },
    );
    yield* page.items;
    cursor = page.nextCursor;
  } while (cursor !== null);
}
