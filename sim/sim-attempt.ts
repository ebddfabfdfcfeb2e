/**
 * One attempt in the model of the runner: the phases, endings and timers of src/runner/attempt.ts
 * over processes and a spool that are simulated.
 */

import type { Clock } from "../src/base/clock.ts";
import type { AttemptResult, Progress } from "../src/core/job.ts";
import { attemptLeaseMs, workerGivesUpAtMs } from "../src/core/lease.ts";
import type { AgentToRunner, RunnerAttempt, RunnerToAgent } from "../src/core/runner-link.ts";
import type { AttemptPhase, ControlAction } from "../src/core/worker.ts";
import { makeResult, type Ending } from "../src/runner/attempt-result.ts";
import { PausableTimer } from "../src/runner/pausable-timer.ts";
import type { SequenceEnd } from "../src/runner/step-sequence.ts";
import { NO_TREE_USAGE, UNKILLABLE_AFTER_MS, killUntilEmpty } from "../src/runner/tree/process-tree.ts";
import { parseScript } from "./job-script.ts";
import type { SpoolFile } from "./sim-machine.ts";
import { SimTree, type TreeExit } from "./sim-tree.ts";

export type AttemptOrder = Omit<Extract<AgentToRunner, { type: "run" }>, "type">;

/** What a runner gives its attempts. */
export interface AttemptHost {
  clock: Clock;
  bootNowMs(): number;
  renewedAtMs(): number | null;
  /** How long it takes to fork. */
  spawnMs(): number;
  /** Unacknowledged log of one attempt on disk. */
  spoolLimitBytes: number;
  /** Runs `run` in the runner's process. */
  deliver(run: () => void): void;
  send(message: RunnerToAgent): void;
  startTree(order: AttemptOrder, listener: { onOutput(): void; onExit(exit: TreeExit): void }): SimTree;
  spool(attemptId: string): SpoolFile;
}

const PROGRESS_WATCH_MS = 1_000;
const MAX_GRACE_POLL_MS = 50;
const STUCK_RETRY_MS = 1_000;

export class SimAttempt {
  readonly order: AttemptOrder;
  readonly finished: Promise<void>;
  readonly #host: AttemptHost;
  readonly #spool: SpoolFile;
  #phase: AttemptPhase = "accepted";
  #startedAtMs: number | null = null;
  #progress: Progress | null = null;
  #result: AttemptResult | null = null;
  #leaseFromMs: number;
  #tree: SimTree | null = null;
  #ending: Ending | null = null;
  #graceEndsAtMs = Number.POSITIVE_INFINITY;
  #termination: Promise<void> | null = null;
  #isStuck = false;
  readonly #timers = new Set<PausableTimer>();
  #callOffWatch: () => void = () => {};

