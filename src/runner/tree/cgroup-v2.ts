/**
 * Process trees by cgroups of version 2: freeze and kill by file, measured by `cpu.stat`,
 * `memory.peak` and `io.stat` where the controllers can be had (kernel: admin-guide/cgroup-v2).
 */

import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import {
  closeCgroupHome,
  forkInside,
  openCgroupHome,
  readCgroupPids,
  readKeyed,
  readNumber,
  readOrEmpty,
  removeCgroupSoon,
  writeCgroupFile,
  type CgroupHome,
} from "./cgroup-files.ts";
import { addSample, sampleProcesses } from "./process-sample.ts";
import {
  NO_TREE_USAGE,
  sendSignal,
  type ProcessTree,
  type ProcessTrees,
  type TreeUsage,
} from "./process-tree.ts";

/** How long to wait until everything is frozen. */
const FREEZE_WAIT_MS = 2_000;
/** The same before a kill, which can be repeated. */
const KILL_FREEZE_WAIT_MS = 100;

/**
 * Whether memory can be measured in this hierarchy. Where both versions are mounted a controller
 * belongs to one of them, and what nobody uses, such as hugetlb, may stand in version 2 alone.
 */
export function measuresMemoryInV2(path: string): boolean {
  return readOrEmpty(join(path, "cgroup.controllers")).trim().split(" ").includes("memory");
}

export class CgroupV2Trees implements ProcessTrees {
  readonly mode = "v2";
  readonly pauseProblem = "";
  readonly #home: CgroupHome;
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #removals = new Set<Promise<unknown>>();

  /** @throws if a cgroup cannot be made and entered here. */
  constructor(options: { name: string; path: string; clock: Clock }) {
    this.#clock = options.clock;
    this.#directory = join(options.path, options.name);
    mkdirSync(this.#directory, { recursive: true });
    this.#home = openCgroupHome(options.path, "cgroup.procs");
    try {
      forkInside([{ home: this.#home, directory: this.#directory }], () => null);
      if (!existsSync(join(this.#directory, "cgroup.freeze")))
        throw new Error("this kernel cannot freeze cgroups");
    } catch (error) {
      closeCgroupHome(this.#home);
      throw error;
    }
    handOnControllers(options.path);
    handOnControllers(this.#directory);
  }

  create(attemptId: string): ProcessTree {
    const directory = join(this.#directory, attemptId);
    mkdirSync(directory, { recursive: true });
    return new CgroupV2Tree({
      directory,
      home: this.#home,
      clock: this.#clock,
      removed: () => this.#removeSoon(directory),
    });
  }

  async close(): Promise<boolean> {
    await Promise.all(this.#removals);
    const isRemoved = await removeCgroupSoon(this.#directory, this.#clock);
    closeCgroupHome(this.#home);
    return isRemoved;
  }

  #removeSoon(directory: string): void {
    const removal: Promise<unknown> = removeCgroupSoon(directory, this.#clock).finally(() =>
      this.#removals.delete(removal),
    );
    this.#removals.add(removal);
  }
}

/**
 * Best effort, one by one: a cgroup that holds processes, as our own does unless it is the root of
 * the hierarchy, may not hand controllers on. Then memory is sampled instead of counted.
 */
function handOnControllers(path: string): void {
  for (const controller of readOrEmpty(join(path, "cgroup.controllers")).trim().split(" ")) {
    if (!["memory", "io", "cpu", "pids"].includes(controller)) continue;
    try {
      writeCgroupFile(join(path, "cgroup.subtree_control"), `+${controller}`);
    } catch {
      // See above: the figures of this controller will be sampled or 0.
    }
  }
}

class CgroupV2Tree implements ProcessTree {
  readonly #options: { directory: string; home: CgroupHome; clock: Clock; removed: () => void };
  #sampled: TreeUsage = NO_TREE_USAGE;

  constructor(options: { directory: string; home: CgroupHome; clock: Clock; removed: () => void }) {
    this.#options = options;
  }

  enter<T>(fork: () => T): T {
    return forkInside([this.#options], fork);
  }

  members(): number[] {
    return readCgroupPids(this.#options.directory);
  }

  signal(name: NodeJS.Signals): void {
    for (const pid of this.members()) sendSignal(pid, name);
  }

  async freeze(): Promise<string> {
    const { clock, directory } = this.#options;
    await writeFrozen(directory, clock, FREEZE_WAIT_MS);
    return "";
  }

  thaw(): void {
    writeCgroupFile(join(this.#options.directory, "cgroup.freeze"), "0");
  }

  async killRound(): Promise<number[]> {
    return await killInCgroup(this.#options.directory, this.#options.clock);
  }

  usage(): TreeUsage {
    const { directory } = this.#options;
    const io = parseIoStat(readOrEmpty(join(directory, "io.stat")));
    return {
      peakMemoryBytes: readNumber(join(directory, "memory.peak")) || this.#sampled.peakMemoryBytes,
      cpuMicros: readKeyed(join(directory, "cpu.stat"), "usage_usec"),
      ioReadBytes: io.read || this.#sampled.ioReadBytes,
      ioWriteBytes: io.write || this.#sampled.ioWriteBytes,
      oomKills: readKeyed(join(directory, "memory.events"), "oom_kill"),
    };
  }

  sample(): void {
    if (existsSync(join(this.#options.directory, "memory.peak"))) return;
    this.#sampled = addSample(this.#sampled, sampleProcesses(this.members()));
  }

  remove(): void {
    this.#options.removed();
  }
}

/** One round of SIGKILL for a cgroup and those below it, frozen or not. */
export async function killInCgroup(directory: string, clock: Clock): Promise<number[]> {
  const pids = readCgroupPids(directory);
  if (pids.length === 0) return pids;
  const killPath = join(directory, "cgroup.kill");
  if (existsSync(killPath)) {
    writeCgroupFile(killPath, "1");
    return pids;
  }
  // Kernels before 5.14: frozen first, nothing forks away from the list. A frozen process can die.
  await writeFrozen(directory, clock, KILL_FREEZE_WAIT_MS);
  const all = readCgroupPids(directory);
  for (const pid of all) sendSignal(pid, "SIGKILL");
  return all;
}

/** Processes that fork on their way are born frozen. */
async function writeFrozen(directory: string, clock: Clock, waitMs: number): Promise<void> {
  writeCgroupFile(join(directory, "cgroup.freeze"), "1");
  const endMs = clock.monotonicMs() + waitMs;
  const isFrozen = (): boolean => readKeyed(join(directory, "cgroup.events"), "frozen") === 1;
  while (!isFrozen() && clock.monotonicMs() < endMs) await clock.sleep(1);
}

/** Sums the lines `8:0 rbytes=1 wbytes=2 …` over all devices. */
function parseIoStat(text: string): { read: number; write: number } {
  const sum = (key: string) =>
    [...text.matchAll(new RegExp(`\\b${key}=(\\d+)`, "g"))].reduce(
      (total, match) => total + Number(match[1]),
      0,
    );
  return { read: sum("rbytes"), write: sum("wbytes") };
}
