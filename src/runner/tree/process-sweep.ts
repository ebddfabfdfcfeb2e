/**
 * Process trees without cgroups. A process belongs to an attempt that
 *
 * - is in a session or process group of one that does, or descends from one,
 * - carries the attempt in its environment or in a resource limit (process-marks.ts),
 * - or was seen to belong to it before: the tree is looked at each second while it runs.
 *
 * Not found are: what another daemon starts for the job; a process that begins a new session and
 * forks again and again, faster than /proc can be read; and where there is no `prlimit`, one that
 * clears its environment, changes its session and loses its parent before it was ever seen. That is
 * why cgroups are preferred wherever they can be had.
 */

import type { Clock } from "../../base/clock.ts";
import { canSignal } from "../../base/process-identity.ts";
import {
  currentTick,
  describeProcesses,
  listProcesses,
  readProcess,
  type ListedProcess,
} from "./process-list.ts";
import { hasInEnvironment, limitMark, markOwnLimit } from "./process-marks.ts";
import { addSample, sampleProcesses } from "./process-sample.ts";
import {
  NO_TREE_USAGE,
  sendSignal,
  type ProcessTree,
  type ProcessTrees,
  type TreeUsage,
} from "./process-tree.ts";

/** How long to wait until everything that was sent SIGSTOP has stopped. */
const STOP_WAIT_MS = 2_000;
/** The same before a kill, which can be repeated. */
const KILL_STOP_WAIT_MS = 100;

export class SweptTrees implements ProcessTrees {
  readonly mode = "none";
  readonly pauseProblem = "";
  readonly #clock: Clock;

  constructor(options: { clock: Clock }) {
    this.#clock = options.clock;
  }

  create(attemptId: string): ProcessTree {
    return new SweptTree(attemptId, this.#clock);
  }

  async close(): Promise<boolean> {
    // Nothing was made outside of this process.
    return true;
  }
}

class SweptTree implements ProcessTree {
  readonly #clock: Clock;
  readonly #attemptId: string;
  readonly #environmentMark: string;
  readonly #hasLimitMark: (pid: number) => boolean;
  /** Processes older than the attempt cannot belong to it. */
  readonly #notBeforeTick = currentTick();
  /**
   * Those seen last, with their start, and where they were. The kernel gives no number to a new
   * process that is still the name of a session or group, so these name no stranger as long as one
   * of the tree is in them.
   */
  #known = new Map<number, number>();
  #sessions = new Set<number>();
  #groups = new Set<number>();
  /** Those that bear no mark, with their start: nobody gets one later. */
  #strangers = new Map<number, number>();
  /** Who had stopped by itself before the freeze, with its start; null while it is not frozen. */
  #stoppedBefore: Map<number, number> | null = null;
  #sampled: TreeUsage = NO_TREE_USAGE;

  constructor(attemptId: string, clock: Clock) {
    this.#attemptId = attemptId;
    this.#clock = clock;
    this.#environmentMark = `HODEI_ATTEMPT_ID=${attemptId}\0`;
    this.#hasLimitMark = limitMark([attemptId]);
  }

