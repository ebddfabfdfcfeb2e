/**
 * One attempt on its worker, from the order to the result.
 *
 *     accepted ──▶ running ◀──▶ paused
 *         │           │            │
 *         └───────────┴────────────┴──▶ finished
 *
 * Cancel, kill, time-out and the end of the lease all end in the same way (`#end`): the first one
 * decides what the result says, a later one can only shorten the grace. `finished` is entered when
 * every process was seen to be gone, the whole log is on disk, and the result stands.
 */

import type { Clock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { AttemptResult, Progress } from "../core/job.ts";
import { attemptLeaseMs, workerGivesUpAtMs } from "../core/lease.ts";
import type { AttemptPhase, ControlAction } from "../core/worker.ts";
import type { AgentToRunner, RunnerAttempt, RunnerToAgent } from "../protocol/runner-link.ts";
import { spoolDirectory } from "../protocol/spool-layout.ts";
import { makeResult, sequenceEndOfError, type Ending } from "./attempt-result.ts";
import {
  attemptPaths,
  emptyScript,
  type AttemptDirectories,
  type AttemptPaths,
} from "./job/attempt-directory.ts";
import { jobEnvironment, type Environment } from "./job/job-environment.ts";
import { readJobFiles, readProgress } from "./job/job-files.ts";
import { AttemptLog } from "./log/attempt-log.ts";
import type { PipePool } from "./log/output-pipe.ts";
import { PausableTimer } from "./pausable-timer.ts";
import { runSequence, type SequenceEnd, type SequenceHost } from "./step-sequence.ts";
import { NO_TREE_USAGE, killUntilEmpty, type ProcessTree, type ProcessTrees } from "./tree/process-tree.ts";

export type AttemptOrder = Omit<Extract<AgentToRunner, { type: "run" }>, "type">;

/** What all attempts of a runner share. */
export interface AttemptContext {
  workerDirectory: string;
  clock: Clock;
  log: Logger;
  trees: ProcessTrees;
  pipes: PipePool;
  directories: AttemptDirectories;
  inherited: Environment;
  spoolLimitBytes: number;
  /** Counts the sleep of the machine, see boot-clock.ts. */
  bootNowMs: () => number;
  /** When the server last heard of this worker, on the same clock; null before the first time. */
  renewedAtMs: () => number | null;
  send: (message: RunnerToAgent) => void;
}

const NEXT_PHASES: { readonly [P in AttemptPhase]: readonly AttemptPhase[] } = {
  accepted: ["running", "finished"],
  running: ["paused", "finished"],
  paused: ["running", "finished"],
  finished: [],
};

/** The first look at the processes; later ones follow each second. */
const FIRST_WATCH_MS = 100;
const WATCH_MS = 1_000;
/** How often the grace period looks whether all processes have gone. */
const MAX_GRACE_POLL_MS = 50;

export class Attempt {
  readonly order: AttemptOrder;
  /** Resolves when the phase is `finished`. Never rejects. */
  readonly finished: Promise<void>;
  readonly #context: AttemptContext;
  readonly #paths: AttemptPaths;
  readonly #log: AttemptLog;
  #phase: AttemptPhase = "accepted";
  #startedAtMs: number | null = null;
  #progress: Progress | null = null;
  #result: AttemptResult | null = null;
  #leaseFromMs: number;

  #tree: ProcessTree | null = null;
  #ending: Ending | null = null;
  #graceEndsAtMs = Number.POSITIVE_INFINITY;
  #termination: Promise<void> | null = null;
  #unkillable: number[] = [];
  /** Whether it was seen that none of its processes is left. */
  #isVerified = false;
  #giveUp: () => void = () => {};
  readonly #givenUp = new Promise<null>((resolve) => (this.#giveUp = () => resolve(null)));
  #wakeResumed: () => void = () => {};
  readonly #timers = new Set<PausableTimer>();
  #callOffWatch: () => void = () => {};

  /** Begins at once. */
  constructor(order: AttemptOrder, context: AttemptContext) {
    this.order = order;
    this.#context = context;
    // An order that was long on its way must not get a longer lease than the server gives it.
    this.#leaseFromMs = Math.max(
      context.renewedAtMs() ?? Number.NEGATIVE_INFINITY,
      Math.min(order.leaseFromMs, context.bootNowMs()),
    );
    this.#paths = attemptPaths(context.workerDirectory, order.attemptId);
    this.#log = new AttemptLog({
      directory: spoolDirectory(context.workerDirectory, order.attemptId),
      limitBytes: context.spoolLimitBytes,
      pipes: context.pipes,
      clock: context.clock,
      log: context.log,
      tell: (logEnd) => context.send({ type: "log", attemptId: order.attemptId, logEnd }),
    });
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
      logEnd: this.#result?.logEnd ?? this.#log.end,
      progress: this.#progress,
      result: this.#result,
    };
  }

  /** Says again where it is, for an agent that seems not to know. */
  announce(): void {
    const { attemptId } = this.order;
    this.#context.send({ type: "accepted", attemptId });
    if (this.#result !== null) {
      this.#context.send({ type: "result", attemptId, result: this.#result });
      return;
    }
    if (this.#startedAtMs === null) return;
    this.#context.send({ type: "started", attemptId, startedAtMs: this.#startedAtMs });
    this.#context.send({ type: "phase", attemptId, phase: this.#phase });
  }

  /** Resolves with "" when it is done or under way, else with why it cannot be. */
  async control(action: ControlAction): Promise<string> {
    switch (action) {
      case "cancel":
        this.#end({ kind: "cancelled", message: "cancelled" }, this.order.definition.graceMs);
        return "";
      case "kill":
        this.#end({ kind: "cancelled", message: "killed: the attempt is not wanted any more" }, 0);
        return "";
      case "pause":
        return await this.#pause();
      case "resume":
        return this.#resume();
    }
  }

  acknowledgeLog(bytes: number): void {
    this.#log.acknowledge(bytes);
  }

  renewLease(renewedAtMs: number): void {
    this.#leaseFromMs = Math.max(this.#leaseFromMs, renewedAtMs);
  }

  /** On the clock of `bootNowMs`; null once it has finished. */
  get leaseEndsAtMs(): number | null {
    return this.isFinished
      ? null
      : workerGivesUpAtMs(this.#leaseFromMs, attemptLeaseMs(this.order.definition));
  }

  /** The server may soon give the job to another worker: nothing of it may be left by then. */
  loseLease(): void {
    const seconds = attemptLeaseMs(this.order.definition) / 1000;
    const message = `the lease of ${seconds} s was not renewed: no word from the server for too long`;
    this.#end({ kind: "lease_lost", message }, 0);
  }

  /** Removes everything that is left of a finished attempt. */
  async remove(): Promise<void> {
    await Promise.all([
      this.#log.remove(),
      this.#context.directories.remove(this.#paths, { verified: this.#isVerified }),
    ]);
  }

  async #live(): Promise<void> {
    const sequence = await this.#runCommands();
    const ending = this.#ending;
    this.#callOffWatch();
    for (const timer of this.#timers) timer.cancel();
    try {
      this.#result = await this.#finish(sequence, ending);
    } catch (error) {
      this.#context.log.error({ err: error, jobId: this.order.jobId }, "end of an attempt failed");
      this.#result = this.#unverifiedResult(sequence, errorMessage(error));
    }
    this.#enter("finished");
    this.#context.send({ type: "result", attemptId: this.order.attemptId, result: this.#result });
  }

  async #runCommands(): Promise<SequenceEnd> {
    const { trees, log } = this.#context;
    try {
      this.#context.directories.make(this.#paths);
      await this.#log.open();
      if (this.#ending !== null) return { steps: [], failure: null, lastExit: null };
      this.#tree = trees.create(this.order.attemptId);
      return await runSequence(this.#sequenceHost(this.#tree));
    } catch (error) {
      log.error({ err: error, jobId: this.order.jobId }, "attempt failed on the worker");
      return sequenceEndOfError(`the worker could not run the job: ${errorMessage(error)}`);
    }
  }

  async #finish(sequence: SequenceEnd, ending: Ending | null): Promise<AttemptResult> {
    await this.#termination;
    const leftovers = await this.#killLeftovers();
    const usage = this.#tree?.usage() ?? NO_TREE_USAGE;
    this.#isVerified = this.#unkillable.length === 0;
    if (this.#isVerified) this.#tree?.remove();
    this.#log.closePipes();
    if (this.order.definition.command?.kind === "script") emptyScript(this.#paths);
    const files = await this.#readFiles();
    for (const problem of files.problems) this.#log.system(problem);
    if (leftovers > 0)
      this.#log.system(`${leftovers} leftover ${leftovers === 1 ? "process was" : "processes were"} killed`);
    if (ending !== null) this.#log.system(`✖ ${ending.message}`);
    const lostLogBytes = await this.#log.close();
    return makeResult({
      sequence,
      ending,
      files,
      usage,
      leftovers,
      unkillable: this.#unkillable,
      lostLogBytes,
      startedAtMs: this.#startedAtMs,
      finishedAtMs: this.#context.clock.nowMs(),
      logEnd: this.#log.end,
    });
  }

  /** Nobody saw that its processes are gone: only the cause `worker_lost` may say so. */
  #unverifiedResult(sequence: SequenceEnd, problem: string): AttemptResult {
    const message = `the worker could not end the attempt in order: ${problem}`;
    return makeResult({
      sequence: { ...sequenceEndOfError(message, "worker_lost"), steps: sequence.steps },
      ending: null,
      files: { outputs: {}, summary: "", progress: null, problems: [] },
      usage: NO_TREE_USAGE,
      leftovers: 0,
      unkillable: this.#unkillable,
      lostLogBytes: 0,
      startedAtMs: this.#startedAtMs,
      finishedAtMs: this.#context.clock.nowMs(),
      logEnd: this.#log.end,
    });
  }

  async #readFiles(): Promise<Awaited<ReturnType<typeof readJobFiles>>> {
    try {
      const files = await readJobFiles(this.#paths);
      this.#noteProgress(files.progress);
      return files;
    } catch (error) {
      const problem = `the files of the job could not be read: ${errorMessage(error)}`;
      return { outputs: {}, summary: "", progress: null, problems: [problem] };
    }
  }

  /** Returns how many processes outlived the command. */
  async #killLeftovers(): Promise<number> {
    if (this.#tree === null || this.#unkillable.length > 0) return 0;
    const { met, left } = await killUntilEmpty(this.#tree, this.#context.clock);
    this.#unkillable = left;
    return met;
  }

  #sequenceHost(tree: ProcessTree): SequenceHost {
    const { order } = this;
    const { clock, inherited } = this.#context;
    return {
      definition: order.definition,
      paths: this.#paths,
      tree,
      log: this.#log,
      clock,
      environment: (step) => jobEnvironment({ inherited, order, paths: this.#paths, step }),
      isEnding: () => this.#ending !== null,
      endedOutcome: () => (this.#ending ? OUTCOMES[this.#ending.kind] : "failed"),
      isPaused: () => this.#phase === "paused",
      resumed: () => new Promise((resolve) => (this.#wakeResumed = resolve)),
      started: (atMs) => this.#started(atMs),
      exitOf: (exited) => Promise.race([exited, this.#givenUp]),
      stopProcesses: () => this.#terminate(order.definition.graceMs),
      timer: (durationMs, run) => this.#timer(durationMs, run),
    };
  }

  #started(atMs: number): void {
    if (this.#startedAtMs !== null) return;
    this.#startedAtMs = atMs;
    this.#enter("running");
    this.#context.send({ type: "started", attemptId: this.order.attemptId, startedAtMs: atMs });
    const { timeoutMs, graceMs } = this.order.definition;
    this.#timer(timeoutMs, () => {
      this.#end({ kind: "timed_out", message: `timed out after ${timeoutMs / 1000} s` }, graceMs);
    });
    this.#watchIn(FIRST_WATCH_MS);
  }

  #timer(durationMs: number, run: () => void): PausableTimer {
    const timer = new PausableTimer(this.#context.clock, {
      durationMs,
      run,
      paused: this.#phase === "paused",
    });
    this.#timers.add(timer);
    return timer;
  }

  /** Looks at the processes and at the progress while the job runs. */
  #watchIn(delayMs: number): void {
    this.#callOffWatch = this.#context.clock.schedule(delayMs, () => {
      this.#tree?.sample();
      void readProgress(this.#paths.progress).then((progress) => {
        this.#noteProgress(progress);
        if (!this.isFinished && this.#ending === null) this.#watchIn(WATCH_MS);
      });
    });
  }

  #noteProgress(progress: Progress | null): void {
    const known = this.#progress;
    if (progress === null || this.isFinished) return;
    if (known !== null && known.percent === progress.percent && known.message === progress.message) return;
    this.#progress = progress;
    this.#context.send({ type: "progress", attemptId: this.order.attemptId, progress });
  }

  #end(ending: Ending, graceMs: number): void {
    if (this.isFinished) return;
    this.#ending ??= ending;
    void this.#terminate(graceMs);
    this.#wakeResumed();
  }

  /** SIGTERM to all, grace, SIGKILL until nothing is left. A second call can only shorten it. */
  #terminate(graceMs: number): Promise<void> {
    this.#graceEndsAtMs = Math.min(this.#graceEndsAtMs, this.#context.clock.monotonicMs() + graceMs);
    this.#termination ??= this.#runTermination().finally(() => {
      this.#termination = null;
      this.#graceEndsAtMs = Number.POSITIVE_INFINITY;
    });
    return this.#termination;
  }

  async #runTermination(): Promise<void> {
    const { clock, log } = this.#context;
    const tree = this.#tree;
    if (tree === null) return;
    try {
      if (this.#graceEndsAtMs > clock.monotonicMs()) tree.signal("SIGTERM");
      this.#thaw();
      for (
        let pollMs = 2;
        clock.monotonicMs() < this.#graceEndsAtMs;
        pollMs = Math.min(pollMs * 2, MAX_GRACE_POLL_MS)
      ) {
        if (tree.members().length === 0) return;
        await clock.sleep(Math.min(pollMs, this.#graceEndsAtMs - clock.monotonicMs()));
      }
      const { left } = await killUntilEmpty(tree, clock);
      this.#unkillable = left;
      if (left.length > 0) this.#giveUp();
    } catch (error) {
      log.error({ err: error, jobId: this.order.jobId }, "ending of the processes failed");
    }
  }

  async #pause(): Promise<string> {
    if (this.#phase === "paused") return "";
    if (this.#phase !== "running" || this.#tree === null) return `it is ${this.#phase}, not running`;
    if (this.#ending !== null) return "it is being ended";
    this.#enter("paused");
    for (const timer of this.#timers) timer.pause();
    await this.#tree.freeze();
    this.#context.send({ type: "phase", attemptId: this.order.attemptId, phase: this.#phase });
    return this.#isFrozen() ? "" : "it was resumed or ended meanwhile";
  }

  /** Asked again after a wait, in which everything may have changed. */
  #isFrozen(): boolean {
    return this.#phase === "paused";
  }

  #resume(): string {
    if (this.#phase === "running") return "";
    if (this.#phase !== "paused") return `it is ${this.#phase}, not paused`;
    this.#thaw();
    this.#context.send({ type: "phase", attemptId: this.order.attemptId, phase: this.#phase });
    return "";
  }

  #thaw(): void {
    if (this.#phase !== "paused") return;
    this.#tree?.thaw();
    this.#enter("running");
    for (const timer of this.#timers) timer.resume();
    this.#wakeResumed();
  }

  #enter(phase: AttemptPhase): void {
    if (!NEXT_PHASES[this.#phase].includes(phase))
      throw new Error(`attempt cannot go from ${this.#phase} to ${phase}`);
    this.#phase = phase;
  }
}

const OUTCOMES = { cancelled: "cancelled", timed_out: "timed_out", lease_lost: "failed" } as const;
