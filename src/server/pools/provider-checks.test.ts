import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { FakeProvider } from "../../providers/fake/fake-provider.ts";
import type { Provider } from "../../providers/provider.ts";
import { ProviderChecks } from "./provider-checks.ts";

function setup() {
  const clock = new ManualClock();
  const changed: Provider[] = [];
  const checks = new ProviderChecks({
    clock,
    log: silentLogger,
    onChange: (provider) => void changed.push(provider),
  });
  return { clock, checks, changed, provider: new FakeProvider() };
}

test("knows nothing of a provider before its first check", () => {
  const { checks, provider } = setup();
  assert.deepEqual(checks.get(provider), { health: { status: "unknown" }, checkedAtMs: null });
});

test("tells of a change, and not of the same status again", async () => {
  const { checks, provider, changed, clock } = setup();
  await checks.check(provider);
  await checks.check(provider);
  assert.equal(changed.length, 1);
  provider.misbehaviour.health = { status: "unhealthy", reason: "no socket" };
  clock.advance(15_000);
  await checks.check(provider);
  assert.equal(changed.length, 2);
  assert.deepEqual(checks.get(provider), {
    health: { status: "unhealthy", reason: "no socket" },
    checkedAtMs: clock.nowMs(),
  });
});

test("one that does not answer within ten seconds is unhealthy, and is not asked twice meanwhile", async () => {
  const { checks, provider, clock } = setup();
  provider.misbehaviour.healthDelay = new Promise(() => {});
  const check = checks.check(provider);
  assert.equal(checks.check(provider), check);
  clock.advance(9_999);
  assert.equal(checks.get(provider).checkedAtMs, null);
  clock.advance(1);
  await check;
  assert.deepEqual(checks.get(provider).health, {
    status: "unhealthy",
    reason: "it did not answer within 10 s",
  });
  provider.misbehaviour.healthDelay = Promise.resolve();
  await checks.check(provider);
  assert.equal(checks.get(provider).health.status, "healthy");
  assert.equal(clock.waiting, 0);
});

test("a check that fails makes its provider unhealthy", async () => {
  const { checks, provider } = setup();
  provider.healthCheck = () => Promise.reject(new Error("it broke"));
  await checks.check(provider);
  assert.deepEqual(checks.get(provider).health, { status: "unhealthy", reason: "it broke" });
});
