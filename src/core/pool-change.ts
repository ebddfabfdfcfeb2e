/** Whether two definitions of a pool are the same, as a whole or as far as its workers can tell. */

import type { PoolDefinition, PoolProvider } from "./pool.ts";

export function isSamePool(one: PoolDefinition, other: PoolDefinition): boolean {
  return sortedJson(one) === sortedJson(other);
}

/**
 * A text that is equal for two definitions exactly if their workers are alike: a worker that was made
 * by another one is replaced. Sizes, times and costs are matters of the pool and change no worker.
 */
export function workerTemplateKey(definition: PoolDefinition): string {
  const { provider, labels, taints, resources, jobsPerWorker, ephemeral, serverUrl } = definition;
  return sortedJson({ provider, labels, taints, resources, jobsPerWorker, ephemeral, serverUrl });
}

/** Equal for pools whose workers one instance of a provider can make. */
export function providerKey({ provider, resources }: Pick<PoolDefinition, "provider" | "resources">): string {
  // A container is limited by its provider, a process by nobody.
  const { cpuMillis, memoryBytes } = resources;
  if (provider.type !== "docker") return sortedJson(provider);
  const diskBytes = provider.docker.limitDisk ? resources.diskBytes : null;
  return sortedJson({ provider, cpuMillis, memoryBytes, diskBytes });
}

/** Where the workers are, for people: equal for providers that list the same instances. */
export function providerName(provider: PoolProvider, defaults: { dockerHost: string }): string {
  if (provider.type === "process") return "process";
  const { host, tlsDirectory } = provider.docker;
  const tls = tlsDirectory === null ? "" : ` (TLS by ${tlsDirectory})`;
  return `docker ${host ?? defaults.dockerHost}${tls}`;
}

/** A database may give the fields back in another order. */
function sortedJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  });
}
