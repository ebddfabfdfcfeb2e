import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRandom } from "../../base/random.ts";
import { storeConformance } from "../store-conformance.ts";
import { createMemoryStore } from "./memory-store.ts";

storeConformance("memory", () => {
  const store = createMemoryStore({ random: systemRandom });
  return Promise.resolve({ store, second: store, close: () => store.close() });
});

test("a closed store is unavailable, and closing twice does no harm", async () => {
  const store = createMemoryStore({ random: systemRandom });
  await store.close();
  await store.close();
  await assert.rejects(store.ping(), { code: "unavailable" });
});
