/** A pool as the server works with it: its definition, what makes its workers, and what they have. */

import { arch, availableParallelism, hostname, platform, totalmem } from "node:os";
import type { Taint } from "../../core/labels.ts";
import { workerTemplateKey } from "../../core/pool-change.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { WorkerCapacity } from "../../core/worker.ts";
import type { Provider } from "../../providers/provider.ts";

/** Never changed: a pool that changes is another one of the same name. */
export interface Pool {
  readonly name: string;
  readonly definition: PoolDefinition;
  readonly provider: Provider;
  /** Where the provider makes them, for people; pools in the same place have the same. */
  readonly providerName: string;
  readonly labels: Record<string, string>;
  readonly taints: readonly Taint[];
  /** What one worker holds. */
  readonly capacity: WorkerCapacity;
  /** Workers that were made by another one are replaced. */
  readonly templateKey: string;
  readonly isFromSettings: boolean;
  readonly isDeleting: boolean;
  /**
   * When somebody last changed it; 0 for one of the settings. Workers of a server before this one that
   * are older may be of another definition, which nobody knows any more: they are replaced.
   */
  readonly updatedAtMs: number;
}

/** The pools that there are. */
export interface PoolSource {
  /** Those of the settings first, then the others by name. */
  all(): readonly Pool[];
  get(name: string): Pool | null;
  /** A pool that is being deleted has no worker any more. */
  forget(name: string): Promise<void>;
  /** Closes providers that no pool has any more, but for those in `used`. */
  closeUnused(used: ReadonlySet<Provider>): Promise<void>;
}

/** What a machine has, which its workers share if their pool does not say. */
export interface Machine {
  cpuMillis: number;
  memoryBytes: number;
  os: string;
  arch: string;
  hostname: string;
}

export function thisMachine(): Machine {
  return {
    cpuMillis: availableParallelism() * 1_000,
    memoryBytes: totalmem(),
    os: platform(),
    arch: arch(),
    hostname: hostname(),
  };
}

export function poolOf(
  definition: PoolDefinition,
  made: { provider: Provider; providerName: string; machine: Machine } & Partial<
    Pick<Pool, "isFromSettings" | "isDeleting" | "updatedAtMs">
  >,
): Pool {
  const {
    provider,
    providerName,
    machine,
    isFromSettings = false,
    isDeleting = false,
    updatedAtMs = 0,
  } = made;
  return {
    name: definition.name,
    definition,
    provider,
    providerName,
    labels: labelsOf(definition, provider, machine),
    taints: definition.taints,
    capacity: capacityOf(definition, machine),
    templateKey: workerTemplateKey(definition),
    isFromSettings,
    isDeleting,
    updatedAtMs,
  };
}

/** Pools that never change. */
export function fixedPools(pools: readonly Pool[]): PoolSource {
  return {
    all: () => pools,
    get: (name) => pools.find((pool) => pool.name === name) ?? null,
    forget: () => Promise.resolve(),
    closeUnused: () => Promise.resolve(),
  };
}

function labelsOf(definition: PoolDefinition, provider: Provider, machine: Machine): Record<string, string> {
  const isProcess = definition.provider.type === "process";
  return {
    ...(isProcess ? { hostname: machine.hostname } : {}),
    ...definition.labels,
    pool: definition.name,
    provider: provider.name,
    os: isProcess ? machine.os : "linux",
    arch: machine.arch,
  };
}

/** Workers of a pool share one machine, so each counts for its part of it. */
function capacityOf(definition: PoolDefinition, machine: Machine): WorkerCapacity {
  const { resources, maxWorkers, ephemeral, jobsPerWorker } = definition;
  const share = Math.max(1, maxWorkers);
  return {
    cpuMillis: resources.cpuMillis ?? Math.floor(machine.cpuMillis / share),
    memoryBytes: resources.memoryBytes ?? Math.floor(machine.memoryBytes / share),
    diskBytes: resources.diskBytes ?? Number.MAX_SAFE_INTEGER,
    gpu: resources.gpu ?? 0,
    jobs: ephemeral ? 1 : jobsPerWorker,
  };
}
