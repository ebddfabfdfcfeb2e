/**
 * What makes and destroys workers: a local process, a container, a pod, a virtual machine.
 *
 * All verbs are harmless when repeated. A worker is known by its id, which the caller chooses, so
 * that a `create` whose answer was lost can be found again with `list`.
 */

import type { Taint } from "../core/labels.ts";
import type { WorkerCapacity } from "../core/worker.ts";

/** What to make. */
export interface WorkerSpec {
  workerId: string;
  name: string;
  pool: string;
  /** Where the agent dials, such as `http://127.0.0.1:9090`. */
  serverUrl: string;
  /** The one-time token. Handed over in a file where the provider can, never in argv. */
  token: string;
  labels: Record<string, string>;
  taints: readonly Taint[];
  /** What it may hold. */
  capacity: WorkerCapacity;
  environment: Record<string, string>;
}

/** A worker that was made. */
export interface WorkerHandle {
  workerId: string;
  /** How the provider calls it: a process id, a container id. */
  instanceId: string;
}

export type InstanceState = "starting" | "running" | "gone";

export type ProviderHealth =
  | { status: "healthy" }
  | { status: "degraded"; reason: string }
  | { status: "unhealthy"; reason: string }
  | { status: "unknown" };

export interface ProviderCapabilities {
  /** The provider says by itself when a worker is gone. */
  events: boolean;
}

/** Told when an instance is gone for certain: its processes do not run any more. */
export type ProviderEvent = { type: "gone"; workerId: string; message: string };

export interface Provider {
  readonly name: string;
  readonly capabilities: ProviderCapabilities;
  /** Resolves when the instance runs. Rejects with `AppError`; `retryable` codes are transient. */
  create(spec: WorkerSpec): Promise<WorkerHandle>;
  /** Resolves when the instance is gone; also if it was never there. */
  destroy(workerId: string): Promise<void>;
  inspect(workerId: string): Promise<InstanceState>;
  /** Everything this provider made and that is not gone. */
  list(): Promise<WorkerHandle[]>;
  healthCheck(): Promise<ProviderHealth>;
  /** What it is at before a worker can come, for people, such as a download; null if that is nothing. */
  readonly activity?: string | null;
  /** Calls `listener` for each event until the returned function is called. */
  onEvent(listener: (event: ProviderEvent) => void): () => void;
  /** Lets go of what the provider holds itself; workers are not destroyed. */
  close(): Promise<void>;
}

/** What a worker holds, for an agent, as its settings read it. Without a size of the disk the agent looks. */
export function capacityVariables({ capacity }: Pick<WorkerSpec, "capacity">): Record<string, string> {
  const { jobs, cpuMillis, memoryBytes, diskBytes, gpu } = capacity;
  return {
    HODEI_WORKER_JOBS: String(jobs),
    HODEI_WORKER_CPU_MILLIS: String(cpuMillis),
    HODEI_WORKER_MEMORY: String(memoryBytes),
    ...(diskBytes === Number.MAX_SAFE_INTEGER ? {} : { HODEI_WORKER_DISK: String(diskBytes) }),
    HODEI_WORKER_GPU: String(gpu),
  };
}

/**
 * Labels and taints for an agent, as its settings read them: `key=value,...` and
 * `key=value:Effect,...`. Neither keys nor values hold a comma (core/pool-problems.ts).
 */
export function labelVariables(spec: Pick<WorkerSpec, "labels" | "taints">): Record<string, string> {
  const labels = Object.entries(spec.labels).map(([key, value]) => `${key}=${value}`);
  const taints = spec.taints.map(({ key, value, effect }) => `${key}=${value}:${effect}`);
  return { HODEI_WORKER_LABELS: labels.join(","), HODEI_WORKER_TAINTS: taints.join(",") };
}
