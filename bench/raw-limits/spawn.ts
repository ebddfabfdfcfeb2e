/** How fast this machine starts processes, whoever starts them. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { type BenchRow, callsPerSecond, durationMs, medianOf, percentile } from "../bench-row.ts";

export const spawnLatency: BenchRow = {
  name: "raw: spawn of bash to its first byte, p50",
  target: "",
  rawName: "bare Node",
  run: async () => ({ value: null, raw: await spawnLatencyMs(0.5), unit: "ms" }),
};

export const spawnRate: BenchRow = {
  name: "raw: no-op bash, 16 at a time",
  target: "",
  rawName: "bare Node loop",
  run: async () => ({ value: null, raw: await spawnsPerSecond({ atATime: 16 }), unit: "jobs/s" }),
};

/** From the call of spawn to the first byte that bash prints, one process at a time. */
export async function spawnLatencyMs(part: number): Promise<number> {
  const samples: number[] = [];
  for (let run = 0; run < 300; run += 1) {
    const child = spawn("bash", ["-c", "echo"], { stdio: ["ignore", "pipe", "ignore"], detached: true });
    const exited = once(child, "exit");
    samples.push(await durationMs(() => once(child.stdout, "data")));
    await exited;
  }
  return percentile(samples, part);
}

/** Processes that were started and ended in a second. */
export async function spawnsPerSecond(options: { atATime: number }): Promise<number> {
  const call = () =>
    once(spawn("bash", ["-c", ":"], { stdio: ["ignore", "pipe", "pipe"], detached: true }), "close");
  return medianOf(3, () => callsPerSecond({ callers: options.atATime, durationMs: 2_000, call }));
}
