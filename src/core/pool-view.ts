/** Pools and providers as people see them: what there is, and what became of a change. */

import type { PoolDefinition, ProviderStatus } from "./pool.ts";

export interface PoolView {
  definition: PoolDefinition;
  /** It belongs to the settings of the server, and cannot be changed. */
  isFromSettings: boolean;
  isDeleting: boolean;
  /** Workers that exist or are being made; of these, those that have not connected, and those that run a job. */
  workers: number;
  arriving: number;
  busy: number;
  /** Why no worker can be made now; empty if one can. */
  problem: string;
  retryAtMs: number | null;
  /** Median of the last ones, from the request to the registration; null before the first. */
  startTimeMs: number | null;
}

export interface AppliedPool {
  name: string;
  change: "created" | "updated" | "unchanged" | "deleted";
}

export interface ProviderView {
  /** Such as `process` or `docker unix:///var/run/docker.sock`. */
  name: string;
  status: ProviderStatus;
  reason: string;
  checkedAtMs: number | null;
  pools: string[];
  orphansDestroyed: number;
  orphans: number;
}
