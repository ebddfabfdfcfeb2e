/** Workers between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Worker, WorkerCapacity, WorkerInfo, WorkerState, WorkerUsage } from "../core/worker.ts";
import { taintFromWire, taintToWire } from "./convert-placement.ts";
import { timeFromWire, wholeNumber } from "./convert.ts";
import * as pb from "./gen/hodei/v1/workers_pb.ts";
import { inverse } from "./inverse.ts";

const WORKER_STATE_NUMBER: Record<WorkerState, pb.WorkerState> = {
  creating: pb.WorkerState.CREATING,
  connecting: pb.WorkerState.CONNECTING,
  ready: pb.WorkerState.READY,
  busy: pb.WorkerState.BUSY,
  draining: pb.WorkerState.DRAINING,
  unreachable: pb.WorkerState.UNREACHABLE,
  broken: pb.WorkerState.BROKEN,
  terminated: pb.WorkerState.TERMINATED,
};
const workerStateName = inverse(WORKER_STATE_NUMBER);

export function workerInfoToWire(info: WorkerInfo): pb.WorkerInfo {
  return create(pb.WorkerInfoSchema, {
    workerId: info.workerId,
    name: info.name,
    version: info.version,
    hostname: info.hostname,
    ipAddress: info.ipAddress,
    capacity: capacityToWire(info.capacity),
    capabilities: info.capabilities,
    labels: info.labels,
    taints: info.taints.map(taintToWire),
  });
}

export function workerInfoFromWire(message: pb.WorkerInfo): WorkerInfo {
  return {
    workerId: message.workerId,
    name: message.name,
    version: message.version,
    hostname: message.hostname,
    ipAddress: message.ipAddress,
    capacity: capacityFromWire(message.capacity),
    capabilities: message.capabilities,
    labels: message.labels,
    taints: message.taints.map(taintFromWire),
  };
}

/** Also what is free on a worker. */
export function capacityToWire(capacity: WorkerCapacity): pb.WorkerCapacity {
  return create(pb.WorkerCapacitySchema, {
    cpuMillis: Math.max(0, Math.round(capacity.cpuMillis)),
    memoryBytes: wholeNumber(capacity.memoryBytes),
    diskBytes: wholeNumber(capacity.diskBytes),
    gpu: Math.max(0, capacity.gpu),
    jobs: Math.max(0, capacity.jobs),
  });
}

function capacityFromWire(message: pb.WorkerCapacity | undefined): WorkerCapacity {
  return {
    cpuMillis: message?.cpuMillis ?? 0,
    memoryBytes: Number(message?.memoryBytes ?? 0n),
    diskBytes: Number(message?.diskBytes ?? 0n),
    gpu: message?.gpu ?? 0,
    jobs: message?.jobs ?? 1,
  };
}

export function workerUsageToWire(usage: WorkerUsage): pb.WorkerUsage {
  return create(pb.WorkerUsageSchema, {
    cpuMillis: Math.round(usage.cpuMillis),
    memoryBytes: wholeNumber(usage.memoryBytes),
    diskFreeBytes: wholeNumber(usage.diskFreeBytes),
    loadMillis: Math.round(usage.loadMillis),
    measuredAt: timestampFromMs(usage.measuredAtMs),
    eventLoopDelayMaxMicros: wholeNumber(usage.eventLoopDelayMaxMicros),
  });
}

export function workerUsageFromWire(message: pb.WorkerUsage): WorkerUsage {
  return {
    cpuMillis: message.cpuMillis,
    memoryBytes: Number(message.memoryBytes),
    diskFreeBytes: Number(message.diskFreeBytes),
    loadMillis: message.loadMillis,
    measuredAtMs: timeFromWire(message.measuredAt) ?? 0,
    eventLoopDelayMaxMicros: Number(message.eventLoopDelayMaxMicros),
  };
}

export function workerToWire(worker: ToldWorker, attemptIds: readonly string[]): pb.Worker {
  const info = worker.info
    ? workerInfoToWire(worker.info)
    : create(pb.WorkerInfoSchema, { name: worker.name });
  info.workerId = worker.id;
  return create(pb.WorkerSchema, {
    info,
    state: WORKER_STATE_NUMBER[worker.state],
    provider: worker.provider,
    pool: worker.pool,
    createdAt: timestampFromMs(worker.createdAtMs),
    ...(worker.registeredAtMs === null ? {} : { registeredAt: timestampFromMs(worker.registeredAtMs) }),
    ...(worker.lastHeartbeatAtMs === null
      ? {}
      : { lastHeartbeatAt: timestampFromMs(worker.lastHeartbeatAtMs) }),
    ...(worker.usage ? { usage: workerUsageToWire(worker.usage) } : {}),
    attemptIds: [...attemptIds],
    message: worker.message,
    cordoned: worker.cordoned,
    ...(worker.madeAtMs === null ? {} : { madeAt: timestampFromMs(worker.madeAtMs) }),
  });
}

type ToldWorker = Omit<Worker, "takesOneJob">;

/** What a client knows of a worker. */
export interface WorkerView extends ToldWorker {
  attemptIds: string[];
}

export function workerFromWire(message: pb.Worker): WorkerView {
  return {
    id: message.info?.workerId ?? "",
    name: message.info?.name ?? "",
    state: workerStateName(message.state) ?? "connecting",
    provider: message.provider,
    pool: message.pool,
    info: message.info ? workerInfoFromWire(message.info) : null,
    usage: message.usage ? workerUsageFromWire(message.usage) : null,
    createdAtMs: timeFromWire(message.createdAt) ?? 0,
    madeAtMs: timeFromWire(message.madeAt),
    registeredAtMs: timeFromWire(message.registeredAt),
    lastHeartbeatAtMs: timeFromWire(message.lastHeartbeatAt),
    message: message.message,
    cordoned: message.cordoned,
    attemptIds: message.attemptIds,
  };
}
