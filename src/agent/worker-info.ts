/** What an agent says of its machine. */

import { statfs } from "node:fs/promises";
import { arch, availableParallelism, hostname, networkInterfaces, platform, totalmem } from "node:os";
import { AppError } from "../base/errors.ts";
import type { WorkerInfo } from "../core/worker.ts";

export async function describeWorker(options: {
  workerId: string;
  name: string | null;
  version: string;
  directory: string;
  jobs: number;
  /** Null: all of the machine. */
  cpuMillis: number | null;
  memoryBytes: number | null;
  labels: string;
  capabilities: readonly string[];
}): Promise<WorkerInfo> {
  const disk = await statfs(options.directory);
  return {
    workerId: options.workerId,
    name: options.name ?? hostname(),
    version: options.version,
    hostname: hostname(),
    ipAddress: firstAddress(),
    capacity: {
      cpuMillis: options.cpuMillis ?? availableParallelism() * 1000,
      memoryBytes: options.memoryBytes ?? totalmem(),
      diskBytes: disk.bavail * disk.bsize,
      gpu: 0,
      jobs: options.jobs,
    },
    capabilities: [...options.capabilities],
    labels: { os: platform(), arch: arch(), hostname: hostname(), ...parseLabels(options.labels) },
    taints: [],
  };
}

/** `a=b,c=d`; spaces around the parts are allowed. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const part of text.split(",").map((piece) => piece.trim())) {
    if (part === "") continue;
    const [, key, value] = /^([^=]+)=(.*)$/.exec(part) ?? [];
    if (key === undefined || value === undefined) {
      throw new AppError("invalid_argument", `labels: ${JSON.stringify(part)} is not of the form key=value`);
    }
    labels[key] = value;
  }
  return labels;
}

function firstAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find((address) => !address.internal && address.family === "IPv4")?.address ?? "127.0.0.1";
}
