import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { HeartbeatWriter } from "./heartbeat-writer.ts";

test("stores the newest heartbeat of each worker, and what waits at a stop", async () => {
  const store = createMemoryStore({ random: systemRandom });
  const writer = new HeartbeatWriter({ store, clock: systemClock, log: silentLogger });
  const ids = [1, 2].map(() => uuidV7(systemClock, systemRandom));
  for (const id of ids) {
    await store.insertWorker({ id, name: id, provider: "static", pool: "", nowMs: 0, token: null });
  }
  const heardAt = async (id: string): Promise<number | null> =>
    (await store.getWorker(id))?.lastHeartbeatAtMs ?? null;
  const [first = "", second = ""] = ids;

  writer.add({ workerId: first, heardAtMs: 100, usage: null });
  writer.add({ workerId: first, heardAtMs: 200, usage: null });
  assert.equal(await heardAt(first), null);
  await eventually(async () => (await heardAt(first)) === 200);

  writer.add({ workerId: second, heardAtMs: 300, usage: null });
  await writer.stop();
  assert.equal(await heardAt(second), 300);
});
