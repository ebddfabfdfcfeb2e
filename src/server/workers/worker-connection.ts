/**
 * One worker's stream on this server: carries out what the session machine decides.
 *
 * The machine (core/server-session.ts) holds what the worker should have; this file does the IO:
 * messages out through an outbox with two priorities, inputs to the store, log to the log store.
 * When the stream ends, everything here is dropped: the next hello and the database rebuild it.
 */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { Outbox } from "../../base/outbox.ts";
import type { Random } from "../../base/random.ts";
import { sharedAbortController } from "../../base/shared-abort.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import type { ServerMessage, WorkerMessage } from "../../core/link.ts";
import {
  newServerSession,
  onAssigned,
  onEndStored,
  onGivenUp,
  onHello,
  onJobSeen,
  onLogDurable,
  onWorkerMessage,
  type LiveAttemptView,
  type ServerAction,
  type ServerSession,
} from "../../core/server-session.ts";
import type { ControlAction, Worker, WorkerInfo } from "../../core/worker.ts";
import type { AppliedInput, Store } from "../../storage/store.ts";
import type { LogStore } from "../logs/log-store.ts";
import type { HeartbeatWriter } from "./heartbeat-writer.ts";
import { LogIntake } from "./log-intake.ts";

/** What a connection needs of the log store. */
export type ConnectionLogs = Pick<LogStore, "append" | "length" | "finish" | "wake">;

export interface ConnectionDependencies {
  store: Store;
  logs: ConnectionLogs;
  heartbeats: Pick<HeartbeatWriter, "add">;
  clock: Clock;
  random: Random;
  log: Logger;
  /** A job has changed. */
  onJobChanged(job: Job): void;
  /** So much more of the log of an attempt is on disk. */
  onLogStored?(attemptId: string, bytes: number): void;
  /** The worker has room for a job again. */
  onRoom(): void;
  /** The worker came or went, or holds nothing any more. */
  onIdle(): void;
}

type ApplyAction = Extract<ServerAction, { type: "apply" }>;

/** Messages to one worker that may wait; a worker that reads so slowly is cut off and comes back. */
const MAX_WAITING_MESSAGES = 20_000;

export class WorkerConnection {
  readonly workerId: string;
  readonly pool: string;
  readonly provider: string;
  readonly takesOneJob: boolean;
  info: WorkerInfo;
  /** Of the runner that the worker had when it connected. */
  runnerId = "";
  readonly session: ServerSession;
  /** Takes no jobs yet: it is not known whether the worker may have any. */
  isHeldBack = false;
  /** Somebody wants it to get no new jobs. */
  isCordoned = false;
  /** Attempts that this worker was given since it connected. */
  assignedCount = 0;
  /** The number of its last assignment among those of all workers; 0 before the first. */
  lastAssigned = 0;
  readonly #deps: ConnectionDependencies;
  readonly #outbox: Outbox<ServerMessage>;
  readonly #durable = new Map<string, number>();
  readonly #closed = sharedAbortController();
  readonly #intake: LogIntake;
  /** By job id, what waits for the store to take it, one after another. */
  readonly #failing = new Map<string, { kinds: Set<string>; last: Promise<unknown> }>();
  #isToldToDrain = false;

