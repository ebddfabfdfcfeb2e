/**
 * The agent: joins the runner and the server, and holds nothing that cannot be learned anew from
 * the two. What it does is decided by core/agent-session.ts; this file carries it out.
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { bootClock } from "../base/boot-clock.ts";
import type { Clock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import { AGENT_REFUSED } from "../base/exit-codes.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { stopAll, type Service } from "../base/service.ts";
import {
  helloMessage,
  mayLeave,
  newAgentSession,
  nextLogRange,
  onDrainWanted,
  onHeartbeatDue,
  onLogSent,
  onLogUnreadable,
  onRunnerMessage,
  onServerMessage,
  onStreamClosed,
  type AgentAction,
} from "../core/agent-session.ts";
import { HEARTBEAT_INTERVAL_MS } from "../core/lease.ts";
import type { WorkerMessage } from "../core/link.ts";
import type { RunnerToAgent } from "../core/runner-link.ts";
import type { WorkerInfo } from "../core/worker.ts";
import { Drain } from "./drain.ts";
import { forgetSession, NEW_TOKEN_HINT, openSession, type RegistrationOptions } from "./registration.ts";
import { RunnerClient } from "./runner-client.ts";
import { dial, ServerLink, type Dialled } from "./server-link.ts";
import { SpoolReader } from "./spool-reader.ts";

export interface AgentOptions {
  serverUrl: string;
  token: string | null;
  tokenFile: string | null;
  directory: string;
  workerProgram: string;
  environment: Record<string, string | undefined>;
  /** Leave after this long without a server and without a job; null: never. */
  offlineExitMs: number | null;
  /**
   * Somebody started it by hand: when it is stopped it does not take leave, so that the next agent of
   * the directory is the same worker.
   */
  isStatic: boolean;
  describe(capabilities: readonly string[]): Promise<WorkerInfo>;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** How the agent ended. */
export interface AgentEnd {
  exitCode: number;
  message: string;
}

/** How long an agent that may leave without a server keeps results for it. */
const KEEP_RESULTS_MS = 24 * 60 * 60_000;
const UNREGISTER_TIMEOUT_MS = 5_000;
/** Of an agent that has handed over: whoever runs it shall start it again (EX_TEMPFAIL of sysexits.h). */
export const HANDED_OVER_EXIT_CODE = 75;

/** What becomes of the runner when its agent leaves: it kills what runs and ends, ends when it may, or stays. */
type RunnerFate = "kill" | "end" | "keep";