  constructor(order: AttemptOrder, host: AttemptHost) {
    this.order = order;
    this.#host = host;
    this.#spool = host.spool(order.attemptId);
    this.#leaseFromMs = Math.max(
      host.renewedAtMs() ?? Number.NEGATIVE_INFINITY,
      Math.min(order.leaseFromMs, host.bootNowMs()),
    );
    this.finished = this.#live();
  }

  get isFinished(): boolean {
    return this.#phase === "finished";
  }

  snapshot(): RunnerAttempt {
    return {
      attemptId: this.order.attemptId,
      jobId: this.order.jobId,
      phase: this.#phase,
      startedAtMs: this.#startedAtMs,
      logEnd: this.#spool.end,
      progress: this.#progress,
      result: this.#result,
    };
  }

  announce(): void {
    const { attemptId } = this.order;
    this.#host.send({ type: "accepted", attemptId });
    if (this.#result !== null) {
      this.#host.send({ type: "result", attemptId, result: this.#result });
      return;
    }
    if (this.#startedAtMs === null) return;
    this.#host.send({ type: "started", attemptId, startedAtMs: this.#startedAtMs });
    this.#host.send({ type: "phase", attemptId, phase: this.#phase });
  }

  control(action: ControlAction): string {
    switch (action) {
      case "cancel":
        this.#end({ kind: "cancelled", message: "cancelled" }, this.order.definition.graceMs);
        return "";
      case "kill":
        this.#end({ kind: "cancelled", message: "killed: the attempt is not wanted any more" }, 0);
        return "";
      case "pause":
        return this.#pause();
      case "resume":
        return this.#resume();
    }
  }

  acknowledgeLog(bytes: number): void {
    this.#spool.acknowledge(bytes);
    if (!this.#isSpoolFull) this.#read();
  }

  renewLease(renewedAtMs: number): void {
    this.#leaseFromMs = Math.max(this.#leaseFromMs, renewedAtMs);
  }

  get leaseEndsAtMs(): number | null {
    return this.isFinished
      ? null
      : workerGivesUpAtMs(this.#leaseFromMs, attemptLeaseMs(this.order.definition));
  }

  loseLease(): void {
    this.#end({ kind: "lease_lost", message: "the lease was not renewed" }, 0);
  }

  get #isSpoolFull(): boolean {
    return this.#spool.end - this.#spool.acked > this.#host.spoolLimitBytes;
  }

  /** Takes what is in the pipe, unless the spool is full: then the job waits. */
  #read(): void {
    const tree = this.#tree;
    if (tree === null || this.#isSpoolFull || tree.pipeBytes === 0) return;
    this.#append(tree);
  }

  #append(tree: SimTree): void {
    this.#spool.append(tree.drain(), tree.run);
    this.#host.send({ type: "log", attemptId: this.order.attemptId, logEnd: this.#spool.end });
    if (!tree.script.saysProgress) return;
    const percent = Math.min(100, Math.round((100 * this.#spool.end) / Math.max(1, tree.writtenBytes)));
    this.#progress = { percent, message: `${this.#spool.end} bytes` };
  }

  async #live(): Promise<void> {
    const sequence = await this.#runCommand();
    const ending = this.#ending;
    this.#callOffWatch();
    for (const timer of this.#timers) timer.cancel();
    await this.#termination;
    await this.#killAll();
    // Once the processes are gone there is a bounded rest, which is taken whatever the limit.
    if (this.#tree !== null && this.#tree.pipeBytes > 0) this.#append(this.#tree);
    this.#result = makeResult({
      sequence,
      ending,
      files: { outputs: {}, summary: "", progress: null, problems: [] },
      usage: NO_TREE_USAGE,
      leftovers: 0,
      lostLogBytes: 0,
      startedAtMs: this.#startedAtMs,
      finishedAtMs: this.#host.clock.nowMs(),
      logEnd: this.#spool.end,
    });
    this.#phase = "finished";
    this.#host.send({ type: "result", attemptId: this.order.attemptId, result: this.#result });
  }

  async #runCommand(): Promise<SequenceEnd> {
    await this.#host.clock.sleep(this.#host.spawnMs());
    if (this.#ending !== null) return { steps: [], failure: null, lastExit: null };
    let exited: (exit: TreeExit) => void = () => {};
    const exit = new Promise<TreeExit>((resolve) => (exited = resolve));
    this.#tree = this.#host.startTree(this.order, {
      onOutput: () => this.#host.deliver(() => this.#read()),
      onExit: (end) => this.#host.deliver(() => exited(end)),
    });
    this.#started();
    const end = await exit;
    const lastExit = { exitCode: end.exitCode, signal: end.signal };
    if (end.exitCode === 0) return { steps: [], failure: null, lastExit };
    const cause = end.signal === null ? ("exit_code" as const) : ("signal" as const);
    const message = end.signal === null ? `exit code ${end.exitCode}` : `signal ${end.signal}`;
    return { steps: [], failure: { state: "failed", cause, ...lastExit, message }, lastExit };
  }

  #started(): void {
    this.#startedAtMs = this.#host.clock.nowMs();
    this.#phase = "running";
    this.#host.send({ type: "started", attemptId: this.order.attemptId, startedAtMs: this.#startedAtMs });
    const { timeoutMs, graceMs } = this.order.definition;
    this.#timers.add(
      new PausableTimer(this.#host.clock, {
        durationMs: timeoutMs,
        run: () =>
          this.#end({ kind: "timed_out", message: `timed out after ${timeoutMs / 1000} s` }, graceMs),
      }),
    );
    if (parseScriptOf(this.order).saysProgress) this.#watch(this.#progress);
  }

  #watch(told: Progress | null): void {
    this.#callOffWatch = this.#host.clock.schedule(PROGRESS_WATCH_MS, () => {
      const progress = this.#progress;
      if (progress !== null && progress.message !== told?.message) {
        this.#host.send({ type: "progress", attemptId: this.order.attemptId, progress });
      }
      if (!this.isFinished && this.#ending === null) this.#watch(progress);
    });
  }

  #end(ending: Ending, graceMs: number): void {
    if (this.isFinished) return;
    this.#ending ??= ending;
    void this.#terminate(graceMs);
  }

  /** SIGTERM to all, grace, SIGKILL until nothing is left. A second call can only shorten it. */
  #terminate(graceMs: number): Promise<void> {
    this.#graceEndsAtMs = Math.min(this.#graceEndsAtMs, this.#host.clock.monotonicMs() + graceMs);
    this.#termination ??= this.#runTermination().finally(() => {
      this.#termination = null;
      this.#graceEndsAtMs = Number.POSITIVE_INFINITY;
    });
    return this.#termination;
  }

  async #runTermination(): Promise<void> {
    const { clock } = this.#host;
    const tree = this.#tree;
    if (tree === null) return;
    if (this.#graceEndsAtMs > clock.monotonicMs()) {
      tree.terminate();
      this.#thaw();
    }
    let pollMs = 2;
    while (clock.monotonicMs() < this.#graceEndsAtMs) {
      if (tree.members().length === 0) return;
      await clock.sleep(Math.min(pollMs, this.#graceEndsAtMs - clock.monotonicMs()));
      pollMs = Math.min(pollMs * 2, MAX_GRACE_POLL_MS * 8);
    }
    await this.#killAll();
    this.#thaw();
  }

  /** Resolves when nothing is left, however long that takes. */
  async #killAll(): Promise<void> {
    if (this.#tree === null) return;
    const { clock } = this.#host;
    for (let limitMs = UNKILLABLE_AFTER_MS; ; limitMs = 0) {
      const { left } = await killUntilEmpty(this.#tree, clock, limitMs);
      if (left.length === 0) return;
      if (!this.#isStuck) this.#host.send({ type: "broken", message: "processes cannot be killed" });
      this.#isStuck = true;
      await clock.sleep(STUCK_RETRY_MS);
    }
  }

  #pause(): string {
    if (this.#phase === "paused") return "";
    if (this.#phase !== "running" || this.#tree === null) return `it is ${this.#phase}, not running`;
    if (this.#ending !== null) return "it is being ended";
    this.#phase = "paused";
    for (const timer of this.#timers) timer.pause();
    this.#tree.freeze();
    this.#host.send({ type: "phase", attemptId: this.order.attemptId, phase: this.#phase });
    return "";
  }

  #resume(): string {
    if (this.#phase === "running") return "";
    if (this.#phase !== "paused") return `it is ${this.#phase}, not paused`;
    this.#thaw();
    this.#host.send({ type: "phase", attemptId: this.order.attemptId, phase: this.#phase });
    return "";
  }

  #thaw(): void {
    if (this.#phase !== "paused") return;
    this.#tree?.thaw();
    this.#phase = "running";
    for (const timer of this.#timers) timer.resume();
  }
}

function parseScriptOf({ definition }: AttemptOrder): ReturnType<typeof parseScript> {
  const { command } = definition;
  if (command?.kind !== "script") throw new Error("a simulated job has a script");
  return parseScript(command.content);
}
