/**
 * What the machine uses, measured every 35 s and kept: whoever asks gets the last figures at once,
 * so that asking never costs a job anything.
 */

import { readFile, statfs } from "node:fs/promises";
import { loadavg } from "node:os";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { Service } from "../base/service.ts";
import type { WorkerUsage } from "../core/worker.ts";

const REFRESH_MS = 35_000;
/** CPU use is a difference of two looks; the first result comes this long after the start. */
const FIRST_MS = 500;
const EVENT_LOOP_RESOLUTION_MS = 20;

export interface UsageMeterOptions {
  directory: string;
  clock: Clock;
  log: Logger;
  onMeasured: (usage: WorkerUsage) => void;
}

export class UsageMeter implements Service {
  readonly #options: UsageMeterOptions;
  readonly #delays = monitorEventLoopDelay({ resolution: EVENT_LOOP_RESOLUTION_MS });
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #latest: WorkerUsage | null = null;

  constructor(options: UsageMeterOptions) {
    this.#options = options;
    this.#delays.enable();
    this.#done = this.#measureForEver();
  }

  /** Null for the first half second. */
  get latest(): WorkerUsage | null {
    return this.#latest;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    this.#delays.disable();
    await this.#done;
  }

  async #measureForEver(): Promise<void> {
    const { clock, log, onMeasured } = this.#options;
    const { signal } = this.#abort;
    let before = await readCpu(clock);
    for (let waitMs = FIRST_MS; ; waitMs = REFRESH_MS) {
      await clock.sleep(waitMs, signal);
      if (signal.aborted) return;
      try {
        const now = await readCpu(clock);
        this.#latest = await this.#measure(before, now);
        before = now;
        onMeasured(this.#latest);
      } catch (error) {
        log.warn({ err: error }, "measuring of the machine failed");
      }
    }
  }

  async #measure(before: CpuReading, now: CpuReading): Promise<WorkerUsage> {
    const disk = await statfs(this.#options.directory);
    const elapsedMs = Math.max(1, now.atMs - before.atMs);
    const eventLoopDelayMaxMicros = Math.round(this.#delays.max / 1000);
    this.#delays.reset();
    return {
      cpuMillis: Math.max(0, Math.round(((now.busyMs - before.busyMs) / elapsedMs) * 1000)),
      memoryBytes: parseMemoryUse(await readFile("/proc/meminfo", "latin1").catch(() => "")),
      diskFreeBytes: disk.bavail * disk.bsize,
      loadMillis: Math.round((loadavg()[0] ?? 0) * 1000),
      measuredAtMs: this.#options.clock.nowMs(),
      eventLoopDelayMaxMicros,
    };
  }
}

interface CpuReading {
  atMs: number;
  busyMs: number;
}

async function readCpu(clock: Clock): Promise<CpuReading> {
  // Without /proc the use of the CPU is shown as 0; it is only shown.
  const text = await readFile("/proc/stat", "latin1").catch(() => "");
  return { atMs: clock.monotonicMs(), busyMs: parseCpuBusyMs(text) };
}

/** All but idle and iowait of the first line of /proc/stat, in ticks of 10 ms (proc_stat(5)). */
function parseCpuBusyMs(text: string): number {
  const fields = (/^cpu +(.*)$/m.exec(text)?.[1] ?? "").split(" ").map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields;
  return (user + nice + system + irq + softirq + steal) * 10;
}

/** What is in use and could not be given back: total less available, of /proc/meminfo. */
function parseMemoryUse(text: string): number {
  const kilobytes = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
  return Math.max(0, kilobytes("MemTotal") - kilobytes("MemAvailable")) * 1024;
}
