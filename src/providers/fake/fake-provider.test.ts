import assert from "node:assert/strict";
import { test } from "node:test";
import { providerConformance, sampleSpec } from "../provider-conformance.ts";
import type { ProviderEvent } from "../provider.ts";
import { FakeProvider } from "./fake-provider.ts";

providerConformance("fake", async () => {
  const instances = new Set<string>();
  const provider = new FakeProvider({}, instances);
  return {
    provider,
    reopen: async () => new FakeProvider({}, instances),
    kill: async (workerId) => provider.lose(workerId),
  };
});

test("misbehaves as it is told to", async () => {
  const provider = new FakeProvider({ createFailure: new Error("no luck"), losesAnswers: true });
  const events: ProviderEvent[] = [];
  provider.onEvent((event) => events.push(event));
  const spec = sampleSpec();
  await assert.rejects(provider.create(spec), /no luck/);
  assert.equal(await provider.inspect(spec.workerId), "running");
  provider.misbehaviour.outage = new Error("away");
  await assert.rejects(provider.list(), { code: "unavailable", message: "list all workers: away" });
  provider.misbehaviour.outage = null;
  provider.misbehaviour.isSilent = true;
  provider.lose(spec.workerId);
  assert.equal(await provider.inspect(spec.workerId), "gone");
  assert.deepEqual(events, []);
});
