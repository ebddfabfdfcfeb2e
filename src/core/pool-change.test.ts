import assert from "node:assert/strict";
import { test } from "node:test";
import { isSamePool, providerKey, providerName, workerTemplateKey } from "./pool-change.ts";
import { dockerWith, poolWith, type PoolDefinition } from "./pool.ts";

const local: PoolDefinition = poolWith({
  name: "small",
  provider: { type: "process" },
  labels: { zone: "a", rack: "1" },
});

test("a pool is the same in whatever order its fields come back", () => {
  const shuffled = Object.fromEntries(Object.entries(local).toReversed()) as unknown as PoolDefinition;
  assert.ok(isSamePool(local, { ...shuffled, labels: { rack: "1", zone: "a" } }));
  assert.ok(!isSamePool(local, { ...local, maxWorkers: 9 }));
});

test("workers are alike as long as only the pool's sizes, times and costs change", () => {
  const key = workerTemplateKey(local);
  const sizes = { minWorkers: 1, maxWorkers: 9, warmSpares: 1, costPerHour: 3, idleTimeoutMs: 1 };
  assert.equal(workerTemplateKey({ ...local, ...sizes }), key);
  for (const change of [
    { labels: { zone: "b" } },
    { taints: [{ key: "spot", value: "", effect: "NoSchedule" as const }] },
    { jobsPerWorker: 2 },
    { ephemeral: true },
    { resources: { ...local.resources, gpu: 1 } },
    { serverUrl: "http://10.0.0.1:9090" },
  ]) {
    assert.notEqual(workerTemplateKey({ ...local, ...change }), key, Object.keys(change)[0]);
  }
});

test("pools share a provider that makes the same kind of instance, and a name for the same place", () => {
  const docker = dockerWith({ image: "debian:13" });
  const defaults = { dockerHost: "unix:///var/run/docker.sock" };
  const debian = poolWith({ name: "a", provider: { type: "docker", docker } });
  const alpine = poolWith({
    name: "b",
    provider: { type: "docker", docker: { ...docker, image: "alpine" } },
  });
  const limited = { ...debian, resources: { ...debian.resources, memoryBytes: 1 } };
  assert.equal(providerKey({ provider: debian.provider, resources: debian.resources }), providerKey(debian));
  assert.notEqual(providerKey(alpine), providerKey(debian));
  assert.notEqual(providerKey(limited), providerKey(debian));
  const roomy = { ...debian, resources: { ...debian.resources, diskBytes: 1 } };
  assert.equal(providerKey(roomy), providerKey(debian));
  const full = (diskBytes: number) => ({
    provider: { type: "docker" as const, docker: { ...docker, limitDisk: true } },
    resources: { ...debian.resources, diskBytes },
  });
  assert.notEqual(providerKey(full(1)), providerKey(full(2)));
  assert.equal(providerName(alpine.provider, defaults), "docker unix:///var/run/docker.sock");
  assert.equal(providerName(local.provider, defaults), "process");
});
