/** The nouns of a worker. */

import type { Resources } from "./job.ts";
import type { Taint } from "./labels.ts";

export const WORKER_STATES = [
  "creating",
  "connecting",
  "ready",
  "busy",
  "draining",
  "unreachable",
  "broken",
  "terminated",
] as const;
export type WorkerState = (typeof WORKER_STATES)[number];

/** What a worker can hold. */
export interface WorkerCapacity extends Resources {
  /** Jobs at the same time. */
  jobs: number;
}

/** What a worker says of itself when it registers. */
export interface WorkerInfo {
  workerId: string;
  name: string;
  version: string;
  hostname: string;
  ipAddress: string;
  capacity: WorkerCapacity;
  capabilities: string[];
  labels: Record<string, string>;
  taints: Taint[];
}

/** What a worker used when it last measured. */
export interface WorkerUsage {
  cpuMillis: number;
  memoryBytes: number;
  diskFreeBytes: number;
  loadMillis: number;
  measuredAtMs: number;
  eventLoopDelayMaxMicros: number;
}

/** A worker as the server keeps it. */
export interface Worker {
  id: string;
  name: string;
  state: WorkerState;
  /** What made it: `process`, …, or `static` for one that a person started. */
  provider: string;
  pool: string;
  /** Null until it has registered. */
  info: WorkerInfo | null;
  usage: WorkerUsage | null;
  createdAtMs: number;
  /** When its provider had made it; null if nobody made it, or it is not there yet. */
  madeAtMs: number | null;
  registeredAtMs: number | null;
  lastHeartbeatAtMs: number | null;
  /** Why it is in this state. */
  message: string;
  /** Somebody wants it to get no new jobs; it keeps those that it has, and stays. */
  cordoned: boolean;
  /** It leaves after its first job, whatever becomes of its pool. */
  takesOneJob: boolean;
}

export const ATTEMPT_PHASES = ["accepted", "running", "paused", "finished"] as const;
/** Where an attempt is on its worker. */
export type AttemptPhase = (typeof ATTEMPT_PHASES)[number];

export const CONTROL_ACTIONS = ["cancel", "pause", "resume", "kill"] as const;
export type ControlAction = (typeof CONTROL_ACTIONS)[number];
