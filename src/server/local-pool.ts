/** The pool of local workers that a server has without any configuration. */

import { availableParallelism } from "node:os";
import { poolWith, type PoolDefinition } from "../core/pool.ts";

export interface LocalPoolSettings {
  maxWorkers: number;
  /** Null: by the number of cores. */
  workerJobs: number | null;
  workerIdleTimeoutMs: number;
  ephemeral: boolean;
}

export function localPool(settings: LocalPoolSettings): PoolDefinition {
  const { maxWorkers, workerJobs, workerIdleTimeoutMs, ephemeral } = settings;
  const jobsPerWorker = ephemeral ? 1 : (workerJobs ?? Math.max(4, availableParallelism() * 2));
  return poolWith({
    name: "local",
    provider: { type: "process" },
    jobsPerWorker,
    maxWorkers,
    idleTimeoutMs: workerIdleTimeoutMs,
    ephemeral,
  });
}
