/** Pools over a provider that misbehaves as it is told to, for the tests of pools. */

import { poolWith, type PoolDefinition } from "../../core/pool.ts";
import type { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { poolOf, type Machine, type Pool } from "./pool.ts";
import type { Provisioner } from "./provisioner.ts";

export const TEST_MACHINE: Machine = {
  cpuMillis: 8_000,
  memoryBytes: 2 ** 34,
  os: "linux",
  arch: "x64",
  hostname: "here",
};

/** Workers of one job each. */
export function sampleDefinitionOf(changes: Partial<PoolDefinition> = {}): PoolDefinition {
  return poolWith({
    name: "local",
    provider: { type: "process" },
    resources: { cpuMillis: 1_000, memoryBytes: 2 ** 20, diskBytes: 2 ** 20, gpu: 0 },
    maxWorkers: 3,
    ...changes,
  });
}

export function samplePoolOf(
  provider: FakeProvider,
  changes: Partial<PoolDefinition> = {},
  facts: Partial<Pool> = {},
): Pool {
  const made = { provider, providerName: "fake", machine: TEST_MACHINE };
  return { ...poolOf(sampleDefinitionOf(changes), made), ...facts };
}

/** All that provisioning does in the background, once; the first failure is thrown when all is done. */
export async function roundOf(provisioner: Provisioner): Promise<void> {
  const turns = [...provisioner.providers()].map((provider) => provisioner.attendTo(provider));
  const results = await Promise.allSettled(turns);
  await provisioner.tidy();
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
