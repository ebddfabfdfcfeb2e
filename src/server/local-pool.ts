/** The pool of local workers that a server has without any configuration. */

import { totalmem } from "node:os";
import { availableParallelism, arch, hostname, platform } from "node:os";
import type { Provider } from "../providers/provider.ts";
import type { Pool } from "./loops/provisioning.ts";

export interface LocalPoolSettings {
  maxWorkers: number;
  /** Null: by the number of cores. */
  workerJobs: number | null;
  workerIdleTimeoutMs: number;
  ephemeral: boolean;
}

/** Local workers share one machine, so each counts for its part of it. */
export function localPool(settings: LocalPoolSettings, provider: Provider): Pool {
  const share = Math.max(1, settings.maxWorkers);
  const cores = availableParallelism();
  return {
    name: "local",
    provider,
    labels: { os: platform(), arch: arch(), hostname: hostname(), pool: "local" },
    capacity: {
      cpuMillis: Math.floor((cores * 1000) / share),
      memoryBytes: Math.floor(totalmem() / share),
      diskBytes: Number.MAX_SAFE_INTEGER,
      gpu: 0,
      jobs: settings.ephemeral ? 1 : (settings.workerJobs ?? Math.max(4, cores * 2)),
    },
    maxWorkers: settings.maxWorkers,
    idleTimeoutMs: settings.workerIdleTimeoutMs,
    ephemeral: settings.ephemeral,
  };
}
