/** Pools: kinds of workers that are made on demand, and what they have. */

import type { Resources } from "./job.ts";
import type { Taint } from "./labels.ts";

export const PLACEMENT_STRATEGIES = ["least_loaded", "best_fit", "round_robin"] as const;
/**
 * Which of a pool's fitting workers gets a job: the one with the most room, the one that is left with
 * the least, or the one that got none for the longest time.
 */
export type PlacementStrategy = (typeof PLACEMENT_STRATEGIES)[number];

/** How a container is made; see docs/docker.md. `null` and empty lists leave it to the engine. */
export interface DockerTemplate {
  image: string;
  /** `unix:///…`, `tcp://…`; null: `DOCKER_HOST` or the usual socket. */
  host: string | null;
  tlsDirectory: string | null;
  pull: "always" | "missing" | "never";
  authFile: string | null;
  network: string;
  pids: number | null;
  user: string | null;
  noNewPrivileges: boolean;
  dropCapabilities: string[];
  readOnlyRoot: boolean;
  /** The container's files, those of its jobs among them, take no more than `resources.diskBytes`. */
  limitDisk: boolean;
  /** `/host/path:/container/path[:ro]`. */
  mounts: string[];
}

export type PoolProvider = { type: "process" } | { type: "docker"; docker: DockerTemplate };

/** A pool as somebody wants it. */
export interface PoolDefinition {
  name: string;
  provider: PoolProvider;
  /** Its workers have these, besides `pool`, `provider`, `os` and `arch`. */
  labels: Record<string, string>;
  taints: Taint[];
  /** What one worker can hold; a null is what the machine has, shared by `maxWorkers`. */
  resources: { [K in keyof Resources]: Resources[K] | null };
  /** Jobs at the same time on one worker; 1 if it is ephemeral. */
  jobsPerWorker: number;
  minWorkers: number;
  maxWorkers: number;
  /** Connected workers without a job that are kept ready, within `maxWorkers`. */
  warmSpares: number;
  /** A worker takes one job and leaves. */
  ephemeral: boolean;
  /** A worker above `minWorkers` and `warmSpares` that has no job for this long leaves. */
  idleTimeoutMs: number;
  /** A worker of this age takes no more jobs and leaves; null: it may stay. */
  maxLifetimeMs: number | null;
  /** How long a worker may take from its creation to its first stream. */
  startTimeoutMs: number;
  strategy: PlacementStrategy;
  /** Of one worker, in any currency: of two pools that fit alike, the cheaper one is taken. */
  costPerHour: number;
  /** Where its agents dial, if it is not where all do. */
  serverUrl: string | null;
}

export const POOL_DEFAULTS = {
  maxWorkers: 4,
  idleTimeoutMs: 60_000,
  startTimeoutMs: 2 * 60_000,
  strategy: "least_loaded",
} as const;

export const DOCKER_DEFAULTS = {
  pull: "missing",
  /** An agent reaches a server on the same machine by it. */
  network: "host",
  noNewPrivileges: true,
  readOnlyRoot: false,
  limitDisk: false,
} as const;

/** Undefined is left out. */
type Given<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** A template with the default of everything that is left out. */
export function dockerWith(given: Given<DockerTemplate> & { image: string }): DockerTemplate {
  return {
    image: given.image,
    host: given.host ?? null,
    tlsDirectory: given.tlsDirectory ?? null,
    pull: given.pull ?? DOCKER_DEFAULTS.pull,
    authFile: given.authFile ?? null,
    network: given.network ?? DOCKER_DEFAULTS.network,
    pids: given.pids ?? null,
    user: given.user ?? null,
    noNewPrivileges: given.noNewPrivileges ?? DOCKER_DEFAULTS.noNewPrivileges,
    dropCapabilities: given.dropCapabilities ?? [],
    readOnlyRoot: given.readOnlyRoot ?? DOCKER_DEFAULTS.readOnlyRoot,
    limitDisk: given.limitDisk ?? DOCKER_DEFAULTS.limitDisk,
    mounts: given.mounts ?? [],
  };
}

/** A definition with the default of everything that is left out. */
export function poolWith(
  given: Given<PoolDefinition> & { name: string; provider: PoolProvider },
): PoolDefinition {
  return {
    name: given.name,
    provider: providerWith(given.provider),
    labels: given.labels ?? {},
    taints: given.taints ?? [],
    resources: given.resources ?? { cpuMillis: null, memoryBytes: null, diskBytes: null, gpu: null },
    jobsPerWorker: given.jobsPerWorker ?? 1,
    minWorkers: given.minWorkers ?? 0,
    maxWorkers: given.maxWorkers ?? POOL_DEFAULTS.maxWorkers,
    warmSpares: given.warmSpares ?? 0,
    ephemeral: given.ephemeral ?? given.provider.type === "docker",
    idleTimeoutMs: given.idleTimeoutMs ?? POOL_DEFAULTS.idleTimeoutMs,
    maxLifetimeMs: given.maxLifetimeMs ?? null,
    startTimeoutMs: given.startTimeoutMs ?? POOL_DEFAULTS.startTimeoutMs,
    strategy: given.strategy ?? POOL_DEFAULTS.strategy,
    costPerHour: given.costPerHour ?? 0,
    serverUrl: given.serverUrl ?? null,
  };
}

/** An earlier version may have stored it, with less in it. */
function providerWith(provider: PoolProvider): PoolProvider {
  return provider.type === "docker" ? { ...provider, docker: dockerWith(provider.docker) } : provider;
}

/** A pool as the server keeps it. */
export interface StoredPool {
  definition: PoolDefinition;
  createdAtMs: number;
  updatedAtMs: number;
  /** Somebody wants it gone: no new workers, and the pool goes with its last one. */
  isDeleting: boolean;
}

export const PROVIDER_STATUSES = ["healthy", "degraded", "unhealthy", "unknown"] as const;
export type ProviderStatus = (typeof PROVIDER_STATUSES)[number];

/** How jobs of a queue are treated. A queue that nobody configured has weight 1 and no limits. */
export interface QueueConfig {
  name: string;
  /** Its share of the starts among queues that wait, 1 to 1,000. */
  weight: number;
  /** Jobs of it that may be at work at the same time; null: no limit. */
  maxRunning: number | null;
  /** Jobs that may wait; more are refused at submission. Null: no limit. */
  maxPending: number | null;
  /** No job of it starts. */
  paused: boolean;
}

export function defaultQueue(name: string): QueueConfig {
  return { name, weight: 1, maxRunning: null, maxPending: null, paused: false };
}
