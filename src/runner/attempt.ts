/**
 * One attempt on its worker, from the order to the result.
 *
 *     accepted ──▶ running ◀──▶ paused
 *         │           │            │
 *         └───────────┴────────────┴──▶ finished
 *
 * Cancel, kill, time-out and the end of the lease all end in the same way (`#end`): the first one
 * decides what the result says, a later one can only shorten the grace. `finished` is entered when
 * every process was seen to be gone, the whole log is on disk, and the result stands. As long as a
 * process cannot be killed there is no result: the log says why, the worker gets no more jobs, and the
 * server calls it broken when the deadline of the job has passed.
 */

import type { Clock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { AttemptResult, Progress } from "../core/job.ts";
import { attemptLeaseMs, workerGivesUpAtMs } from "../core/lease.ts";
import { describeSize } from "../core/log-gap.ts";
import type { AgentToRunner, RunnerAttempt, RunnerToAgent } from "../core/runner-link.ts";
import type { AttemptPhase, ControlAction } from "../core/worker.ts";
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
import type { DiskReserve } from "./log/disk-reserve.ts";
import type { PipePool } from "./log/output-pipe.ts";
import { PausableTimer } from "./pausable-timer.ts";
import { runSequence, type SequenceEnd, type SequenceHost } from "./step-sequence.ts";
import { describeProcesses } from "./tree/process-list.ts";
import {
  NO_TREE_USAGE,
  UNKILLABLE_AFTER_MS,
  killUntilEmpty,
  type ProcessTree,
  type ProcessTrees,
} from "./tree/process-tree.ts";

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
  reserve: DiskReserve;
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
/** How long to wait before another try to kill what cannot be killed. */
const STUCK_RETRY_MS = 1_000;

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
  #isStuck = false;
  /** Whether it was seen that none of its processes is left. */
  #isVerified = false;
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
      quotaBytes: order.definition.logQuotaBytes,
      pipes: context.pipes,
      clock: context.clock,
      log: context.log,
      tell: (logEnd) => context.send({ type: "log", attemptId: order.attemptId, logEnd }),
      onQuotaPassed: () => this.#onLogQuota(),
      makeRoom: (isEnd) => context.reserve.release(isEnd),
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
    this.#tellPhase();
  }

  /** Resolves with "" when it is done or under way, else with why it cannot be. */
  async control(action: ControlAction): Promise<string> {
    switch (action) {
      case "cancel":
        this.#log.hurry();
        this.#end({ kind: "cancelled", message: "cancelled" }, this.order.definition.graceMs);
        return "";
      case "kill":
        this.#log.hurry();
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
    this.#log.hurry();
    this.#end({ kind: "lease_lost", message }, 0);
  }

  /** What is still in the pipes when the processes are gone counts as well, see `#finish`. */
  #onLogQuota(): void {
    const ending = this.#quotaEnding();
    if (ending !== null && !this.#isVerified) this.#end(ending, this.order.definition.graceMs);
  }

  #quotaEnding(): Ending | null {
    const { logQuotaBytes, onLogQuota } = this.order.definition;
    if (!this.#log.isQuotaPassed || onLogQuota === "truncate") return null;
    return { kind: "log_quota", message: `more output than the log quota of ${describeSize(logQuotaBytes)}` };
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
      this.#result = this.#incompleteResult(sequence, errorMessage(error));
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

  async #finish(sequence: SequenceEnd, outerEnding: Ending | null): Promise<AttemptResult> {
    await this.#termination;
    const leftovers = await this.#killAll();
    const usage = this.#tree?.usage() ?? NO_TREE_USAGE;
    this.#isVerified = true;
    this.#tree?.remove();
    this.#log.closePipes();
    const ending = outerEnding ?? this.#quotaEnding();
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
      lostLogBytes,
      startedAtMs: this.#startedAtMs,
      finishedAtMs: this.#context.clock.nowMs(),
      logEnd: this.#log.end,
    });
  }

  /** Its processes are gone, but what came of them could not be put together. */
  #incompleteResult(sequence: SequenceEnd, problem: string): AttemptResult {
    const message = `the worker could not end the attempt in order: ${problem}`;
    return makeResult({
      sequence: { ...sequenceEndOfError(message, "worker_lost"), steps: sequence.steps },
      ending: null,
      files: { outputs: {}, summary: "", progress: null, problems: [] },
      usage: NO_TREE_USAGE,
      leftovers: 0,
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

  /** Resolves when nothing is left, however long that takes, with how many processes there were. */
  async #killAll(): Promise<number> {
    const tree = this.#tree;
    if (tree === null) return 0;
    const { clock } = this.#context;
    const met = new Set<number>();
    for (let limitMs = UNKILLABLE_AFTER_MS; ; limitMs = 0) {
      try {
        const round = await killUntilEmpty(tree, clock, limitMs);
        for (const pid of round.met) met.add(pid);
        if (round.left.length === 0) return met.size;
        this.#reportStuck(describeProcesses(round.left));
      } catch (error) {
        this.#reportStuck(errorMessage(error));
      }
      await clock.sleep(STUCK_RETRY_MS);
    }
  }

  /** Once: people must look, and this worker must not get another job. */
  #reportStuck(what: string): void {
    if (this.#isStuck) return;
    this.#isStuck = true;
    const { attemptId, jobId } = this.order;
    const message = `processes of the job cannot be killed: ${what}`;
    this.#context.log.error({ attemptId, jobId, what }, "processes cannot be killed");
    this.#log.system(`✖ ${message}; the job ends when they are gone`);
    this.#context.send({ type: "broken", message });
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
    const { clock } = this.#context;
    const tree = this.#tree;
    if (tree === null) return;
    // Frozen processes are killed as they are; for a grace they must run.
    if (this.#graceEndsAtMs > clock.monotonicMs()) this.#askToEnd(tree);
    for (
      let pollMs = 2;
      clock.monotonicMs() < this.#graceEndsAtMs;
      pollMs = Math.min(pollMs * 2, MAX_GRACE_POLL_MS)
    ) {
      if (tree.members().length === 0) return;
      await clock.sleep(Math.min(pollMs, this.#graceEndsAtMs - clock.monotonicMs()));
    }
    await this.#killAll();
    this.#thaw();
  }

  #askToEnd(tree: ProcessTree): void {
    try {
      tree.signal("SIGTERM");
      this.#thaw();
    } catch (error) {
      // The grace passes without a word to the job, and then it is killed.
      this.#context.log.error({ err: error, jobId: this.order.jobId }, "could not ask a job to end");
    }
  }

  async #pause(): Promise<string> {
    if (this.#phase === "paused") return "";
    if (this.#phase !== "running" || this.#tree === null) return `it is ${this.#phase}, not running`;
    if (this.#ending !== null) return "it is being ended";
    const { pauseProblem } = this.#context.trees;
    if (pauseProblem !== "") return pauseProblem;
    this.#enter("paused");
    for (const timer of this.#timers) timer.pause();
    const problem = await this.#freeze(this.#tree);
    if (!this.#isPaused()) return "it was resumed or ended meanwhile";
    if (problem === "") this.#tellPhase();
    else this.#thaw();
    return problem;
  }

  async #freeze(tree: ProcessTree): Promise<string> {
    try {
      return await tree.freeze();
    } catch (error) {
      return `it cannot be paused: ${errorMessage(error)}`;
    }
  }

  /** Asked again after a wait, in which everything may have changed. */
  #isPaused(): boolean {
    return this.#phase === "paused";
  }

  #tellPhase(): void {
    this.#context.send({ type: "phase", attemptId: this.order.attemptId, phase: this.#phase });
  }

  #resume(): string {
    if (this.#phase === "running") return "";
    if (this.#phase !== "paused") return `it is ${this.#phase}, not paused`;
    this.#thaw();
    this.#tellPhase();
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

const OUTCOMES = {
  cancelled: "cancelled",
  timed_out: "timed_out",
  lease_lost: "failed",
  log_quota: "failed",
} as const;
