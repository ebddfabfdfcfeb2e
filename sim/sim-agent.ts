/**
 * The model of the agent: joins the runner and the server as src/agent/agent.ts does, with the same
 * session machine and the real ServerLink, over a socket and a spool that are simulated.
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { ServerLink, type Dialled } from "../src/agent/server-link.ts";
import { Backoff } from "../src/base/backoff.ts";
import { silentLogger } from "../src/base/log.ts";
import { stopAll } from "../src/base/service.ts";
import {
  helloMessage,
  mayLeave,
  newAgentSession,
  nextLogRange,
  onHeartbeatDue,
  onLogSent,
  onLogUnreadable,
  onRunnerMessage,
  onServerMessage,
  onStreamClosed,
  type AgentAction,
} from "../src/core/agent-session.ts";
import { HEARTBEAT_INTERVAL_MS } from "../src/core/lease.ts";
import { PROTOCOL_VERSION, type WorkerMessage } from "../src/core/link.ts";
import type { AgentToRunner, RunnerToAgent } from "../src/core/runner-link.ts";
import type { WorkerInfo } from "../src/core/worker.ts";
import { workerInfoToWire } from "../src/protocol/convert-worker.ts";
import type { SocketEnd } from "./local-socket.ts";
import type { SimMachine } from "./sim-machine.ts";
import { SimProcess } from "./sim-process.ts";

const REGISTER_TIMEOUT_MS = 15_000;
const UNREGISTER_TIMEOUT_MS = 5_000;
const SHUTDOWN_TIMEOUT_MS = 8_000;
const RUNNER_RETRY_MS = 20;
const KEEP_RESULTS_MS = 24 * 60 * 60_000;

export class SimAgent {
  readonly process: SimProcess;
  readonly #machine: SimMachine;
  readonly #onExit: (code: number) => void;
  readonly #session = newAgentSession();
  readonly #server: Dialled;
  readonly #stopped = new AbortController();
  #link: ServerLink | null = null;
  #runner: SocketEnd<RunnerToAgent, AgentToRunner> | null = null;
  #hasGreeted = false;
  #runnerIsReady: () => void = () => {};
  #sessionToken = "";
  #lastLogAttempt: string | null = null;
  #isUnregistering = false;
  #isLeaving = false;
  #callOffTick: () => void = () => {};

  constructor(machine: SimMachine, onExit: (code: number) => void) {
    this.#machine = machine;
    this.#onExit = onExit;
    this.process = new SimProcess(machine.host, `agent of ${machine.name}`);
    this.#server = machine.link.dial(this.process);
    this.process.deliverAfter(machine.random.between(1, machine.conditions.maxStartMs), () => {
      const ready = new Promise<void>((resolve) => (this.#runnerIsReady = resolve));
      this.#connectRunner();
      void this.#start(ready);
    });
  }

  async #start(runnerIsReady: Promise<void>): Promise<void> {
    try {
      const session = await this.#openSession();
      this.#sessionToken = session.sessionToken;
      await runnerIsReady;
      if (this.#stopped.signal.aborted) return;
      this.#link = this.#openLink({ ...this.#describe(), workerId: session.workerId });
      this.#tick();
    } catch {
      // A token that was refused: waiting does not mend it.
      if (!this.#stopped.signal.aborted) await this.#leave(1, true);
    }
  }

  #describe(): WorkerInfo {
    const { spec } = this.#machine;
    return {
      workerId: spec.workerId,
      name: spec.name,
      version: "sim",
      hostname: spec.name,
      ipAddress: "127.0.0.1",
      capacity: spec.capacity,
      capabilities: ["script", "pause"],
      labels: spec.labels,
      taints: [],
    };
  }

  async #openSession(): Promise<{ workerId: string; sessionToken: string }> {
    const machine = this.#machine;
    if (machine.session) return machine.session;
    const registrationKey = Buffer.from(machine.random.bytes(8)).toString("hex");
    const backoff = new Backoff({ baseMs: 100, maxMs: 10_000 }, machine.random);
    const { signal } = this.#stopped;
    for (;;) {
      try {
        const answer = await this.#server.client.register(
          {
            token: machine.spec.token,
            worker: workerInfoToWire(this.#describe()),
            protocolVersion: PROTOCOL_VERSION,
            registrationKey,
          },
          { signal, timeoutMs: REGISTER_TIMEOUT_MS },
        );
        // The file is written; an agent that dies just now has used up its token for nothing.
        await this.process.clock.sleep(0.5);
        machine.session = { workerId: answer.workerId, sessionToken: answer.sessionToken };
        return machine.session;
      } catch (error) {
        const { code } = ConnectError.from(error);
        const transient = [Code.Unavailable, Code.DeadlineExceeded, Code.Internal, Code.Unknown];
        if (signal.aborted || !transient.includes(code)) throw error;
        this.#server.close();
        await this.process.clock.sleep(backoff.nextDelayMs(), signal);
      }
    }
  }

  #openLink(worker: WorkerInfo): ServerLink {
    const { clock } = this.process;
    return new ServerLink({
      server: this.#server,
      sessionToken: this.#sessionToken,
      clock,
      random: this.#machine.random,
      log: silentLogger,
      hello: () => helloMessage(this.#session, worker, this.#machine.host.bootMs),
      onMessage: (message) => {
        this.#perform(onServerMessage(this.#session, message, this.#machine.host.bootMs));
        this.#link?.wake();
        if (mayLeave(this.#session)) void this.#leaveDrained();
      },
      onClosed: () => onStreamClosed(this.#session),
      nextLog: () => this.#nextLog(),
      onRevoked: () => {
        this.#machine.session = null;
        void this.#leave(1, true);
      },
    });
  }

  #tick(): void {
    const { clock } = this.process;
    this.#callOffTick = clock.schedule(HEARTBEAT_INTERVAL_MS, () => this.#tick());
    this.#perform(onHeartbeatDue(this.#session, this.#machine.host.bootMs));
    const { offlineExitMs } = this.#machine.conditions;
    const since = this.#link?.offlineSinceMs ?? null;
    if (offlineExitMs === null || since === null) return;
    const attempts = [...this.#session.attempts.values()];
    if (attempts.some(({ phase }) => phase !== "finished")) return;
    const patienceMs = attempts.length > 0 ? Math.max(offlineExitMs, KEEP_RESULTS_MS) : offlineExitMs;
    if (clock.monotonicMs() - since > patienceMs) void this.#leave(0, true);
  }

  // ── The runner ─────────────────────────────────────────────────────────────────────────────────

  #connectRunner(): void {
    if (this.#stopped.signal.aborted) return;
    const { runner, random, conditions } = this.#machine;
    if (runner === null) {
      const startMs = random.between(1, conditions.maxStartMs);
      this.process.deliverAfter(startMs, () => {
        if (this.#stopped.signal.aborted) return;
        this.#machine.startRunner();
        this.process.deliverAfter(RUNNER_RETRY_MS, () => this.#connectRunner());
      });
      return;
    }
    const socket = runner.connect(this.process);
    this.#runner = socket;
    socket.onMessage = (message) => this.#onRunnerMessage(message);
    socket.onClose = () => {
      this.#runner = null;
      this.#hasGreeted = false;
      this.#connectRunner();
    };
  }

  /** Dropped until the runner has said hello, as by the real client. */
  #sendToRunner(message: AgentToRunner): void {
    if (this.#hasGreeted) this.#runner?.send(message);
  }

  #onRunnerMessage(message: RunnerToAgent): void {
    if (message.type === "hello") this.#hasGreeted = true;
    this.#perform(onRunnerMessage(this.#session, message, this.#machine.host.bootMs));
    if (message.type === "hello") this.#runnerIsReady();
    if (message.type === "log" || message.type === "result") this.#link?.wake();
  }

  #perform(actions: readonly AgentAction[]): void {
    for (const action of actions) {
      if (action.to === "server") this.#link?.send(action.message);
      else if (action.to === "runner") this.#sendToRunner(action.message);
      else this.#link?.reconnect();
    }
  }

  async #nextLog(): Promise<WorkerMessage | null> {
    const range = nextLogRange(this.#session, this.#lastLogAttempt);
    if (range === null) return null;
    const { attemptId, offset } = range;
    this.#lastLogAttempt = attemptId;
    try {
      const data = this.#machine.readSpool(range);
      onLogSent(this.#session, { attemptId, logSent: offset + data.byteLength });
      return { type: "log_batch", attemptId, offset, data };
    } catch {
      // Forgotten while it was read, or lost: the session decides what becomes of the attempt.
      if (!this.#session.attempts.has(attemptId)) return null;
      this.#perform(onLogUnreadable(this.#session, attemptId));
      this.#link?.wake();
      return null;
    }
  }

  // ── The end ────────────────────────────────────────────────────────────────────────────────────

  async #leaveDrained(): Promise<void> {
    if (this.#isUnregistering || this.#isLeaving) return;
    this.#isUnregistering = true;
    const mayGo = await this.#unregister();
    this.#isUnregistering = false;
    if (mayGo && mayLeave(this.#session)) await this.#leave(0, false);
  }

  async #unregister(): Promise<boolean> {
    const headers = { authorization: `Bearer ${this.#sessionToken}` };
    try {
      await this.#server.client.unregister(
        { reason: "drained" },
        { headers, timeoutMs: UNREGISTER_TIMEOUT_MS },
      );
      return true;
    } catch (error) {
      return ConnectError.from(error).code !== Code.FailedPrecondition;
    }
  }

  async #leave(code: number, kill: boolean): Promise<void> {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    this.#callOffTick();
    this.#stopped.abort();
    await stopAll([{ stop: () => this.#shutDownRunner(kill) }, { stop: async () => this.#link?.stop() }]);
    this.#server.close();
    this.process.kill();
    this.#onExit(code);
  }

  async #shutDownRunner(kill: boolean): Promise<void> {
    const socket = this.#runner;
    if (!socket) return;
    const closed = new Promise<void>((resolve) => (socket.onClose = resolve));
    this.#sendToRunner({ type: "shutdown", kill });
    await Promise.race([closed, this.process.clock.sleep(SHUTDOWN_TIMEOUT_MS)]);
    socket.close();
  }
}
