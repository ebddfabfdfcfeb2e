/**
 * The processes of one attempt on their machine. They live on their own: a runner that dies does
 * not take them along, and the next one of the same machine finds them.
 */

import type { Checker } from "./checker.ts";
import type { JobScript } from "./job-script.ts";
import { SimProcess, type SimHost } from "./sim-process.ts";

export type TreeExit = { exitCode: number; signal: null } | { exitCode: null; signal: string };

/** Bytes that a pipe holds before its writer has to wait. */
const PIPE_BYTES = 65_536;

export interface TreeListener {
  /** There is something to read. */
  onOutput(): void;
  onExit(exit: TreeExit): void;
}

export class SimTree {
  readonly attemptId: string;
  readonly jobId: string;
  readonly machineName: string;
  readonly script: JobScript;
  /** 1 for the first command of this attempt anywhere. */
  readonly run: number;
  readonly startedAtMs: number;
  readonly #host: SimHost;
  readonly #process: SimProcess;
  readonly #checker: Checker;
  readonly #pid: number;
  #listener: TreeListener | null = null;
  #hasExited = false;
  /** Processes that the command left behind. */
  #hasLeftover = false;
  #isKilled = false;
  #stepsLeft: number;
  #isBlocked = false;
  /** Bytes in the pipe that nobody has read. */
  pipeBytes = 0;
  /** All bytes that were ever written. */
  writtenBytes = 0;

  constructor(
    host: SimHost,
    order: { attemptId: string; jobId: string; script: JobScript },
    deps: { checker: Checker; listener: TreeListener },
  ) {
    this.#host = host;
    this.attemptId = order.attemptId;
    this.jobId = order.jobId;
    this.script = order.script;
    this.machineName = host.name;
    this.#checker = deps.checker;
    this.#listener = deps.listener;
    this.#process = new SimProcess(host, `job ${order.attemptId}`);
    this.startedAtMs = host.time.nowMs;
    this.#stepsLeft = order.script.steps;
    this.#pid = this.#checker.nextPid();
    this.run = this.#checker.treeStarted(this);
    this.#next();
  }

  get isAlive(): boolean {
    return !this.#hasExited || this.#hasLeftover;
  }

  get isFrozen(): boolean {
    return this.#process.isStopped;
  }

  get isUnkillable(): boolean {
    return this.script.unkillableMs > 0;
  }

  /** Alive and able to take a step. */
  get isActive(): boolean {
    return this.isAlive && !this.isFrozen && !this.#host.isSuspended;
  }

  get resumedAtMs(): number {
    return this.#host.resumedAtMs;
  }

  /** The runner that listened is gone: what is written goes nowhere. */
  orphan(): void {
    this.#listener = null;
    this.#unblock();
  }

  /** The reader took what was in the pipe. */
  drain(): number {
    const bytes = this.pipeBytes;
    this.pipeBytes = 0;
    this.#unblock();
    return bytes;
  }

  members(): number[] {
    return this.isAlive ? [this.#pid] : [];
  }

  terminate(): void {
    if (this.script.ignoresTerm) return;
    this.#process.deliverAfter(this.script.termMs, () => this.#end({ exitCode: null, signal: "SIGTERM" }));
  }

  /** One round of SIGKILL; frozen processes die of it too. */
  async killRound(): Promise<number[]> {
    const met = this.members();
    if (met.length === 0 || this.#isKilled) return met;
    this.#isKilled = true;
    this.#process.kill();
    const { unkillableMs } = this.script;
    this.#host.time.schedule(unkillableMs > 0 ? unkillableMs : 0.05, () => {
      this.#hasLeftover = false;
      this.#end({ exitCode: null, signal: "SIGKILL" });
    });
    return met;
  }

  freeze(): void {
    this.#process.stop();
    this.#checker.treeFrozen(this, true);
  }

  thaw(): void {
    this.#process.proceed();
    this.#checker.treeFrozen(this, false);
  }

  /** The machine itself is gone, and all on it. */
  vanish(): void {
    this.#process.kill();
    this.#listener = null;
    this.#hasLeftover = false;
    this.#hasExited = true;
    this.#checker.treeEnded(this);
  }

  #next(): void {
    this.#process.deliverAfter(this.script.stepMs, () => {
      if (this.#hasExited) return;
      this.#stepsLeft -= 1;
      this.#write(this.script.bytesPerStep);
      if (this.#stepsLeft > 0) {
        if (!this.#isBlocked) this.#next();
        return;
      }
      this.#hasLeftover = this.script.leavesProcesses;
      this.#end({ exitCode: this.script.exitCode, signal: null });
    });
  }

  #write(bytes: number): void {
    if (bytes === 0) return;
    if (!this.#listener) return;
    this.pipeBytes += bytes;
    this.writtenBytes += bytes;
    this.#isBlocked = this.pipeBytes > PIPE_BYTES && this.#stepsLeft > 0;
    this.#listener.onOutput();
  }

  #unblock(): void {
    if (!this.#isBlocked) return;
    this.#isBlocked = false;
    if (!this.#hasExited) this.#next();
  }

  #end(exit: TreeExit): void {
    const wasFirst = !this.#hasExited;
    this.#hasExited = true;
    if (wasFirst) this.#checker.treeExited(this, exit);
    if (this.#hasLeftover) {
      if (wasFirst) this.#listener?.onExit(exit);
      return;
    }
    this.#process.kill();
    this.#checker.treeEnded(this);
    if (wasFirst) this.#listener?.onExit(exit);
  }
}
