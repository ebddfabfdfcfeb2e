/** The model of the runner process: what src/runner/runner.ts keeps and promises. */

import type { AgentToRunner, RunnerToAgent } from "../src/core/runner-link.ts";
import { UNKILLABLE_AFTER_MS } from "../src/runner/tree/process-tree.ts";
import { parseScript } from "./job-script.ts";
import { localSocket, type LocalSocket, type SocketEnd } from "./local-socket.ts";
import { SimAttempt, type AttemptHost, type AttemptOrder } from "./sim-attempt.ts";
import type { SimMachine } from "./sim-machine.ts";
import { SimProcess } from "./sim-process.ts";
import { SimTree } from "./sim-tree.ts";

const TICK_MS = 1_000;
const IDLE_EXIT_MS = 60_000;
const STRAY_ROUND_MS = 50;
const STUCK_RETRY_MS = 1_000;
const MAX_SPAWN_HANG_MS = 240_000;

export class SimRunner {
  readonly process: SimProcess;
  readonly #id: string;
  readonly #machine: SimMachine;
  readonly #attempts = new Map<string, SimAttempt>();
  readonly #host: AttemptHost;
  #isServing = false;
  #socket: SocketEnd<AgentToRunner, RunnerToAgent> | null = null;
  #renewedAtMs: number | null = null;
  #isShuttingDown = false;
  #isStopping = false;
  #silentSinceMs: number;
  #callOffTick: () => void = () => {};

