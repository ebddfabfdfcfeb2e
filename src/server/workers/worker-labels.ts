/** The labels that selectors see of a worker: what it says of itself, and what the server knows. */

import type { WorkerInfo } from "../../core/worker.ts";

/** A worker cannot pass for one of another pool or provider: those two are the server's to say. */
export function workerLabels(
  { provider, pool }: { provider: string; pool: string },
  info: Pick<WorkerInfo, "labels">,
): Record<string, string> {
  return { ...info.labels, provider, ...(pool === "" ? {} : { pool }) };
}
