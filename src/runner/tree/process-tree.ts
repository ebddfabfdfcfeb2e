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
  /** Resolves when every member stands still, or after a bounded wait. */
  freeze(): Promise<void>;
  thaw(): void;
  /** One round of SIGKILL, frozen or not. Returns whom it met; empty: nothing is left. */
  killRound(): number[];
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
  create(attemptId: string): ProcessTree;
  /** Kills what an earlier runner of the same directory left running. Returns how many it met. */
  killStrays(): Promise<number>;
  /** Removes what it made. Every tree must be empty. */
  close(): Promise<void>;
}

/** How long processes may resist SIGKILL (in an uninterruptible wait of the kernel). */
export const UNKILLABLE_AFTER_MS = 30_000;

/** Kills until nothing is left or the limit has passed. Returns all pids met and those that stay. */
export async function killUntilEmpty(
  tree: Pick<ProcessTree, "killRound">,
  clock: Clock,
  limitMs = UNKILLABLE_AFTER_MS,
): Promise<{ met: number; left: number[] }> {
  const met = new Set<number>();
  const endMs = clock.monotonicMs() + limitMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const round = tree.killRound();
    for (const pid of round) met.add(pid);
    if (round.length === 0) return { met: met.size, left: [] };
    if (clock.monotonicMs() >= endMs) return { met: met.size, left: round };
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
