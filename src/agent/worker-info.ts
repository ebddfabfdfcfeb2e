/** What an agent says of its machine. */

import { statfs } from "node:fs/promises";
import { arch, availableParallelism, hostname, networkInterfaces, platform, totalmem } from "node:os";
import { AppError } from "../base/errors.ts";
import { labelKeyProblem, labelValueProblem, TAINT_EFFECTS, type Taint } from "../core/labels.ts";
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
  /** Null: what is free. */
  diskBytes: number | null;
  gpu: number;
  labels: string;
  taints: string;
  capabilities: readonly string[];
}): Promise<WorkerInfo> {
  return {
    workerId: options.workerId,
    name: options.name ?? hostname(),
    version: options.version,
    hostname: hostname(),
    ipAddress: firstAddress(),
    capacity: {
      cpuMillis: options.cpuMillis ?? availableParallelism() * 1000,
      memoryBytes: options.memoryBytes ?? totalmem(),
      diskBytes: options.diskBytes ?? (await freeDiskBytes(options.directory)),
      gpu: options.gpu,
      jobs: options.jobs,
    },
    capabilities: [...options.capabilities],
    labels: { os: platform(), arch: arch(), hostname: hostname(), ...parseLabels(options.labels) },
    taints: parseTaints(options.taints),
  };
}

async function freeDiskBytes(directory: string): Promise<number> {
  const disk = await statfs(directory);
  return disk.bavail * disk.bsize;
}

/** `a=b,c=d`; spaces around the parts are allowed. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const part of partsOf(text)) {
    const [, key, value] = /^([^=]+)=(.*)$/.exec(part) ?? [];
    if (key === undefined || value === undefined) {
      throw new AppError("invalid_argument", `labels: ${JSON.stringify(part)} is not of the form key=value`);
    }
    const problem = labelKeyProblem(key) ?? labelValueProblem(value);
    if (problem !== null) throw new AppError("invalid_argument", `labels: ${problem}`);
    labels[key] = value;
  }
  return labels;
}

/** `gpu=a100:NoSchedule,shared:PreferNoSchedule`: as `formatTaint` of core writes them. */
export function parseTaints(text: string): Taint[] {
  return partsOf(text).map((part) => {
    const [, key = "", value = "", effectText] = /^([^=:]+)(?:=(.*))?:([A-Za-z]+)$/.exec(part) ?? [];
    const effect = TAINT_EFFECTS.find((known) => known === effectText);
    if (effect === undefined) {
      throw new AppError(
        "invalid_argument",
        `taints: ${JSON.stringify(part)} is not of the form key=value:Effect or key:Effect, with one of ${TAINT_EFFECTS.join(", ")}`,
      );
    }
    const problem = labelKeyProblem(key) ?? labelValueProblem(value);
    if (problem !== null) throw new AppError("invalid_argument", `taints: ${problem}`);
    return { key, value, effect };
  });
}

function partsOf(list: string): string[] {
  return list
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function firstAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find((address) => !address.internal && address.family === "IPv4")?.address ?? "127.0.0.1";
}
