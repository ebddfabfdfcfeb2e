/**
 * Process trees where there are neither cgroups nor /proc, as on systems other than Linux: the
 * process groups that the runner itself started. What leaves its group is not found, and nothing
 * can be measured or paused.
 */

import { canSignal } from "../../base/process-identity.ts";
import {
  NO_TREE_USAGE,
  sendSignal,
  type ProcessTree,
  type ProcessTrees,
  type TreeUsage,
} from "./process-tree.ts";

const PAUSE_PROBLEM = "this worker has neither a freezer cgroup nor /proc, so nothing can be paused here";

export class GroupTrees implements ProcessTrees {
  readonly mode = "none";
  readonly pauseProblem = PAUSE_PROBLEM;

  create(): ProcessTree {
    return new GroupTree();
  }

  async close(): Promise<boolean> {
    // Nothing was made outside of this process.
    return true;
  }
}

class GroupTree implements ProcessTree {
  /** The leaders, each started in a session of its own. */
  readonly #groups = new Set<number>();

  enter<T>(fork: () => T): T {
    const started = fork();
    const pid = typeof started === "object" && started !== null && "pid" in started ? started.pid : undefined;
    if (typeof pid === "number") this.#groups.add(pid);
    return started;
  }

  members(): number[] {
    for (const group of this.#groups) if (!canSignal(-group)) this.#groups.delete(group);
    return [...this.#groups];
  }

  signal(name: NodeJS.Signals): void {
    for (const group of this.members()) sendSignal(-group, name);
  }

  async freeze(): Promise<string> {
    return PAUSE_PROBLEM;
  }

  thaw(): void {
    // It was never frozen.
  }

  async killRound(): Promise<number[]> {
    this.signal("SIGKILL");
    return this.members();
  }

  usage(): TreeUsage {
    return NO_TREE_USAGE;
  }

  sample(): void {
    // Nothing can be seen.
  }

  remove(): void {
    // There is nothing but the processes, and they are gone.
  }
}
