/** Pools and providers between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampFromMs, type Duration } from "@bufbuild/protobuf/wkt";
import type { AppliedPool, PoolView, ProviderView } from "../core/pool-view.ts";
import {
  dockerWith,
  poolWith,
  type DockerTemplate,
  type PlacementStrategy,
  type PoolDefinition,
  type PoolProvider,
  type ProviderStatus,
} from "../core/pool.ts";
import { taintFromWire, taintToWire } from "./convert-placement.ts";
import { timeFromWire, wholeNumber } from "./convert.ts";
import * as pb from "./gen/hodei/v1/pools_pb.ts";
import { inverse } from "./inverse.ts";

const STRATEGY_NUMBER: Record<PlacementStrategy, pb.PlacementStrategy> = {
  least_loaded: pb.PlacementStrategy.LEAST_LOADED,
  best_fit: pb.PlacementStrategy.BEST_FIT,
  round_robin: pb.PlacementStrategy.ROUND_ROBIN,
};

const PROVIDER_STATUS_NUMBER: Record<ProviderStatus, pb.ProviderStatus> = {
  healthy: pb.ProviderStatus.HEALTHY,
  degraded: pb.ProviderStatus.DEGRADED,
  unhealthy: pb.ProviderStatus.UNHEALTHY,
  unknown: pb.ProviderStatus.UNKNOWN,
};

const POOL_CHANGE_NUMBER = {
  created: pb.PoolChange.CREATED,
  updated: pb.PoolChange.UPDATED,
  unchanged: pb.PoolChange.UNCHANGED,
  deleted: pb.PoolChange.DELETED,
} as const;

const strategyName = inverse(STRATEGY_NUMBER);
const providerStatusName = inverse(PROVIDER_STATUS_NUMBER);
const poolChangeName = inverse(POOL_CHANGE_NUMBER);

// ── Definitions ────────────────────────────────────────────────────────────────────────────────

export function poolDefinitionFromWire(message: pb.PoolDefinition): PoolDefinition {
  return poolWith({
    name: message.name,
    provider: providerFromWire(message.provider),
    labels: message.labels,
    taints: message.taints.map(taintFromWire),
    resources: resourcesFromWire(message.resources),
    jobsPerWorker: message.jobsPerWorker || undefined,
    minWorkers: message.minWorkers,
    maxWorkers: message.maxWorkers,
    warmSpares: message.warmSpares,
    ephemeral: message.ephemeral,
    idleTimeoutMs: message.idleTimeout && wholeMs(message.idleTimeout),
    maxLifetimeMs: message.maxLifetime && wholeMs(message.maxLifetime),
    startTimeoutMs: message.startTimeout && wholeMs(message.startTimeout),
    strategy: strategyName(message.strategy) ?? undefined,
    costPerHour: message.costPerHour,
    serverUrl: message.serverUrl || undefined,
  });
}

export function poolDefinitionToWire(pool: PoolDefinition): pb.PoolDefinition {
  return create(pb.PoolDefinitionSchema, {
    name: pool.name,
    provider: providerToWire(pool.provider),
    labels: pool.labels,
    taints: pool.taints.map(taintToWire),
    resources: resourcesToWire(pool.resources),
    jobsPerWorker: pool.jobsPerWorker,
    minWorkers: pool.minWorkers,
    maxWorkers: pool.maxWorkers,
    warmSpares: pool.warmSpares,
    ephemeral: pool.ephemeral,
    idleTimeout: durationFromMs(pool.idleTimeoutMs),
    ...(pool.maxLifetimeMs === null ? {} : { maxLifetime: durationFromMs(pool.maxLifetimeMs) }),
    startTimeout: durationFromMs(pool.startTimeoutMs),
    strategy: STRATEGY_NUMBER[pool.strategy],
    costPerHour: pool.costPerHour,
    serverUrl: pool.serverUrl ?? "",
  });
}

function providerFromWire(provider: pb.PoolDefinition["provider"]): PoolProvider {
  switch (provider.case) {
    case "docker":
      return { type: "docker", docker: dockerFromWire(provider.value) };
    case "process":
    case undefined:
      // The constraints let none without a provider through.
      return { type: "process" };
  }
}

function providerToWire(provider: PoolProvider): pb.PoolDefinition["provider"] {
  if (provider.type === "docker") return { case: "docker", value: dockerToWire(provider.docker) };
  return { case: "process", value: create(pb.ProcessTemplateSchema) };
}

function dockerFromWire(message: pb.DockerTemplate): DockerTemplate {
  return dockerWith({
    image: message.image,
    host: message.host || undefined,
    tlsDirectory: message.tlsDirectory || undefined,
    pull: (message.pull || undefined) as DockerTemplate["pull"] | undefined,
    authFile: message.authFile || undefined,
    network: message.network || undefined,
    pids: message.pids || undefined,
    user: message.user || undefined,
    noNewPrivileges: !message.allowNewPrivileges,
    dropCapabilities: message.dropCapabilities,
    readOnlyRoot: message.readOnlyRoot,
    limitDisk: message.limitDisk,
    mounts: message.mounts,
  });
}

function dockerToWire(template: DockerTemplate): pb.DockerTemplate {
  return create(pb.DockerTemplateSchema, {
    image: template.image,
    host: template.host ?? "",
    tlsDirectory: template.tlsDirectory ?? "",
    pull: template.pull,
    authFile: template.authFile ?? "",
    network: template.network,
    pids: template.pids ?? 0,
    user: template.user ?? "",
    allowNewPrivileges: !template.noNewPrivileges,
    dropCapabilities: template.dropCapabilities,
    readOnlyRoot: template.readOnlyRoot,
    limitDisk: template.limitDisk,
    mounts: template.mounts,
  });
}

function resourcesFromWire(message: pb.PoolResources | undefined): PoolDefinition["resources"] {
  return {
    cpuMillis: message?.cpuMillis ?? null,
    memoryBytes: message?.memoryBytes === undefined ? null : Number(message.memoryBytes),
    diskBytes: message?.diskBytes === undefined ? null : Number(message.diskBytes),
    gpu: message?.gpu ?? null,
  };
}

function resourcesToWire(resources: PoolDefinition["resources"]): pb.PoolResources {
  const { cpuMillis, memoryBytes, diskBytes, gpu } = resources;
  return create(pb.PoolResourcesSchema, {
    ...(cpuMillis === null ? {} : { cpuMillis }),
    ...(memoryBytes === null ? {} : { memoryBytes: wholeNumber(memoryBytes) }),
    ...(diskBytes === null ? {} : { diskBytes: wholeNumber(diskBytes) }),
    ...(gpu === null ? {} : { gpu }),
  });
}

function wholeMs(duration: Duration): number {
  return Math.round(durationMs(duration));
}

// ── What there is of them ──────────────────────────────────────────────────────────────────────

export function poolToWire(pool: PoolView): pb.Pool {
  return create(pb.PoolSchema, {
    definition: poolDefinitionToWire(pool.definition),
    fromSettings: pool.isFromSettings,
    deleting: pool.isDeleting,
    workers: pool.workers,
    arrivingWorkers: pool.arriving,
    busyWorkers: pool.busy,
    problem: pool.problem,
    ...(pool.retryAtMs === null ? {} : { retryAt: timestampFromMs(pool.retryAtMs) }),
    ...(pool.startTimeMs === null ? {} : { startTime: durationFromMs(Math.round(pool.startTimeMs)) }),
  });
}

export function poolFromWire(message: pb.Pool): PoolView {
  return {
    definition: poolDefinitionFromWire(message.definition ?? create(pb.PoolDefinitionSchema)),
    isFromSettings: message.fromSettings,
    isDeleting: message.deleting,
    workers: message.workers,
    arriving: message.arrivingWorkers,
    busy: message.busyWorkers,
    problem: message.problem,
    retryAtMs: timeFromWire(message.retryAt),
    startTimeMs: message.startTime ? durationMs(message.startTime) : null,
  };
}

export function appliedPoolToWire({ name, change }: AppliedPool): pb.AppliedPool {
  return create(pb.AppliedPoolSchema, { name, change: POOL_CHANGE_NUMBER[change] });
}

export function appliedPoolFromWire({ name, change }: pb.AppliedPool): AppliedPool {
  return { name, change: poolChangeName(change) ?? "unchanged" };
}

export function providerStateToWire(provider: ProviderView): pb.Provider {
  return create(pb.ProviderSchema, {
    name: provider.name,
    status: PROVIDER_STATUS_NUMBER[provider.status],
    reason: provider.reason,
    ...(provider.checkedAtMs === null ? {} : { checkedAt: timestampFromMs(provider.checkedAtMs) }),
    pools: provider.pools,
    orphansDestroyed: wholeNumber(provider.orphansDestroyed),
    orphans: provider.orphans,
  });
}

export function providerStateFromWire(message: pb.Provider): ProviderView {
  return {
    name: message.name,
    status: providerStatusName(message.status) ?? "unknown",
    reason: message.reason,
    checkedAtMs: timeFromWire(message.checkedAt),
    pools: message.pools,
    orphansDestroyed: Number(message.orphansDestroyed),
    orphans: message.orphans,
  };
}
