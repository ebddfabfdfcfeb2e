import assert from "node:assert/strict";
import { test } from "node:test";
import { DeferredProvider } from "./deferred-provider.ts";
import { FakeProvider } from "./fake/fake-provider.ts";
import { providerConformance, sampleSpec } from "./provider-conformance.ts";
import type { ProviderEvent } from "./provider.ts";

providerConformance("deferred", async () => {
  const instances = new Set<string>();
  const inner = new FakeProvider({}, instances);
  return {
    provider: new DeferredProvider("fake", async () => inner),
    reopen: async () => new DeferredProvider("fake", async () => new FakeProvider({}, instances)),
    kill: async (workerId) => inner.lose(workerId),
  };
});

test("opens nothing for who only listens, and closes nothing that was never opened", async () => {
  let opened = 0;
  const provider = new DeferredProvider("fake", async () => {
    opened += 1;
    return new FakeProvider();
  });
  provider.onEvent(() => {})();
  assert.equal(provider.activity, null);
  await provider.close();
  assert.equal(opened, 0);
  await assert.rejects(provider.list(), { code: "unavailable", message: /it is closed/ });
  assert.equal(opened, 0);
});

test("tries again after it could not be opened, and then tells those who listened before", async () => {
  let failure: Error | null = new Error("no ca.pem");
  const inner = new FakeProvider();
  const provider = new DeferredProvider("fake", async () => {
    if (failure) throw failure;
    return inner;
  });
  const events: ProviderEvent[] = [];
  provider.onEvent((event) => events.push(event));
  const spec = sampleSpec();
  await assert.rejects(provider.create(spec), {
    code: "unavailable",
    message: /^make worker .*: no ca\.pem$/,
  });
  assert.deepEqual(await provider.healthCheck(), { status: "unhealthy", reason: "no ca.pem" });
  failure = null;
  await provider.create(spec);
  assert.deepEqual(await provider.healthCheck(), { status: "healthy" });
  inner.lose(spec.workerId);
  assert.equal(events.length, 1);
});
