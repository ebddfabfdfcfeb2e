/** A worker's machine: its disk, its processes, and its way to the server. */

import { AppError } from "../src/base/errors.ts";
import type { WorkerSpec } from "../src/providers/provider.ts";
import type { Checker } from "./checker.ts";
import { logBytes } from "./log-pattern.ts";
import { SimAgent } from "./sim-agent.ts";
import type { SimLink } from "./sim-network.ts";
import { SimHost } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";
import { SimRunner } from "./sim-runner.ts";
import type { SimTree } from "./sim-tree.ts";
import type { VirtualTime } from "./virtual-time.ts";

export interface MachineConditions {
  maxSpawnMs: number;
  /** How often a fork hangs for a long while. */
  spawnHangRate: number;
  /** How long a runner or agent takes to start. */
  maxStartMs: number;
  spoolLimitBytes: number;
  offlineExitMs: number | null;
}

export interface MachineDependencies {
  time: VirtualTime;
  random: SimRandom;
  checker: Checker;
  link: SimLink;
  conditions: MachineConditions;
  onAgentExit(machine: SimMachine, code: number | null): void;
}

export class SimMachine {
  readonly name: string;
  readonly spec: WorkerSpec;
  readonly host: SimHost;
  readonly random: SimRandom;
  readonly checker: Checker;
  readonly link: SimLink;
  readonly conditions: MachineConditions;
  /** Processes of jobs, also those whose runner has died. */
  trees: SimTree[] = [];
  /** What the agent keeps on the disk. */
  session: { workerId: string; sessionToken: string } | null = null;
  agent: SimAgent | null = null;
  runner: SimRunner | null = null;
  isGone = false;
  /** How often its agent died in a row, for whoever starts it again. */
  restarts = 0;
  readonly #deps: MachineDependencies;
  readonly #spools = new Map<string, SpoolFile>();

  constructor(spec: WorkerSpec, deps: MachineDependencies) {
    this.spec = spec;
    this.name = spec.name;
    this.host = new SimHost(deps.time, spec.name);
    this.random = deps.random;
    this.checker = deps.checker;
    this.link = deps.link;
    this.conditions = deps.conditions;
    this.#deps = deps;
  }

  startAgent(): void {
    if (this.isGone) return;
    const agent = new SimAgent(this, (code) => this.#deps.onAgentExit(this, code));
    this.agent = agent;
    agent.process.onDeath(() => {
      if (this.agent === agent) this.agent = null;
    });
  }

  /** Begins to start a runner where none is; it can be connected to when it listens. */
  startRunner(): void {
    if (this.runner || this.isGone) return;
    const runner = new SimRunner(this);
    this.runner = runner;
    runner.process.onDeath(() => {
      if (this.runner === runner) this.runner = null;
    });
  }

  spool(attemptId: string): SpoolFile {
    const known = this.#spools.get(attemptId);
    if (known) return known;
    const spool = new SpoolFile(attemptId, this.checker);
    this.#spools.set(attemptId, spool);
    return spool;
  }

  readSpool(place: { attemptId: string; offset: number; maxBytes: number }): Uint8Array {
    const spool = this.#spools.get(place.attemptId);
    if (!spool) {
      throw new AppError("not_found", `read spool of attempt ${place.attemptId}: it was removed`);
    }
    return spool.read(place.offset, place.maxBytes);
  }

  removeSpool(attemptId: string): void {
    this.#spools.delete(attemptId);
    this.trees = this.trees.filter((tree) => tree.isAlive || tree.attemptId !== attemptId);
  }

  clearSpools(): void {
    this.#spools.clear();
  }

  /** The machine is gone with all that was on it. */
  vanish(): void {
    if (this.isGone) return;
    this.isGone = true;
    this.agent?.process.kill();
    this.runner?.process.kill();
    for (const tree of this.trees) if (tree.isAlive) tree.vanish();
  }
}

/** The log of one attempt on the worker's disk. */
export class SpoolFile {
  end = 0;
  acked = 0;
  readonly #attemptId: string;
  readonly #checker: Checker;
  #run = 0;

  constructor(attemptId: string, checker: Checker) {
    this.#attemptId = attemptId;
    this.#checker = checker;
  }

  append(bytes: number, run: number): void {
    this.#run = run;
    this.end += bytes;
    this.#checker.spoolGrew(this.#attemptId, { run, end: this.end });
  }

  /** The server has this much: it is let go of at once, which is the strictest. */
  acknowledge(bytes: number): void {
    const acked = Math.max(this.acked, Math.min(bytes, this.end));
    if (acked === this.acked) return;
    this.acked = acked;
    this.#checker.spoolLetGo(this.#attemptId, acked);
  }

  read(offset: number, maxBytes: number): Uint8Array {
    const length = Math.min(maxBytes, this.end - offset);
    if (offset < this.acked) this.#checker.spoolMissed(this.#attemptId, offset);
    if (offset < this.acked || length <= 0) {
      const what = `byte ${offset} is not there, only ${this.acked} to ${this.end}`;
      throw new AppError("data_loss", `read spool of attempt ${this.#attemptId}: ${what}`);
    }
    return logBytes({ attemptId: this.#attemptId, run: this.#run, offset, length });
  }
}
