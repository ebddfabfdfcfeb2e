/**
 * Process trees by cgroups of version 1: `freezer` finds and stops every process, `cpuacct` and
 * `memory` measure where they are there (kernel: admin-guide/cgroup-v1).
 */

import { mkdirSync } from "node:fs";
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
  withSubdirectories,
  writeCgroupFile,
  type CgroupHome,
} from "./cgroup-files.ts";
import { sendSignal, type ProcessTree, type ProcessTrees, type TreeUsage } from "./process-tree.ts";

export const V1_CONTROLLERS = ["freezer", "cpuacct", "memory"] as const;
type Controller = (typeof V1_CONTROLLERS)[number];

/** How long to wait for FROZEN: a process in a long system call freezes when that ends. */
const FREEZE_WAIT_MS = 2_000;
/** The same before a kill, which can be repeated. */
const KILL_FREEZE_WAIT_MS = 100;

interface Hierarchy {
  controller: Controller;
  home: CgroupHome;
  /** Of this runner, below `home`. */
  directory: string;
}

export class CgroupV1Trees implements ProcessTrees {
  readonly mode = "v1";
  readonly pauseProblem = "";
  readonly #hierarchies: Hierarchy[];
  readonly #clock: Clock;
  readonly #removals = new Set<Promise<unknown>>();

  /** @throws if the freezer hierarchy cannot be written. */
  constructor(options: { name: string; mounts: ReadonlyMap<string, string>; clock: Clock }) {
    this.#clock = options.clock;
    this.#hierarchies = V1_CONTROLLERS.flatMap((controller) => {
      const path = options.mounts.get(controller);
      if (path === undefined) return [];
      try {
        return [openHierarchy(controller, path, options.name)];
      } catch (error) {
        if (controller === "freezer") throw error;
        // Without a measuring controller the tree still works; its figures are 0.
        return [];
      }
    });
    if (this.#hierarchies[0]?.controller !== "freezer") throw new Error("no freezer hierarchy is mounted");
  }

  create(attemptId: string): ProcessTree {
    const places = this.#hierarchies.map(({ controller, home, directory }) => {
      const own = join(directory, attemptId);
      mkdirSync(own, { recursive: true });
      return { controller, home, directory: own };
    });
    return new CgroupV1Tree(places, {
      clock: this.#clock,
      removed: (directory) => this.#removeSoon(directory),
    });
  }

  async close(): Promise<boolean> {
    await Promise.all(this.#removals);
    const hierarchies = this.#hierarchies.splice(0);
    const removed = await Promise.all(
      hierarchies.map(({ directory }) => removeCgroupSoon(directory, this.#clock)),
    );
    for (const { home } of hierarchies) closeCgroupHome(home);
    return !removed.includes(false);
  }

  #removeSoon(directory: string): void {
    const removal: Promise<unknown> = removeCgroupSoon(directory, this.#clock).finally(() =>
      this.#removals.delete(removal),
    );
    this.#removals.add(removal);
  }
}

function openHierarchy(controller: Controller, path: string, name: string): Hierarchy {
  const directory = join(path, name);
  mkdirSync(directory, { recursive: true });
  const home = openCgroupHome(path, "tasks");
  try {
    // The proof that entering works: in, and out again.
    forkInside([{ home, directory }], () => null);
  } catch (error) {
    closeCgroupHome(home);
    throw error;
  }
  return { controller, home, directory };
}

class CgroupV1Tree implements ProcessTree {
  readonly #places: (Hierarchy & { directory: string })[];
  readonly #freezer: string;
  readonly #context: { clock: Clock; removed: (directory: string) => void };

  constructor(places: Hierarchy[], context: { clock: Clock; removed: (directory: string) => void }) {
    this.#places = places;
    this.#freezer = this.#directory("freezer") ?? "";
    this.#context = context;
  }

  enter<T>(fork: () => T): T {
    return forkInside(this.#places, fork);
  }

  members(): number[] {
    return readCgroupPids(this.#freezer);
  }

  signal(name: NodeJS.Signals): void {
    for (const pid of this.members()) sendSignal(pid, name);
  }

  async freeze(): Promise<string> {
    await writeFrozen(this.#freezer, this.#context.clock, FREEZE_WAIT_MS);
    return "";
  }

  thaw(): void {
    writeFreezerState(this.#freezer, "THAWED");
  }

  async killRound(): Promise<number[]> {
    return await killInFreezer(this.#freezer, this.#context.clock);
  }

  usage(): TreeUsage {
    const memory = this.#directory("memory");
    const cpuacct = this.#directory("cpuacct");
    return {
      peakMemoryBytes: memory ? readNumber(join(memory, "memory.max_usage_in_bytes")) : 0,
      oomKills: memory ? readKeyed(join(memory, "memory.oom_control"), "oom_kill") : 0,
      cpuMicros: cpuacct ? Math.round(readNumber(join(cpuacct, "cpuacct.usage")) / 1000) : 0,
      // The accounting of version 1 leaves out what is written through the page cache.
      ioReadBytes: 0,
      ioWriteBytes: 0,
    };
  }

  sample(): void {
    // Everything is counted by the kernel.
  }

  remove(): void {
    for (const { directory } of this.#places) this.#context.removed(directory);
  }

  #directory(controller: Controller): string | null {
    return this.#places.find((place) => place.controller === controller)?.directory ?? null;
  }
}

/**
 * One round of SIGKILL for a freezer cgroup and those below it. Freezes first, so that nothing forks
 * away between the reading of the list and the kill. The signals are delivered at the thaw.
 */
export async function killInFreezer(freezer: string, clock: Clock): Promise<number[]> {
  if (readCgroupPids(freezer).length === 0) return [];
  await writeFrozen(freezer, clock, KILL_FREEZE_WAIT_MS);
  const pids = readCgroupPids(freezer);
  for (const pid of pids) sendSignal(pid, "SIGKILL");
  for (const directory of withSubdirectories(freezer)) writeFreezerState(directory, "THAWED");
  return pids;
}

/** Processes that fork on their way are born frozen. */
async function writeFrozen(freezer: string, clock: Clock, waitMs: number): Promise<void> {
  writeFreezerState(freezer, "FROZEN");
  const endMs = clock.monotonicMs() + waitMs;
  const isFrozen = (): boolean => readOrEmpty(join(freezer, "freezer.state")).startsWith("FROZEN");
  while (!isFrozen() && clock.monotonicMs() < endMs) await clock.sleep(1);
}

/** A cgroup that is gone holds nobody. */
function writeFreezerState(freezer: string, state: "FROZEN" | "THAWED"): void {
  writeCgroupFile(join(freezer, "freezer.state"), state);
}