  enter<T>(fork: () => T): T {
    markOwnLimit(this.#attemptId);
    const started = fork();
    const pid = typeof started === "object" && started !== null && "pid" in started ? started.pid : undefined;
    // The runner starts each command in a session of its own.
    if (typeof pid === "number") this.#sessions.add(pid);
    return started;
  }

  members(): number[] {
    return this.#look().map(({ pid }) => pid);
  }

  signal(name: NodeJS.Signals): void {
    for (const pid of this.members()) sendSignal(pid, name);
  }

  async freeze(): Promise<string> {
    const moving = await this.#stopAll(STOP_WAIT_MS);
    if (moving.length === 0) return "";
    return `these processes cannot be stopped: ${describeProcesses(moving)}`;
  }

  /** Who had stopped by itself before the freeze stays so. */
  thaw(): void {
    const stoppedBefore = this.#stoppedBefore;
    this.#stoppedBefore = null;
    if (stoppedBefore === null) return;
    for (const { pid, stat } of this.#look()) {
      if (stoppedBefore.get(pid) !== stat.startTick) sendSignal(pid, "SIGCONT");
    }
  }

  /** Stopped first, nothing forks away from the list. */
  async killRound(): Promise<number[]> {
    // Whom the signal to the groups ends is gone before it can be counted. In empty ones is nobody to count.
    const met = this.#ownGroups().some((group) => canSignal(-group)) ? this.members() : [];
    // First, so that "nobody is there" is true: a list of processes may lack one that has just begun.
    this.#signalGroups("SIGKILL");
    if (this.#look().length === 0) return met;
    await this.#stopAll(KILL_STOP_WAIT_MS);
    const pids = this.members();
    for (const pid of pids) sendSignal(pid, "SIGKILL");
    this.#signalGroups("SIGKILL");
    return [...met, ...pids];
  }

  usage(): TreeUsage {
    return this.#sampled;
  }

  sample(): void {
    this.#sampled = addSample(this.#sampled, sampleProcesses(this.members()));
  }

  remove(): void {
    // There is nothing but the processes, and they are gone.
  }

  /** SIGSTOP to all until nobody moves, or until the tree is thawed. Returns who still moves. */
  async #stopAll(waitMs: number): Promise<number[]> {
    const endMs = this.#clock.monotonicMs() + waitMs;
    this.#stoppedBefore ??= starts(this.#look().filter(isStandingStill));
    for (;;) {
      if (this.#stoppedBefore === null) return [];
      this.#signalGroups("SIGSTOP");
      const moving = this.#look().filter((member) => !isStandingStill(member));
      for (const { pid } of moving) sendSignal(pid, "SIGSTOP");
      // In an uninterruptible wait it cannot run, nor will it before it has stopped.
      const running = moving.filter(({ stat }) => stat.state !== "D").map(({ pid }) => pid);
      if (moving.length === 0 || this.#clock.monotonicMs() >= endMs) return running;
      await this.#clock.sleep(1);
    }
  }

  /** The kernel signals a whole group at once: nothing in it forks away from that. */
  #signalGroups(name: NodeJS.Signals): void {
    for (const group of this.#ownGroups()) sendSignal(-group, name);
  }

  #ownGroups(): number[] {
    return [...new Set([...this.#groups, ...this.#sessions])].filter((group) => {
      const leader = readProcess(group);
      const isStranger = leader !== null && leader.session === ownSession;
      const isReused = leader !== null && this.#strangers.get(group) === leader.startTick;
      return !isStranger && !isReused;
    });
  }

  #look(): ListedProcess[] {
    const candidates = listProcesses(this.#notBeforeTick);
    const members = new Map<number, ListedProcess>();
    for (const candidate of candidates) if (this.#isMember(candidate)) members.set(candidate.pid, candidate);
    addDescendants(members, candidates);
    const found = [...members.values()];
    this.#known = starts(found);
    this.#strangers = starts(candidates.filter(({ pid }) => !members.has(pid)));
    this.#sessions = new Set(found.map(({ stat }) => stat.session));
    this.#groups = new Set(found.map(({ stat }) => stat.group));
    return found;
  }

  #isMember({ pid, stat }: ListedProcess): boolean {
    // The runner's own short-lived processes may bear the mark of an attempt; no job can get in here.
    if (stat.session === ownSession) return false;
    if (this.#known.get(pid) === stat.startTick) return true;
    if (this.#sessions.has(stat.session) || this.#groups.has(stat.group)) return true;
    // What costs a look into another file comes last.
    if (this.#strangers.get(pid) === stat.startTick) return false;
    return this.#hasLimitMark(pid) || hasInEnvironment(pid, this.#environmentMark);
  }
}

const ownSession = readProcess(process.pid)?.session;

function starts(processes: readonly ListedProcess[]): Map<number, number> {
  return new Map(processes.map(({ pid, stat }) => [pid, stat.startTick]));
}

/** Stopped by a signal or by a tracer. */
function isStandingStill({ stat }: ListedProcess): boolean {
  return stat.state === "T" || stat.state === "t";
}

function addDescendants(members: Map<number, ListedProcess>, candidates: readonly ListedProcess[]): void {
  for (let before = -1; before !== members.size;) {
    before = members.size;
    for (const candidate of candidates) {
      if (members.has(candidate.stat.parent)) members.set(candidate.pid, candidate);
    }
  }
}
