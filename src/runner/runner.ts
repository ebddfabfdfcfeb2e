/**
 * The runner: owns the attempts of a worker and their processes, and outlives the agent.
 *
 * It keeps the promises that must hold while nobody is connected: time-outs, the lease, the log on
 * disk, the result until it is forgotten. It ends when it was told to and holds nothing any more,
 * or when nobody has come for it for long. If it is killed itself, the next runner of the same
 * directory ends what it left running before it takes an order.
 */

import { mkdir, readdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { bootClock } from "../base/boot-clock.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { identifyProcess } from "../base/process-identity.ts";
import { sha256Hex, uuidV4, type Random } from "../base/random.ts";
import { removeRunnerMark, writeRunnerMark } from "../base/runner-mark.ts";
import type { Service } from "../base/service.ts";
import type { AgentToRunner, RunnerToAgent } from "../core/runner-link.ts";
import { runnerSocketPath } from "../protocol/spool-layout.ts";
import { AgentSocket } from "./agent-socket.ts";
import { makeResult, sequenceEndOfError } from "./attempt-result.ts";
import { Attempt, type AttemptContext, type AttemptOrder } from "./attempt.ts";
import { AttemptDirectories, attemptsDirectory } from "./job/attempt-directory.ts";
import { inheritedEnvironment } from "./job/job-environment.ts";
import { RemovalQueue } from "./job/removal-queue.ts";
import { DiskReserve } from "./log/disk-reserve.ts";
import { PipePool } from "./log/output-pipe.ts";
import { detectProcessTrees, possibleCgroups } from "./tree/detect-process-trees.ts";
import {
  NO_TREE_USAGE,
  UNKILLABLE_AFTER_MS,
  type CgroupMode,
  type ProcessTrees,
} from "./tree/process-tree.ts";
import { endStrays } from "./tree/strays.ts";
import { UsageMeter } from "./worker-usage.ts";

/** Attempts held at once, finished ones included. */
export const MAX_ATTEMPTS = 1_024;
export const DEFAULT_SPOOL_LIMIT_BYTES = 256 * 1024 * 1024;
/** A runner that holds nothing waits so long for an agent. */
const IDLE_EXIT_MS = 60_000;
/** Nobody will ask for results any more whose lease ended long ago. */
const ABANDONED_EXIT_MS = 60 * 60_000;
/** How long to wait before another try to end what an earlier runner left. */
const STUCK_RETRY_MS = 2_000;
/** How long a runner that was told to end waits for an agent that is gone: it may have died of the signal. */
const TERMINATION_SILENCE_MS = 1_000;
/** How often leases and the reasons to exit are looked at. */
const TICK_MS = 1_000;

export interface RunnerOptions {
  /** The worker's directory. */
  directory: string;
  clock: Clock;
  random: Random;
  log: Logger;
  version: string;
  /** Unacknowledged log of one attempt on disk. */
  spoolLimitBytes?: number;
  cgroup?: CgroupMode | "auto";
  /** How processes are kept together, if not in the way that `cgroup` says. */
  trees?: ProcessTrees;
  /** The runner's own environment, of which jobs inherit a few variables. */
  environment?: Readonly<Record<string, string | undefined>>;
  idleExitMs?: number;
}

/** `stop` kills what runs. */
export interface Runner extends Service {
  /** Resolves when the process may exit: told to, or abandoned, and nothing is left. */
  readonly done: Promise<void>;
  readonly cgroupMode: CgroupMode;
  /**
   * For a signal that says to end. An agent that is connected was most likely sent the same one and
   * decides what becomes of the jobs: the runner ends with it. Without an agent, and the second time,
   * it kills what runs.
   */
  terminate(): void;
}

/** @throws AppError `already_exists` if another runner serves this directory. */
export async function startRunner(options: RunnerOptions): Promise<Runner> {
  const { clock, log } = options;
  const directory = resolve(options.directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // The socket is also the lock: only its owner may touch what an earlier runner has left.
  const socket = await AgentSocket.listen({ path: runnerSocketPath(directory), clock, log });
  let runner: RunnerProcess | null = null;
  try {
    await endPast({ ...options, directory }, socket);
    const name = `hodei-${sha256Hex(directory).slice(0, 16)}`;
    // Before there is anything to find, so that whatever is there has a mark.
    const cgroups = possibleCgroups(name);
    await writeRunnerMark(directory, { runner: identifyProcess(process.pid), cgroups });
    const trees = options.trees ?? detectProcessTrees(options.cgroup ?? "auto", { name, clock, log });
    runner = new RunnerProcess({ ...options, directory, trees }, socket);
    await runner.start();
    return runner;
  } catch (error) {
    await (runner ?? socket).stop();
    throw error;
  }
}

/**
 * Ends the processes of a runner that was killed. Until nothing of it is left the agent hears no
 * hello, for what is not in there the server takes for dead.
 */
async function endPast({ directory, clock, log }: RunnerOptions, socket: AgentSocket): Promise<void> {
  for (;;) {
    const end = await endStrays({ workerDirectory: directory, clock, limitMs: UNKILLABLE_AFTER_MS });
    if (end.met > 0) log.warn({ processes: end.met }, "processes of an earlier runner were killed");
    if (end.left === "") return;
    const message = `processes of an earlier runner cannot be ended: ${end.left}`;
    log.error({ left: end.left }, "processes of an earlier runner cannot be ended, so no job is taken");
    socket.send({ type: "broken", message });
    await clock.sleep(STUCK_RETRY_MS);
  }
}

class RunnerProcess implements Runner {
  readonly done: Promise<void>;
  readonly #options: RunnerOptions;
  readonly #runnerId = uuidV4();
  readonly #attempts = new Map<string, Attempt>();
  readonly #trees: ProcessTrees;
  readonly #pipes: PipePool;
  readonly #reserve: DiskReserve;
  readonly #directories: AttemptDirectories;
  readonly #removals: RemovalQueue;
  readonly #bootNowMs: () => number;
  readonly #attemptContext: AttemptContext;
  readonly #meter: UsageMeter;
  readonly #socket: AgentSocket;
  #renewedAtMs: number | null = null;
  #shuttingDown = false;
  #isTerminating = false;
  #stopping: Promise<void> | null = null;
  #callOffTick: () => void = () => {};
  #resolveDone: () => void = () => {};

  constructor(options: RunnerOptions & { trees: ProcessTrees }, socket: AgentSocket) {
    this.#socket = socket;
    const { directory, clock, log } = options;
    this.#options = options;
    this.done = new Promise((done) => (this.#resolveDone = done));
    this.#bootNowMs = bootClock();
    this.#removals = new RemovalQueue(log);
    this.#pipes = new PipePool(join(directory, "pipes"));
    this.#reserve = new DiskReserve(directory, log);
    this.#directories = new AttemptDirectories(directory);
    this.#trees = options.trees;
    this.#attemptContext = {
      workerDirectory: directory,
      clock,
      log,
      trees: this.#trees,
      pipes: this.#pipes,
      directories: this.#directories,
      inherited: inheritedEnvironment(options.environment ?? {}),
      spoolLimitBytes: options.spoolLimitBytes ?? DEFAULT_SPOOL_LIMIT_BYTES,
      reserve: this.#reserve,
      bootNowMs: this.#bootNowMs,
      renewedAtMs: () => this.#renewedAtMs,
      send: (message) => this.#send(message),
    };
    this.#meter = new UsageMeter({
      directory,
      clock,
      log,
      onMeasured: (usage) => this.#send({ type: "usage", usage }),
    });
  }

  get cgroupMode(): CgroupMode {
    return this.#trees.mode;
  }

  async start(): Promise<void> {
    const { directory, log } = this.#options;
    await this.#clearFiles();
    await mkdir(attemptsDirectory(directory), { recursive: true, mode: 0o700 });
    this.#socket.serve({ onConnect: () => this.#greet(), onMessage: (message) => this.#handle(message) });
    this.#reserve.renew();
    this.#tick();
    log.info({ cgroup: this.#trees.mode, directory }, "runner is ready");
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  terminate(): void {
    const isAlone = this.#socket.silentMs > 0;
    if (isAlone || this.#isTerminating) void this.stop();
    this.#isTerminating = true;
  }

  async #stop(): Promise<void> {
    this.#callOffTick();
    await Promise.all([...this.#attempts.values()].map((attempt) => attempt.control("kill")));
    await Promise.all([...this.#attempts.values()].map((attempt) => attempt.finished));
    await this.#socket.stop();
    await this.#meter.stop();
    await this.#removals.idle();
    await this.#reserve.release(true);
    this.#directories.close();
    await this.#pipes.close();
    // While a cgroup is left there is something for the next runner or a sweep to do.
    if (await this.#trees.close()) await removeRunnerMark(this.#options.directory);
    this.#resolveDone();
  }

  /** Removes the files of a runner that was killed. */
  async #clearFiles(): Promise<void> {
    const { directory } = this.#options;
    await this.#pipes.close();
    for (const parent of [attemptsDirectory(directory), join(directory, "spool")]) {
      for (const name of await readdir(parent).catch(() => [])) {
        this.#removals.add(() => rm(join(parent, name), { recursive: true, force: true }));
      }
    }
  }

  #send(message: RunnerToAgent): void {
    this.#socket.send(message);
  }

  #greet(): void {
    this.#send({
      type: "hello",
      runnerId: this.#runnerId,
      pid: process.pid,
      version: this.#options.version,
      capabilities: [
        ...["shell", "script", "steps"],
        ...(this.#trees.pauseProblem === "" ? ["pause"] : []),
        `cgroup_${this.#trees.mode}`,
      ],
      attempts: [...this.#attempts.values()].map((attempt) => attempt.snapshot()),
    });
    if (this.#meter.latest) this.#send({ type: "usage", usage: this.#meter.latest });
  }

  #handle(message: AgentToRunner): void {
    switch (message.type) {
      case "run":
        this.#run(message);
        break;
      case "control":
        void this.#control(message);
        break;
      case "log_acked":
        this.#attempts.get(message.attemptId)?.acknowledgeLog(message.logAcked);
        break;
      case "forget":
        void this.#forget(message.attemptId);
        break;
      case "lease_renewed":
        this.#renewLeases(message.leaseFromMs);
        break;
      case "shutdown":
        this.#shutDown(message.kill);
        break;
    }
  }

  #run({ type: _, ...order }: Extract<AgentToRunner, { type: "run" }>): void {
    const known = this.#attempts.get(order.attemptId);
    if (known) {
      known.announce();
      return;
    }
    if (this.#attempts.size >= MAX_ATTEMPTS || this.#stopping) {
      this.#refuse(order);
      return;
    }
    const attempt = new Attempt(order, this.#attemptContext);
    this.#attempts.set(order.attemptId, attempt);
    this.#send({ type: "accepted", attemptId: order.attemptId });
    this.#tick();
  }

  #refuse(order: AttemptOrder): void {
    const reason = this.#stopping
      ? "the runner is going away"
      : `the worker holds ${MAX_ATTEMPTS} attempts already`;
    const result = makeResult({
      sequence: sequenceEndOfError(reason),
      ending: null,
      files: { outputs: {}, summary: "", progress: null, problems: [] },
      usage: NO_TREE_USAGE,
      leftovers: 0,
      lostLogBytes: 0,
      startedAtMs: null,
      finishedAtMs: this.#options.clock.nowMs(),
      logEnd: 0,
    });
    this.#send({ type: "result", attemptId: order.attemptId, result });
  }

  async #control({ attemptId, action }: Extract<AgentToRunner, { type: "control" }>): Promise<void> {
    const attempt = this.#attempts.get(attemptId);
    let error = "the attempt is not known here";
    try {
      if (attempt) error = await attempt.control(action);
    } catch (cause) {
      this.#options.log.error({ err: cause, attemptId, action }, "control of an attempt failed");
      error = `${action} failed on the worker`;
    }
    this.#send({ type: "control_ack", attemptId, action, error });
  }

  /** An attempt that still runs is killed first: nobody wants its result. */
  async #forget(attemptId: string): Promise<void> {
    const attempt = this.#attempts.get(attemptId);
    if (attempt === undefined) return;
    if (!attempt.isFinished) {
      await attempt.control("kill");
      await attempt.finished;
    }
    if (!this.#attempts.delete(attemptId)) return;
    this.#removals.add(async () => {
      await attempt.remove();
      this.#reserve.renew();
    });
    this.#exitIfDone();
  }

  #renewLeases(leaseFromMs: number): void {
    const renewedAtMs = Math.min(leaseFromMs, this.#bootNowMs());
    this.#renewedAtMs = Math.max(this.#renewedAtMs ?? renewedAtMs, renewedAtMs);
    for (const attempt of this.#attempts.values()) attempt.renewLease(renewedAtMs);
  }

  #shutDown(kill: boolean): void {
    this.#shuttingDown = true;
    if (kill) for (const attempt of this.#attempts.values()) void attempt.control("kill");
    this.#exitIfDone();
  }

  /** Looks at leases and at the reasons to exit, each second and just when a lease ends. */
  #tick(): void {
    if (this.#stopping) return;
    this.#callOffTick();
    const nowMs = this.#bootNowMs();
    let nextMs = TICK_MS;
    for (const attempt of this.#attempts.values()) {
      const endsAtMs = attempt.leaseEndsAtMs;
      if (endsAtMs === null) continue;
      if (endsAtMs <= nowMs) attempt.loseLease();
      else nextMs = Math.min(nextMs, endsAtMs - nowMs);
    }
    this.#exitIfDone();
    this.#callOffTick = this.#options.clock.schedule(nextMs, () => this.#tick());
  }

  #exitIfDone(): void {
    const silentMs = this.#socket.silentMs;
    const isEmpty = this.#attempts.size === 0;
    const isAbandoned =
      [...this.#attempts.values()].every((attempt) => attempt.isFinished) && silentMs > ABANDONED_EXIT_MS;
    const isIdle = isEmpty && silentMs >= (this.#options.idleExitMs ?? IDLE_EXIT_MS);
    const isLeft = this.#isTerminating && silentMs >= TERMINATION_SILENCE_MS;
    if ((isEmpty && this.#shuttingDown) || isIdle || isAbandoned || isLeft) void this.stop();
  }
}
