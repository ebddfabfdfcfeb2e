/** What every store promises, as tests. See `store.ts`; each implementation runs this suite. */

import { after, before, describe } from "node:test";
import { inputTests } from "./conformance/inputs.ts";
import { logTests } from "./conformance/logs.ts";
import { oddityTests } from "./conformance/oddities.ts";
import { pendingTests } from "./conformance/pending.ts";
import { poolTests } from "./conformance/pools-and-queues.ts";
import { readingTests } from "./conformance/reading.ts";
import { schedulingTests } from "./conformance/scheduling.ts";
import { submissionTests } from "./conformance/submissions.ts";
import { workerTests } from "./conformance/workers.ts";
import type { Store } from "./store.ts";

export interface OpenedStore {
  store: Store;
  /** A second store on the same data, as another server has it. */
  second: Store;
  close(): Promise<void>;
}

/** Registers the suite. `open` gives a store that may already hold data of other tests. */
export function storeConformance(name: string, open: () => Promise<OpenedStore>): void {
  describe(`${name} store`, () => {
    let opened: OpenedStore;
    before(async () => {
      opened = await open();
    });
    after(async () => {
      await opened?.close();
    });
    const store = () => opened.store;
    submissionTests(store);
    inputTests(store, () => opened.second);
    readingTests(store);
    pendingTests(store);
    schedulingTests(store);
    workerTests(store, () => opened.second);
    poolTests(store);
    logTests(store);
    oddityTests(store);
  });
}
