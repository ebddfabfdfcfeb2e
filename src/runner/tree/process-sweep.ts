/**
 * Process trees without cgroups: whoever is in a session or process group of the attempt, descends
 * from it, or carries its id in the environment it was started with.
 *
 * A process that leaves the session, is orphaned and clears its environment is not found; that is
 * why cgroups are preferred wherever they can be had.
 */

import { readdirSync, readFileSync } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import { readOrEmpty } from "./cgroup-files.ts";
import { addSample, parseProcStat, sampleProcesses, type ProcStat } from "./process-sample.ts";
import {
  NO_TREE_USAGE,
  killUntilEmpty,
  sendSignal,
  type ProcessTree,
  type ProcessTrees,
  type TreeUsage,
} from "./process-tree.ts";

/** Rounds of SIGSTOP until no new process appears. */
const FREEZE_ROUNDS = 10;
const TICKS_PER_SECOND = 100;

export class SweptTrees implements ProcessTrees {
  readonly mode = "none";
  readonly #clock: Clock;
  readonly #attemptsDirectory: string;

  constructor(options: { attemptsDirectory: string; clock: Clock }) {
    this.#clock = options.clock;
    this.#attemptsDirectory = options.attemptsDirectory;
  }

  create(attemptId: string): ProcessTree {
    return new SweptTree(attemptId);
  }

  /** An earlier runner's processes are known by the workspace they were given. */
  async killStrays(): Promise<number> {
    const marker = `HODEI_WORKSPACE=${this.#attemptsDirectory}/`;
    const killRound = () => {
      const pids = listProcesses(0)
        .filter(({ pid }) => hasInEnvironment(pid, marker))
        .map(({ pid }) => pid);
      for (const pid of pids) sendSignal(pid, "SIGKILL");
      return pids;
    };
    const { met } = await killUntilEmpty({ killRound }, this.#clock);
    return met;
  }

  async close(): Promise<void> {
    // Nothing was made outside of this process.
  }
}

class SweptTree implements ProcessTree {
  readonly #marker: string;
  /** Processes older than the attempt cannot belong to it; one tick of slack for rounding. */
  readonly #notBeforeTick = Math.floor(readUptimeSeconds() * TICKS_PER_SECOND) - 2;
  /** The leaders of the sessions that the runner started for this attempt. */
  readonly #leaders = new Set<number>();
  #sampled: TreeUsage = NO_TREE_USAGE;

  constructor(attemptId: string) {
    this.#marker = `HODEI_ATTEMPT_ID=${attemptId}`;
  }

  enter<T>(fork: () => T): T {
    const started = fork();
    const pid = typeof started === "object" && started !== null && "pid" in started ? started.pid : undefined;
    if (typeof pid === "number") this.#leaders.add(pid);
    return started;
  }

  members(): number[] {
    const candidates = listProcesses(this.#notBeforeTick);
    const members = new Set<number>();
    for (const { pid, stat } of candidates) {
      const known = this.#leaders.has(stat.session) || this.#leaders.has(stat.group);
      if (known || hasInEnvironment(pid, this.#marker)) members.add(pid);
    }
    addDescendants(members, candidates);
    return [...members];
  }

  signal(name: NodeJS.Signals): void {
    for (const pid of this.members()) sendSignal(pid, name);
  }

  async freeze(): Promise<void> {
    const stopped = new Set<number>();
    for (let round = 0; round < FREEZE_ROUNDS; round++) {
      const fresh = this.members().filter((pid) => !stopped.has(pid));
      if (fresh.length === 0) return;
      for (const pid of fresh) {
        sendSignal(pid, "SIGSTOP");
        stopped.add(pid);
      }
    }
  }

  thaw(): void {
    this.signal("SIGCONT");
  }

  killRound(): number[] {
    const pids = this.members();
    for (const pid of pids) sendSignal(pid, "SIGKILL");
    return pids;
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
}

interface Listed {
  pid: number;
  stat: ProcStat;
}

/** Living processes that were started at or after a tick; zombies are dead already. */
function listProcesses(notBeforeTick: number): Listed[] {
  const listed: Listed[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const stat = parseProcStat(readOrEmpty(`/proc/${name}/stat`));
    if (stat === null || stat.startTick < notBeforeTick || stat.state === "Z" || stat.state === "X") continue;
    listed.push({ pid, stat });
  }
  return listed;
}

function addDescendants(members: Set<number>, candidates: readonly Listed[]): void {
  for (let before = -1; before !== members.size;) {
    before = members.size;
    for (const { pid, stat } of candidates) if (members.has(stat.parent)) members.add(pid);
  }
}

/** Whether a variable begins with `marker`; a marker that is a whole variable fits only itself. */
function hasInEnvironment(pid: number, marker: string): boolean {
  const text = readOrEmpty(`/proc/${pid}/environ`);
  return text.startsWith(marker) || text.includes(`\0${marker}`);
}

function readUptimeSeconds(): number {
  return Number.parseFloat(readFileSync("/proc/uptime", "latin1"));
}