  constructor(machine: SimMachine) {
    this.#machine = machine;
    this.process = new SimProcess(machine.host, `runner of ${machine.name}`);
    this.#id = `${machine.name} at ${machine.host.bootMs}`;
    const { clock } = this.process;
    this.#silentSinceMs = clock.monotonicMs();
    this.#host = {
      clock,
      bootNowMs: () => machine.host.bootMs,
      renewedAtMs: () => this.#renewedAtMs,
      spawnMs: () => this.#spawnMs(),
      spoolLimitBytes: machine.conditions.spoolLimitBytes,
      deliver: (run) => this.process.deliver(run),
      send: (message) => this.#socket?.send(message),
      startTree: (order, listener) => this.#startTree(order, listener),
      spool: (attemptId) => machine.spool(attemptId),
    };
    this.process.onDeath(() => {
      for (const tree of machine.trees) tree.orphan();
    });
    void this.#start();
  }

  /** The agent's connection, which takes the place of an older one. */
  connect(agent: SimProcess): LocalSocket["agent"] {
    const socket = localSocket(agent, this.process);
    this.#socket?.close();
    const mine = socket.runner;
    this.#socket = mine;
    mine.onClose = () => {
      if (this.#socket !== mine) return;
      this.#socket = null;
      this.#silentSinceMs = this.process.clock.monotonicMs();
    };
    mine.onMessage = (message) => {
      if (this.#socket === mine) this.#handle(message);
    };
    if (this.#isServing) this.process.deliver(() => this.#greet());
    return socket.agent;
  }

  async #start(): Promise<void> {
    await this.#killStrays();
    this.#machine.clearSpools();
    this.#isServing = true;
    if (this.#socket) this.#greet();
    this.#tick();
  }

  /** Until nothing is left the agent hears no hello: what is not in there the server takes for dead. */
  async #killStrays(): Promise<void> {
    const { clock } = this.process;
    const brokenMs = clock.monotonicMs() + UNKILLABLE_AFTER_MS;
    for (;;) {
      const left = (await Promise.all(this.#machine.trees.map((tree) => tree.killRound()))).flat();
      if (left.length === 0) return;
      const isStuck = clock.monotonicMs() >= brokenMs;
      if (isStuck) this.#socket?.send({ type: "broken", message: "processes cannot be ended" });
      await clock.sleep(isStuck ? STUCK_RETRY_MS : STRAY_ROUND_MS);
    }
  }

  #greet(): void {
    this.#socket?.send({
      type: "hello",
      runnerId: this.#id,
      pid: 1,
      version: "sim",
      capabilities: ["script", "pause"],
      attempts: [...this.#attempts.values()].map((attempt) => attempt.snapshot()),
    });
  }

  #spawnMs(): number {
    const { random, conditions } = this.#machine;
    if (random.chance(conditions.spawnHangRate)) return random.between(5_000, MAX_SPAWN_HANG_MS);
    return random.between(1, conditions.maxSpawnMs);
  }

  /** Drops the connection; both ends are alive and find each other again. */
  cutSocket(): void {
    this.#socket?.close();
  }

  #handle(message: AgentToRunner): void {
    switch (message.type) {
      case "run":
        this.#run(message);
        break;
      case "control": {
        const { attemptId, action } = message;
        const error = this.#attempts.get(attemptId)?.control(action) ?? "the attempt is not known here";
        this.#socket?.send({ type: "control_ack", attemptId, action, error });
        break;
      }
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
        this.#isShuttingDown = true;
        if (message.kill) for (const attempt of this.#attempts.values()) attempt.control("kill");
        this.#exitIfDone();
        break;
    }
  }

  #run({ type: _, ...order }: Extract<AgentToRunner, { type: "run" }>): void {
    const known = this.#attempts.get(order.attemptId);
    if (known) {
      known.announce();
      return;
    }
    this.#attempts.set(order.attemptId, new SimAttempt(order, this.#host));
    this.#socket?.send({ type: "accepted", attemptId: order.attemptId });
    this.#tick();
  }

  #startTree(order: AttemptOrder, listener: ConstructorParameters<typeof SimTree>[2]["listener"]): SimTree {
    const { command } = order.definition;
    if (command?.kind !== "script") throw new Error("a simulated job has a script");
    const script = parseScript(command.content);
    const { checker } = this.#machine;
    const { attemptId, jobId } = order;
    const tree = new SimTree(this.#machine.host, { attemptId, jobId, script }, { checker, listener });
    this.#machine.trees.push(tree);
    return tree;
  }

  async #forget(attemptId: string): Promise<void> {
    const attempt = this.#attempts.get(attemptId);
    if (!attempt) return;
    if (!attempt.isFinished) {
      attempt.control("kill");
      await attempt.finished;
    }
    if (!this.#attempts.delete(attemptId)) return;
    this.#machine.removeSpool(attemptId);
    this.#exitIfDone();
  }

  #renewLeases(leaseFromMs: number): void {
    const renewedAtMs = Math.min(leaseFromMs, this.#machine.host.bootMs);
    this.#renewedAtMs = Math.max(this.#renewedAtMs ?? renewedAtMs, renewedAtMs);
    for (const attempt of this.#attempts.values()) attempt.renewLease(renewedAtMs);
  }

  #tick(): void {
    if (this.#isStopping || !this.#isServing) return;
    this.#callOffTick();
    const nowMs = this.#machine.host.bootMs;
    let nextMs = TICK_MS;
    for (const attempt of this.#attempts.values()) {
      const endsAtMs = attempt.leaseEndsAtMs;
      if (endsAtMs === null) continue;
      if (endsAtMs <= nowMs) attempt.loseLease();
      else nextMs = Math.min(nextMs, endsAtMs - nowMs);
    }
    this.#exitIfDone();
    // An idle runner has no reason to look each second, but that it may be left alone.
    const waitMs = this.#attempts.size === 0 && nextMs === TICK_MS ? IDLE_EXIT_MS / 6 : nextMs;
    this.#callOffTick = this.process.clock.schedule(waitMs, () => this.#tick());
  }

  #exitIfDone(): void {
    const silentMs = this.#socket ? 0 : this.process.clock.monotonicMs() - this.#silentSinceMs;
    const isEmpty = this.#attempts.size === 0;
    if ((isEmpty && this.#isShuttingDown) || (isEmpty && silentMs >= IDLE_EXIT_MS)) void this.#stop();
  }

  async #stop(): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#callOffTick();
    for (const attempt of this.#attempts.values()) attempt.control("kill");
    await Promise.all([...this.#attempts.values()].map((attempt) => attempt.finished));
    this.#socket?.close();
    this.process.kill();
  }
}