export class Agent implements Service {
  /** Resolves when the agent has left or failed. */
  readonly done: Promise<AgentEnd>;
  readonly #options: AgentOptions;
  readonly #session = newAgentSession();
  readonly #spool: SpoolReader;
  readonly #server: Dialled;
  readonly #runner: RunnerClient;
  readonly #stopped = new AbortController();
  readonly #drain: Drain;
  /** Of the lease, which goes on while the machine sleeps. */
  readonly #bootNowMs: () => number;
  #link: ServerLink | null = null;
  #worker: WorkerInfo | null = null;
  #sessionToken = "";
  #lastLogAttempt: string | null = null;
  #isUnregistering = false;
  /** Why the server wants it to finish and leave; null while it does not. */
  #sentAwayBecause: string | null = null;
  /** Of the heartbeat that said that it takes no more jobs. */
  #drainSequence: number | null = null;
  #isLeaving = false;
  #end: (end: AgentEnd) => void = () => {};
  #callOffTick: () => void = () => {};
  #runnerIsReady: (capabilities: string[]) => void = () => {};

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#bootNowMs = bootClock();
    this.#spool = new SpoolReader(options.directory);
    this.#server = dial(options.serverUrl);
    const capabilities = new Promise<string[]>((resolve) => {
      this.#runnerIsReady = resolve;
    });
    this.#runner = new RunnerClient({
      directory: options.directory,
      workerProgram: options.workerProgram,
      environment: options.environment,
      clock: options.clock,
      log: options.log,
      onMessage: (message) => this.#onRunnerMessage(message),
    });
    this.#drain = new Drain({
      session: this.#session,
      clock: options.clock,
      log: options.log,
      kill: (attemptId) => this.#runner.send({ type: "control", attemptId, action: "kill" }),
      onTimeOver: () => void this.#leaveUndrained(),
    });
    this.done = new Promise((resolve) => {
      this.#end = resolve;
    });
    void this.#start(capabilities);
  }

  /** Kills what runs, ends the runner and leaves. */
  async stop(): Promise<void> {
    await this.#leave({ exitCode: 0, message: "stopped" }, "kill");
    await this.done;
  }

  /**
   * Takes no more jobs, goes on with what runs for as long as it may, then ends the rest, and leaves
   * when the server knows what became of it. Called again, it does not wait any longer.
   */
  drain(timeoutMs: number): void {
    this.#perform(onDrainWanted(this.#session, this.#bootNowMs()));
    this.#drainSequence ??= this.#session.heartbeatSequence;
    this.#drain.begin(timeoutMs);
    this.#leaveIfDone();
  }

  /** Leaves the runner with all it holds to the next agent of this directory. */
  async handOver(): Promise<void> {
    await this.#leave({ exitCode: HANDED_OVER_EXIT_CODE, message: "handed over" }, "keep");
    await this.done;
  }

  /** Registration does not wait for the runner, which takes as long to start. */
  async #start(capabilities: Promise<string[]>): Promise<void> {
    const { clock, random, log, directory, serverUrl, token, tokenFile } = this.#options;
    try {
      this.#worker = await this.#options.describe([]);
      const registration: RegistrationOptions = {
        directory,
        server: this.#server,
        serverUrl,
        worker: this.#worker,
        token,
        tokenFile,
        clock,
        random,
        log,
      };
      const session = await openSession(registration, this.#stopped.signal);
      this.#sessionToken = session.sessionToken;
      this.#worker = {
        ...this.#worker,
        workerId: session.workerId,
        capabilities: await capabilities,
      };
      if (this.#stopped.signal.aborted) return;
      this.#link = this.#openLink(this.#worker, session.sessionToken);
      this.#tick();
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      log.error({ err: error }, "agent cannot start");
      await this.#leave({ exitCode: AGENT_REFUSED, message: errorMessage(error) }, "kill");
    }
  }

  #openLink(worker: WorkerInfo, sessionToken: string): ServerLink {
    const { clock, random, log, serverUrl } = this.#options;
    return new ServerLink({
      server: this.#server,
      sessionToken,
      clock,
      random,
      log,
      hello: () => helloMessage(this.#session, worker, this.#bootNowMs()),
      onMessage: (message) => {
        if (message.type === "welcome")
          log.info({ workerId: worker.workerId, server: serverUrl }, "connected");
        if (message.type === "drain") this.#sentAwayBecause = message.reason;
        this.#perform(onServerMessage(this.#session, message, this.#bootNowMs()));
        this.#link?.wake();
        this.#drain.onChange();
        this.#leaveIfDone();
      },
      onClosed: () => {
        onStreamClosed(this.#session);
        // The word it waited for will not come.
        if (this.#keepsItsPlace()) this.#leaveIfDone();
      },
      nextLog: () => this.#nextLog(),
      onRevoked: (message) => {
        log.error({ reason: message }, "the server does not know this worker any more");
        void this.#onRevoked(message);
      },
    });
  }

  #tick(): void {
    const { clock, offlineExitMs } = this.#options;
    this.#callOffTick = clock.schedule(HEARTBEAT_INTERVAL_MS, () => this.#tick());
    this.#perform(onHeartbeatDue(this.#session, this.#bootNowMs()));
    const since = this.#link?.offlineSinceMs ?? null;
    if (offlineExitMs === null || since === null) return;
    const attempts = [...this.#session.attempts.values()];
    if (attempts.some(({ phase }) => phase !== "finished")) return;
    const patienceMs = attempts.length > 0 ? Math.max(offlineExitMs, KEEP_RESULTS_MS) : offlineExitMs;
    if (clock.monotonicMs() - since > patienceMs) {
      void this.#leave({ exitCode: 0, message: "no server for too long" }, "kill");
    }
  }

  #onRunnerMessage(message: RunnerToAgent): void {
    this.#perform(onRunnerMessage(this.#session, message, this.#bootNowMs()));
    if (message.type === "hello") this.#runnerIsReady(message.capabilities);
    if (message.type === "log" || message.type === "result") this.#link?.wake();
    if (message.type === "broken") {
      this.#options.log.error({ reason: message.message }, "this worker takes no more jobs");
    }
  }

  #perform(actions: readonly AgentAction[]): void {
    for (const action of actions) {
      if (action.to === "server") {
        this.#link?.send(action.message);
      } else if (action.to === "runner") {
        if (action.message.type === "forget") void this.#forgetSpool(action.message.attemptId);
        this.#runner.send(action.message);
      } else {
        this.#link?.reconnect();
      }
    }
  }

  async #nextLog(): Promise<WorkerMessage | null> {
    const range = nextLogRange(this.#session, this.#lastLogAttempt);
    if (range === null) return null;
    const { attemptId, offset } = range;
    this.#lastLogAttempt = attemptId;
    const logEnd = this.#session.attempts.get(attemptId)?.logEnd ?? 0;
    try {
      const data = await this.#spool.read({ ...range, logEnd });
      onLogSent(this.#session, { attemptId, logSent: offset + data.byteLength });
      return { type: "log_batch", attemptId, offset, data };
    } catch (error) {
      // Forgotten while it was read: then nobody wants these bytes any more.
      if (!this.#session.attempts.has(attemptId)) return null;
      this.#options.log.error({ err: error, attemptId }, "could not read the spool, giving up the attempt");
      this.#perform(onLogUnreadable(this.#session, attemptId));
      // There may be log of others.
      this.#link?.wake();
      return null;
    }
  }

  async #forgetSpool(attemptId: string): Promise<void> {
    try {
      await this.#spool.forget(attemptId);
    } catch (error) {
      this.#options.log.warn({ err: error, attemptId }, "could not close the spool");
    }
  }

  #leaveIfDone(): void {
    if (!mayLeave(this.#session)) return;
    if (this.#link) void this.#leaveDrained();
    // The server has never heard of this agent: it is not registered yet.
    else void this.#leave({ exitCode: 0, message: "stopped" }, "end");
  }

  /** The server has the last word: a job may be on its way here, and then there is one more to do. */
  async #leaveDrained(): Promise<void> {
    if (this.#isUnregistering || this.#isLeaving) return;
    if (this.#keepsItsPlace()) {
      if (this.#isDrainHeard()) await this.#leave({ exitCode: 0, message: "stopped" }, "end");
      return;
    }
    this.#isUnregistering = true;
    const mayGo = await this.#unregister();
    this.#isUnregistering = false;
    if (!mayGo || !mayLeave(this.#session)) return;
    await this.#forgetSession();
    const because = this.#sentAwayBecause;
    const message = because === null ? "drained" : `drained, as the server wanted: ${because}`;
    await this.#leave({ exitCode: 0, message }, "end");
  }

  #keepsItsPlace(): boolean {
    return this.#options.isStatic && this.#drainSequence !== null && this.#sentAwayBecause === null;
  }

  /** From the answer on the server gives it no more jobs. Nobody to answer has none to give. */
  #isDrainHeard(): boolean {
    return this.#drainSequence === null || !this.#session.heartbeatsSent.has(this.#drainSequence);
  }

  /** What the server has not taken stays with the runner, for the next agent of this directory. */
  async #leaveUndrained(): Promise<void> {
    const { attempts } = this.#session;
    if (attempts.size > 0) {
      const attemptIds = [...attempts.keys()];
      this.#options.log.warn({ attemptIds }, "leaving before the server has taken every result");
    }
    await this.#leave({ exitCode: 0, message: "stopped" }, attempts.size > 0 ? "keep" : "kill");
  }

  async #onRevoked(message: string): Promise<void> {
    await this.#forgetSession();
    const hint = this.#options.isStatic
      ? `; it was removed, or the server has another database: ${NEW_TOKEN_HINT}, with which this directory may be used again`
      : "";
    await this.#leave({ exitCode: AGENT_REFUSED, message: `${message}${hint}` }, "kill");
  }

  async #forgetSession(): Promise<void> {
    const { directory, log } = this.#options;
    try {
      await forgetSession(directory);
    } catch (error) {
      log.warn({ err: error }, "could not remove the session");
    }
  }

  /** Each part is ended whatever becomes of the others. */
  async #leave(end: AgentEnd, fate: RunnerFate): Promise<void> {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    this.#callOffTick();
    this.#drain.stop();
    this.#stopped.abort();
    const parts = [
      {
        stop: () => (fate === "keep" ? this.#runner.stop() : this.#runner.shutDownRunner(fate === "kill")),
      },
      { stop: async () => this.#link?.stop() },
      { stop: () => this.#spool.close() },
    ];
    try {
      await stopAll(parts);
    } catch (error) {
      this.#options.log.warn({ err: error }, "could not leave in good order");
    }
    this.#server.close();
    this.#end(end);
  }

  /** So that the server knows at once; if it cannot be reached, its provider finds out. */
  async #unregister(): Promise<boolean> {
    const headers = { authorization: `Bearer ${this.#sessionToken}` };
    try {
      await this.#server.client.unregister(
        { reason: "drained" },
        { headers, timeoutMs: UNREGISTER_TIMEOUT_MS },
      );
      return true;
    } catch (error) {
      this.#options.log.warn({ err: errorMessage(error) }, "could not take leave of the server");
      return ConnectError.from(error).code !== Code.FailedPrecondition;
    }
  }
}
