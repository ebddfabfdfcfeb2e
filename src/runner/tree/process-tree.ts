/**
 * All processes of one attempt, whatever they do to get away: fork, setsid, double fork.
 *
 * An implementation per mechanism of the kernel; `detectProcessTrees` picks the best one that
 * really works here. Files of cgroups and /proc are read and written synchronously on purpose: the
 * kernel answers from memory within microseconds, faster than a round through the thread pool.
 */

import type { Clock } from "../../base/clock.ts";

export interface TreeUsage {
  peakMemoryBytes: number;
  cpuMicros: number;
  ioReadBytes: number;
  ioWriteBytes: number;
  /** Processes that the kernel killed for want of memory. */
  oomKills: number;
}

export const NO_TREE_USAGE: TreeUsage = {
  peakMemoryBytes: 0,
  cpuMicros: 0,
  ioReadBytes: 0,
  ioWriteBytes: 0,
  oomKills: 0,
};

export interface ProcessTree {
  /**
   * Calls `fork` such that the process it starts, and all that come from it, belong to the tree
   * from their first instruction. Never call it while the tree is frozen.
   */
  enter<T>(fork: () => T): T;
  /** The process ids that are alive in the tree. */
  members(): number[];
  /** Sends a signal to every member. */
  signal(name: NodeJS.Signals): void;
  /**
   * Resolves when no member can run any more, also those that fork meanwhile: with "", or with why
   * that could not be had. A member inside of the kernel stops before it comes back from there.
   */
  freeze(): Promise<string>;
  thaw(): void;
  /** One round of SIGKILL, frozen or not. Resolves with whom it met; empty: nothing is left. */
  killRound(): Promise<number[]>;
  usage(): TreeUsage;
  /** Measures what can only be seen while processes live; cheap, called now and then. */
  sample(): void;
  /** Forgets the empty tree. */
  remove(): void;
}

export const CGROUP_MODES = ["v1", "v2", "none"] as const;
export type CgroupMode = (typeof CGROUP_MODES)[number];

/** Makes trees. One for a runner. */
export interface ProcessTrees {
  readonly mode: CgroupMode;
  /** Why its trees cannot be frozen; "" if they can. */
  readonly pauseProblem: string;
  create(attemptId: string): ProcessTree;
  /** Removes what it made; every tree must be empty. False if something could not be removed. */
  close(): Promise<boolean>;
}

/** How long processes may resist SIGKILL, in an uninterruptible wait of the kernel, unremarked. */
export const UNKILLABLE_AFTER_MS = 10_000;
const FIRST_PAUSE_MS = 1;
const MAX_PAUSE_MS = 50;

/** Kills until nothing is left or the limit has passed. Returns all pids met and those that stay. */
export async function killUntilEmpty(
  tree: Pick<ProcessTree, "killRound">,
  clock: Clock,
  limitMs = UNKILLABLE_AFTER_MS,
): Promise<{ met: Set<number>; left: number[] }> {
  const met = new Set<number>();
  const endMs = clock.monotonicMs() + limitMs;
  let pauseMs = FIRST_PAUSE_MS;
  for (;;) {
    const round = await tree.killRound();
    if (round.length === 0) return { met, left: [] };
    // What still forks must not get the time to grow.
    pauseMs = round.some((pid) => !met.has(pid)) ? FIRST_PAUSE_MS : Math.min(pauseMs * 2, MAX_PAUSE_MS);
    for (const pid of round) met.add(pid);
    if (clock.monotonicMs() >= endMs) return { met, left: round };
    await clock.sleep(pauseMs);
  }
}

/** Sends a signal; a process that has just ended is no error. */
export function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // ESRCH: it is gone. EPERM: it changed its user (setuid); the caller sees that it stays.
  }
}
