/**
 * What makes machines: the platform, which outlives every server, and the provider through which one
 * server process speaks to it. Calls can fail before or after their effect, hang, and events get lost.
 */

import { AppError } from "../src/base/errors.ts";
import type {
  InstanceState,
  Provider,
  ProviderEvent,
  ProviderHealth,
  WorkerHandle,
  WorkerSpec,
} from "../src/providers/provider.ts";
import type { SimMachine } from "./sim-machine.ts";
import type { SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";
import type { VirtualTime } from "./virtual-time.ts";

export interface PlatformConditions {
  maxCreateMs: number;
  /** How often a call fails, or lies about its failure. */
  errorRate: number;
  /** How often nobody hears that a machine is gone. */
  lostEventRate: number;
}

const RUNNER_END_MS = 5_000;
const MAX_RESTARTS = 5;
const MAX_RESTART_DELAY_MS = 2_000;
/** A call that hangs is answered so late that nobody waits any more. */
const HANG_MS = 300_000;

export class SimPlatform {
  readonly time: VirtualTime;
  readonly random: SimRandom;
  readonly conditions: PlatformConditions;
  readonly machines = new Map<string, SimMachine>();
  readonly #makeMachine: (
    spec: WorkerSpec,
    onAgentExit: (machine: SimMachine, code: number | null) => void,
  ) => SimMachine;
  readonly #listeners = new Set<(event: ProviderEvent) => void>();
  readonly #made = new Set<string>();

  constructor(deps: {
    time: VirtualTime;
    random: SimRandom;
    conditions: PlatformConditions;
    makeMachine: (
      spec: WorkerSpec,
      onAgentExit: (machine: SimMachine, code: number | null) => void,
    ) => SimMachine;
  }) {
    this.time = deps.time;
    this.random = deps.random;
    this.conditions = deps.conditions;
    this.#makeMachine = deps.makeMachine;
  }

  /** The machines that exist. */
  all(): SimMachine[] {
    return [...this.machines.values()];
  }

  make(spec: WorkerSpec): void {
    if (this.#made.has(spec.workerId)) return;
    this.#made.add(spec.workerId);
    const machine = this.#makeMachine(spec, (of, code) => this.#onAgentExit(of, code));
    this.machines.set(spec.workerId, machine);
    machine.startAgent();
  }

  /** One that is destroyed before it was made is made all the same, a little later. */
  destroy(workerId: string): void {
    this.machines.get(workerId)?.vanish();
    this.machines.delete(workerId);
  }

  /** The machine breaks down. */
  lose(machine: SimMachine, message: string): void {
    this.destroy(machine.spec.workerId);
    if (this.random.chance(this.conditions.lostEventRate)) return;
    this.time.schedule(this.random.between(1, 2_000), () => {
      for (const listener of this.#listeners)
        listener({ type: "gone", workerId: machine.spec.workerId, message });
    });
  }

  listen(listener: (event: ProviderEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #onAgentExit(machine: SimMachine, code: number | null): void {
    if (machine.isGone) return;
    if (code === 0) {
      this.time.schedule(machine.runner ? RUNNER_END_MS : 1, () => this.lose(machine, "the agent has left"));
      return;
    }
    machine.restarts += 1;
    if (machine.runner === null || machine.restarts > MAX_RESTARTS) {
      this.lose(machine, "the agent cannot be kept running");
      return;
    }
    this.time.schedule(this.random.between(500, MAX_RESTART_DELAY_MS), () => {
      if (machine.agent === null) machine.startAgent();
    });
  }
}

/** The provider of one server process. */
export class SimProvider implements Provider {
  readonly name = "sim";
  readonly capabilities = { events: true };
  readonly #platform: SimPlatform;
  readonly #process: SimProcess;

  constructor(platform: SimPlatform, process: SimProcess) {
    this.#platform = platform;
    this.#process = process;
  }

  create(spec: WorkerSpec): Promise<WorkerHandle> {
    const { random, conditions } = this.#platform;
    const handle = { workerId: spec.workerId, instanceId: spec.name };
    const make = (): WorkerHandle => {
      this.#platform.make(spec);
      return handle;
    };
    return this.#call("create", { delayMs: random.between(1, conditions.maxCreateMs), run: make });
  }

  async destroy(workerId: string): Promise<void> {
    const run = (): void => this.#platform.destroy(workerId);
    await this.#call("destroy", { delayMs: this.#platform.random.between(1, 500), run });
  }

  inspect(workerId: string): Promise<InstanceState> {
    const run = (): InstanceState => (this.#platform.machines.has(workerId) ? "running" : "gone");
    return this.#call("inspect", { delayMs: 1, run });
  }

  list(): Promise<WorkerHandle[]> {
    const run = (): WorkerHandle[] =>
      this.#platform.all().map(({ spec }) => ({ workerId: spec.workerId, instanceId: spec.name }));
    return this.#call("list", { delayMs: 1, run });
  }

  async healthCheck(): Promise<ProviderHealth> {
    return { status: "healthy" };
  }

  onEvent(listener: (event: ProviderEvent) => void): () => void {
    return this.#platform.listen((event) => this.#process.deliver(() => listener(event)));
  }

  async close(): Promise<void> {}

  #call<T>(verb: string, { delayMs, run }: { delayMs: number; run: () => T }): Promise<T> {
    const { random, conditions, time } = this.#platform;
    const fails = random.chance(conditions.errorRate);
    const hasEffect = !fails || random.chance(0.5);
    const hangs = fails && random.chance(0.2);
    return new Promise((resolve, reject) => {
      // On the platform's own time: what was asked for happens also if the caller dies.
      time.schedule(delayMs, () => {
        const result = hasEffect ? run() : null;
        this.#process.deliverAfter(hangs ? HANG_MS : 0.1, () => {
          if (fails) reject(new AppError("unavailable", `${verb}: the platform failed`));
          else resolve(result as T);
        });
      });
    });
  }
}