  constructor(
    worker: Pick<Worker, "id" | "pool" | "provider" | "takesOneJob"> & { info: WorkerInfo },
    deps: ConnectionDependencies,
  ) {
    this.workerId = worker.id;
    this.pool = worker.pool;
    this.provider = worker.provider;
    this.takesOneJob = worker.takesOneJob;
    this.info = worker.info;
    this.#deps = { ...deps, log: deps.log.child({ workerId: worker.id }) };
    this.session = newServerSession(worker.id, deps.clock.nowMs());
    this.#outbox = new Outbox<ServerMessage>({
      maxWaiting: MAX_WAITING_MESSAGES,
      overflow: () => new AppError("resource_exhausted", `worker ${worker.id} does not read its stream`),
    });
    this.#intake = this.#openIntake();
  }

  /** What the worker shall be told, in order. Ends when the connection is closed. */
  get messages(): AsyncIterable<ServerMessage> {
    return this.#outbox;
  }

  get isClosed(): boolean {
    return this.#closed.signal.aborted;
  }

  /** Brings together what the worker holds and what the database says. */
  async hello(message: Extract<WorkerMessage, { type: "hello" }>): Promise<void> {
    const { store, logs, clock } = this.#deps;
    const live = await store.listLiveAttempts(this.workerId);
    const views: LiveAttemptView[] = [];
    for (const { attempt, job } of live) {
      const logDurable = await logs.length(attempt.id);
      const { id: attemptId, number: attemptNumber, runnerId } = attempt;
      views.push({ attemptId, attemptNumber, job, logDurable, runnerId });
    }
    const { attempts: held, draining, runnerId } = message;
    this.runnerId = runnerId;
    this.#perform(onHello(this.session, { held, live: views, draining, runnerId, nowMs: clock.nowMs() }));
    // Held or about to be: a worker for one job has had it.
    this.assignedCount = Math.max(views.length, message.attempts.length);
  }

  /** Handles one message. Resolves late when the worker sends log faster than the disk takes it. */
  async receive(message: Exclude<WorkerMessage, { type: "hello" }>): Promise<void> {
    const actions = onWorkerMessage(this.session, message, this.#deps.clock.nowMs());
    this.#perform(actions);
    if (message.type === "result") this.#deps.onRoom();
    if (this.#intake.isFull) await this.#intake.room();
  }

  assign(view: LiveAttemptView): void {
    this.assignedCount += 1;
    this.#perform(onAssigned(this.session, view));
  }

  /** A job of this worker has changed: it may be wanted that the worker does something. */
  jobSeen(job: Job): void {
    this.#perform(onJobSeen(this.session, job));
  }

  /** The worker has said how the attempt ended, and its end waits for its log or for the store. */
  hasResult(attemptId: string): boolean {
    return (this.session.attempts.get(attemptId)?.result ?? null) !== null;
  }

  /** Also of an attempt that the worker does not hold: there is nothing to tell then. */
  isTold(attemptId: string, action: ControlAction): boolean {
    const attempt = this.session.attempts.get(attemptId);
    return attempt === undefined || attempt.told === action;
  }

  /** Asks the worker to end an attempt that nobody has cancelled; its result says that it did. */
  callOff(attemptId: string): void {
    if (this.session.attempts.has(attemptId)) {
      this.#outbox.push({ type: "control", attemptId, action: "cancel" });
    }
  }

  /** The attempt is not valid any more. */
  giveUp(attemptId: string): void {
    this.#perform(onGivenUp(this.session, attemptId));
  }

  /** Told once: a worker that drains by its own wish knows it already, which does no harm. */
  drain(reason: string): void {
    if (this.#isToldToDrain) return;
    this.#isToldToDrain = true;
    this.session.draining = true;
    this.#outbox.push({ type: "drain", reason });
  }

  /** Tells the worker to connect again, and ends the stream. */
  goaway(reason: string): void {
    this.#outbox.push({ type: "goaway", reason });
    this.close();
  }

  close(): void {
    this.#closed.abort();
    this.#outbox.end();
  }

  #perform(actions: readonly ServerAction[]): void {
    for (const action of actions) {
      switch (action.type) {
        case "send":
          this.#outbox.push(action.message);
          break;
        case "apply":
          void this.#apply(action);
          break;
        case "append_log":
          this.#intake.take(action.attemptId, action.offset, action.data);
          break;
        case "renew_lease":
          this.#deps.heartbeats.add({
            workerId: this.workerId,
            heardAtMs: this.session.heardAtMs,
            usage: action.usage,
          });
          break;
      }
    }
  }

  #openIntake(): LogIntake {
    const { logs, clock, random, log } = this.#deps;
    return new LogIntake({
      logs,
      clock,
      random,
      log,
      signal: this.#closed.signal,
      isWanted: (attemptId) => this.session.attempts.has(attemptId),
      onDurable: (attemptId, length) => this.#noteDurable(attemptId, length),
      // Sealed as it was, because the attempt was lost behind the back of this stream.
      onEnded: (attemptId) => this.giveUp(attemptId),
      onBroken: (reason) => this.goaway(reason),
    });
  }

  /** Appends that became durable together are acknowledged once. */
  #noteDurable(attemptId: string, length: number): void {
    const isFirst = this.#durable.size === 0;
    // What became durable a moment ago the session hears of only below.
    const before = this.#durable.get(attemptId) ?? this.session.attempts.get(attemptId)?.logDurable ?? 0;
    if (length > before) this.#deps.onLogStored?.(attemptId, length - before);
    this.#durable.set(attemptId, Math.max(length, this.#durable.get(attemptId) ?? 0));
    if (!isFirst) return;
    queueMicrotask(() => {
      const durable = [...this.#durable];
      this.#durable.clear();
      for (const [id, logDurable] of durable) {
        this.#perform(onLogDurable(this.session, { attemptId: id, logDurable }));
      }
    });
  }

  async #apply(action: ApplyAction): Promise<void> {
    const applied = await this.#applyUntilAnswered(action);
    if (applied === null) return;
    const { attemptId, input } = action;
    // Also of a refused one: its first try may have been stored, and only the answer was lost.
    if (applied.job) {
      this.jobSeen(applied.job);
      this.#deps.onJobChanged(applied.job);
    }
    if (input.type === "finish") {
      const isNewest = applied.job?.attemptId === attemptId;
      await this.#forgetEnded(attemptId, { hasLog: isNewest && input.result.logEnd > 0 });
    } else if (!applied.ok && applied.refusal !== "not_possible") {
      this.giveUp(attemptId);
    }
  }

  /** The worker may forget an attempt only when its log is sealed, or when nobody wants it. */
  async #forgetEnded(attemptId: string, { hasLog }: { hasLog: boolean }): Promise<void> {
    if (hasLog) {
      try {
        await this.#deps.logs.finish(attemptId);
      } catch (error) {
        // The log is on this server's disk already; the sealing loop tries again.
        this.#deps.log.error({ err: error, attemptId }, "could not seal a log");
      }
    } else {
      // The store has sealed the empty log; a follower finds out when it looks again.
      this.#deps.logs.wake(attemptId);
    }
    this.#perform(onEndStored(this.session, attemptId));
    this.#deps.onRoom();
    if (this.session.attempts.size === 0) this.#deps.onIdle();
  }

  /**
   * Null if the connection ended before the store answered: the worker then says it again. Inputs of
   * one job that the store could not take are tried again one after another, so that an end does not
   * overtake its start; progress is not, because the next one says more. One of each kind waits:
   * during an outage each heartbeat brings what the one before it brought, and what came out wrong
   * in the end the next heartbeat puts right.
   */
  async #applyUntilAnswered(action: ApplyAction): Promise<AppliedInput | null> {
    const { jobId, attemptId, input } = action;
    if (!this.#failing.has(jobId)) {
      const applied = await this.#tryApply(jobId, input);
      if (applied !== null) return applied;
    }
    const waiting = this.#failing.get(jobId) ?? { kinds: new Set(), last: Promise.resolve() };
    const kind = `${input.type} ${attemptId}`;
    if (input.type === "progress" || waiting.kinds.has(kind)) return null;
    this.#failing.set(jobId, waiting);
    waiting.kinds.add(kind);
    const answer = waiting.last.then(() => this.#applyAgain(jobId, input));
    waiting.last = answer;
    const applied = await answer;
    waiting.kinds.delete(kind);
    if (waiting.kinds.size === 0) this.#failing.delete(jobId);
    return applied;
  }

  async #applyAgain(jobId: string, input: JobInput): Promise<AppliedInput | null> {
    const { clock, random } = this.#deps;
    const backoff = new Backoff({ baseMs: 100, maxMs: 5_000 }, random);
    while (!this.isClosed) {
      const applied = await this.#tryApply(jobId, input);
      if (applied !== null) return applied;
      await clock.sleep(backoff.nextDelayMs(), this.#closed.signal);
    }
    return null;
  }

  async #tryApply(jobId: string, input: JobInput): Promise<AppliedInput | null> {
    const { store, clock, log } = this.#deps;
    try {
      return await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
    } catch (error) {
      const isFirst = !this.#failing.has(jobId);
      if (isFirst) log.warn({ err: error, jobId, input: input.type }, "could not store what a worker said");
      return null;
    }
  }
}
