/** Conformance of a store: pools and queues as somebody configured them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultQueue, poolWith, type PoolDefinition, type QueueConfig } from "../../core/pool.ts";
import type { Store } from "../store.ts";
import { T0, newId } from "./samples.ts";

export function poolTests(store: () => Store): void {
  poolLifeTests(store);
  queueTests(store);
}

function poolLifeTests(store: () => Store): void {
  const own = async (base: string) =>
    (await store().listPools()).filter(({ definition }) => definition.name.startsWith(base));
  const named = (name: string, changes: Partial<PoolDefinition> = {}): PoolDefinition =>
    poolWith({ name, provider: { type: "process" }, ...changes });

  test("pools are stored, replaced and listed by name", async () => {
    const base = newId();
    const [first, second] = [named(`${base}-B`), named(`${base}-a`, { labels: { "quotes '\"\\": "ä€😀" } })];
    await store().putPools([second, first], T0);
    const stored = { createdAtMs: T0, updatedAtMs: T0, isDeleting: false };
    assert.deepEqual(await own(base), [
      { definition: first, ...stored },
      { definition: second, ...stored },
    ]);
    const changed = named(first.name, {
      taints: [{ key: "gpu", value: "", effect: "NoSchedule" }],
      maxLifetimeMs: 5,
      costPerHour: 0.25,
    });
    await store().putPools([named(first.name), changed], T0 + 5);
    assert.deepEqual(await own(base), [
      { definition: changed, createdAtMs: T0, updatedAtMs: T0 + 5, isDeleting: false },
      { definition: second, ...stored },
    ]);
    await store().putPools([], T0 + 6);
    assert.equal((await own(base)).length, 2);
  });

  test("a pool is forgotten only while it is being deleted, and putting it again takes that back", async () => {
    const base = newId();
    const [pool, kept] = [named(`${base}-a`), named(`${base}-b`)];
    await store().putPools([pool, kept], T0);
    await store().removePool(pool.name);
    await store().markPoolsDeleting([pool.name, `${base}-unknown`], T0 + 1);
    await store().markPoolsDeleting([pool.name], T0 + 2);
    const keptAsStored = { definition: kept, createdAtMs: T0, updatedAtMs: T0, isDeleting: false };
    assert.deepEqual(await own(base), [
      { definition: pool, createdAtMs: T0, updatedAtMs: T0 + 1, isDeleting: true },
      keptAsStored,
    ]);
    await store().putPools([pool], T0 + 3);
    await store().removePool(pool.name);
    assert.deepEqual((await own(base))[0]?.isDeleting, false);
    await store().markPoolsDeleting([pool.name], T0 + 4);
    await store().removePool(pool.name);
    await store().removePool(pool.name);
    assert.deepEqual(await own(base), [keptAsStored]);
  });

  test("a listed pool is a copy", async () => {
    const base = newId();
    await store().putPools([named(base, { labels: { a: "1" } })], T0);
    const [pool] = await own(base);
    if (pool) pool.definition.labels["a"] = "changed";
    assert.equal((await own(base))[0]?.definition.labels["a"], "1");
  });
}

function queueTests(store: () => Store): void {
  const own = async (base: string) =>
    (await store().listQueues()).filter(({ name }) => name.startsWith(base));

  test("queues are configured, changed and reset together, and listed by name", async () => {
    const base = newId();
    const first: QueueConfig = {
      name: `${base}-B`,
      weight: 3,
      maxRunning: 5,
      maxPending: 1_000_000,
      paused: true,
    };
    const [second, third] = [defaultQueue(`${base}-a`), defaultQueue(`${base}-c`)];
    await store().configureQueues({ set: [third, second, first], reset: [] });
    assert.deepEqual(await own(base), [first, second, third]);
    const changed = { ...first, weight: 1_000, maxRunning: null, maxPending: 0, paused: false };
    const change = { set: [first, changed], reset: [second.name, `${base}-unknown`] };
    await store().configureQueues(change);
    await store().configureQueues(change);
    assert.deepEqual(await own(base), [changed, third]);
    await store().configureQueues({ set: [], reset: [] });
    assert.deepEqual(await own(base), [changed, third]);
  });

  test("a queue that is set and reset at once is forgotten", async () => {
    const queue = defaultQueue(newId());
    await store().configureQueues({ set: [queue], reset: [] });
    await store().configureQueues({ set: [{ ...queue, weight: 2 }], reset: [queue.name] });
    assert.deepEqual(await own(queue.name), []);
  });
}
