/** Pools over a provider that misbehaves as it is told to, for the tests of pools. */

import { poolWith, type PoolDefinition } from "../../core/pool.ts";
import type { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { poolOf, type Machine, type Pool } from "./pool.ts";

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
