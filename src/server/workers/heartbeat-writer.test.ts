import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { HeartbeatWriter, WRITE_INTERVAL_MS } from "./heartbeat-writer.ts";

/** A store with two workers. */
async function setup() {
  const store = createMemoryStore({ random: systemRandom });
  const ids = [1, 2].map(() => uuidV7(systemClock, systemRandom));
  for (const id of ids) {
    await store.insertWorker({ id, name: id, provider: "static", pool: "", nowMs: 0, token: null });
  }
  const heardAt = async (id: string): Promise<number | null> =>
    (await store.getWorker(id))?.lastHeartbeatAtMs ?? null;
  const [first = "", second = ""] = ids;
  return { store, first, second, heardAt };
}

test("stores the newest heartbeat of each worker, and what waits at a stop", async () => {
  const { store, first, second, heardAt } = await setup();
  const writer = new HeartbeatWriter({ store, clock: systemClock, log: silentLogger });

  writer.add({ workerId: first, heardAtMs: 100, usage: null });
  writer.add({ workerId: first, heardAtMs: 200, usage: null });
  assert.equal(await heardAt(first), null);
  await eventually(async () => (await heardAt(first)) === 200);

  writer.add({ workerId: second, heardAtMs: 300, usage: null });
  await writer.stop();
  assert.equal(await heardAt(second), 300);
});

test("a database that is away gets one write at a time, and then the newest heartbeat", async () => {
  const { store, first, heardAt } = await setup();
  const clock = new ManualClock();
  const answers: (() => void)[] = [];
  const slow = {
    ...store,
    async changeWorker(change: Parameters<typeof store.changeWorker>[0]) {
      await new Promise<void>((resolve) => answers.push(resolve));
      await store.changeWorker(change);
    },
  };
  const writer = new HeartbeatWriter({ store: slow, clock, log: silentLogger });
  for (let heardAtMs = 1; heardAtMs <= 20; heardAtMs += 1) {
    writer.add({ workerId: first, heardAtMs, usage: null });
    clock.advance(WRITE_INTERVAL_MS);
  }
  assert.equal(answers.length, 1);
  answers.shift()?.();
  await eventually(() => clock.waiting === 1, { what: "the plan of the next write" });
  clock.advance(WRITE_INTERVAL_MS);
  answers.shift()?.();
  await eventually(async () => (await heardAt(first)) === 20);
  await writer.stop();
  assert.equal(clock.waiting, 0);
});
