/** What every provider must keep, as tests that each of them runs. */

import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { systemRandom, uuidV4, uuidV7 } from "../base/random.ts";
import type { Provider, ProviderEvent, WorkerSpec } from "./provider.ts";

export interface ProviderUnderTest {
  provider: Provider;
  /** Another instance over the same machines, as after a restart of the server. */
  reopen(): Promise<Provider>;
  /** Ends all of a worker's processes behind the provider's back. */
  kill(workerId: string): Promise<void>;
}

export function sampleSpec(): WorkerSpec {
  const workerId = uuidV7(systemClock, systemRandom);
  return {
    workerId,
    name: `test-${workerId.slice(-8)}`,
    pool: "test",
    // Nobody listens there: the agent tries again for as long as it is left alone.
    serverUrl: "http://127.0.0.1:9",
    token: uuidV4(),
    labels: { pool: "test" },
    taints: [],
    capacity: { cpuMillis: 1_000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, gpu: 0, jobs: 1 },
    environment: {},
  };
}

/** `setup` makes a provider without workers, and removes everything after the test. */
export function providerConformance(
  name: string,
  setup: (t: TestContext) => Promise<ProviderUnderTest>,
): void {
  describe(`provider ${name}`, () => {
    test("creates a worker that runs, lists it, and destroys it", async (t) => {
      const { provider } = await setup(t);
      const spec = sampleSpec();
      const handle = await provider.create(spec);
      assert.equal(handle.workerId, spec.workerId);
      assert.notEqual(handle.instanceId, "");
      assert.equal(await provider.inspect(spec.workerId), "running");
      assert.deepEqual(await provider.list(), [handle]);
      await provider.destroy(spec.workerId);
      assert.equal(await provider.inspect(spec.workerId), "gone");
      assert.deepEqual(await provider.list(), []);
    });

    test("makes one instance however often it is asked for the same worker", async (t) => {
      const { provider } = await setup(t);
      const spec = sampleSpec();
      const [first, second] = await Promise.all([provider.create(spec), provider.create(spec)]);
      assert.deepEqual(second, first);
      assert.deepEqual(await provider.create(spec), first);
      assert.deepEqual(await provider.list(), [first]);
    });

    test("destroys what is not there without complaint, also twice at once", async (t) => {
      const { provider } = await setup(t);
      const spec = sampleSpec();
      await provider.destroy(spec.workerId);
      await provider.create(spec);
      await Promise.all([provider.destroy(spec.workerId), provider.destroy(spec.workerId)]);
      await provider.destroy(spec.workerId);
      assert.equal(await provider.inspect(spec.workerId), "gone");
    });

    test("leaves nothing of a worker that is destroyed while it is being created", async (t) => {
      const { provider } = await setup(t);
      const spec = sampleSpec();
      await Promise.all([provider.create(spec), provider.destroy(spec.workerId)]);
      assert.equal(await provider.inspect(spec.workerId), "gone");
      assert.deepEqual(await provider.list(), []);
    });

    test("knows the workers of an instance of itself that is gone", async (t) => {
      const { provider, reopen } = await setup(t);
      const handle = await provider.create(sampleSpec());
      await provider.close();
      const next = await reopen();
      assert.deepEqual(await next.list(), [handle]);
      assert.equal(await next.inspect(handle.workerId), "running");
      await next.destroy(handle.workerId);
      assert.equal(await next.inspect(handle.workerId), "gone");
    });

    test("notices that a worker is gone, and says so if it promises to", async (t) => {
      const { provider, kill } = await setup(t);
      const events: ProviderEvent[] = [];
      provider.onEvent((event) => events.push(event));
      const spec = sampleSpec();
      await provider.create(spec);
      await kill(spec.workerId);
      await eventually(async () => (await provider.inspect(spec.workerId)) === "gone");
      if (!provider.capabilities.events) return;
      await eventually(() => events.length > 0, { what: "the event" });
      assert.deepEqual(
        events.map(({ type, workerId }) => ({ type, workerId })),
        [{ type: "gone", workerId: spec.workerId }],
      );
    });

    test("says nothing of a worker that it was told to destroy, nor to a listener that left", async (t) => {
      const { provider, kill } = await setup(t);
      const events: ProviderEvent[] = [];
      const left: ProviderEvent[] = [];
      provider.onEvent((event) => events.push(event));
      provider.onEvent((event) => left.push(event))();
      const wanted = sampleSpec();
      await provider.create(wanted);
      await provider.destroy(wanted.workerId);
      const other = sampleSpec();
      await provider.create(other);
      await kill(other.workerId);
      if (!provider.capabilities.events) return;
      await eventually(() => events.length > 0, { what: "the event" });
      assert.deepEqual(
        events.map(({ workerId }) => workerId),
        [other.workerId],
      );
      assert.deepEqual(left, []);
    });

    test("is healthy", async (t) => {
      const { provider } = await setup(t);
      assert.deepEqual(await provider.healthCheck(), { status: "healthy" });
    });
  });
}
