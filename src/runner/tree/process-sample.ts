/** What can be seen of living processes in /proc where no cgroup counts: best effort. */

import { readOrEmpty } from "./cgroup-files.ts";
import { readProcess } from "./process-list.ts";
import type { TreeUsage } from "./process-tree.ts";

/** Linux reports process times in ticks of 1/100 s to user space on every platform of Node.js. */
const MICROS_PER_TICK = 10_000;

/** Memory as the sum of each process's peak, CPU including children that were waited for. */
export function sampleProcesses(pids: readonly number[]): TreeUsage {
  const usage: TreeUsage = { peakMemoryBytes: 0, cpuMicros: 0, ioReadBytes: 0, ioWriteBytes: 0, oomKills: 0 };
  for (const pid of pids) {
    const peak = /^VmHWM:\s+(\d+) kB/m.exec(readOrEmpty(`/proc/${pid}/status`));
    usage.peakMemoryBytes += Number(peak?.[1] ?? 0) * 1024;
    const stat = readProcess(pid);
    usage.cpuMicros += (stat?.cpuTicks ?? 0) * MICROS_PER_TICK;
    const io = readOrEmpty(`/proc/${pid}/io`);
    usage.ioReadBytes += Number(/^read_bytes: (\d+)/m.exec(io)?.[1] ?? 0);
    usage.ioWriteBytes += Number(/^write_bytes: (\d+)/m.exec(io)?.[1] ?? 0);
  }
  return usage;
}

/** Every figure only grows in truth, so the largest one seen is the best known. */
export function addSample(known: TreeUsage, sample: TreeUsage): TreeUsage {
  return {
    peakMemoryBytes: Math.max(known.peakMemoryBytes, sample.peakMemoryBytes),
    cpuMicros: Math.max(known.cpuMicros, sample.cpuMicros),
    ioReadBytes: Math.max(known.ioReadBytes, sample.ioReadBytes),
    ioWriteBytes: Math.max(known.ioWriteBytes, sample.ioWriteBytes),
    oomKills: 0,
  };
}
