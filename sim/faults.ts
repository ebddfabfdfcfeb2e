/** Breaks the cluster as the scenario says, and mends it at the end. */

import { WAKE_SLACK_MS } from "./checker.ts";
import type { Cluster } from "./cluster.ts";
import type { FaultName } from "./scenario.ts";
import type { SimMachine } from "./sim-machine.ts";
import type { SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";

/**
 * A runner that is stopped cannot keep the lease of jobs that go on, and nothing else does: the
 * margin of the lease covers a stop of this length and no longer one.
 */
const MAX_RUNNER_FREEZE_MS = 10_000;
/** The same holds for processes whose runner was killed, until the agent starts the next one. */
const MAX_AGENT_ABSENCE_MS = 3_000;
/**
 * What is stored was counted by the clock of an earlier start, so a step between two starts moves
 * every deadline: by no more than the slack of a time-out, or jobs would time out early.
 */
const MAX_RESTART_STEP_MS = 25_000;
const MAX_ECHO_MS = 4_000;
const MAX_FREE_STEP_MS = 2 * 60 * 60_000;

export class FaultInjector {
  readonly #cluster: Cluster;
  readonly #random: SimRandom;
  readonly #mends = new Set<() => void>();
  #isOver = false;
  readonly #baseOffsetMs: number;

  constructor(cluster: Cluster, random: SimRandom) {
    this.#cluster = cluster;
    this.#random = random;
    this.#baseOffsetMs = cluster.serverHost.wallOffsetMs;
  }

  begin(): void {
    for (const [name, meanMs] of this.#cluster.scenario.faults) this.#next(name, meanMs);
  }

  mendAll(): void {
    this.#isOver = true;
    for (const mend of [...this.#mends]) mend();
  }

  #next(name: FaultName, meanMs: number): void {
    this.#cluster.time.schedule(this.#random.waitMs(meanMs), () => {
      if (this.#isOver) return;
      this.#inject(name);
      this.#next(name, meanMs);
    });
  }

  #inject(name: FaultName): void {
    const machines = this.#cluster.platform.all();
    this.#break(name, machines.length > 0 ? this.#random.pick(machines) : null);
  }

  /** Troubles do not come alone: what happens right after another fault finds things half done. */
  #break(name: FaultName, machine: SimMachine | null): void {
    if (SERVER_FAULTS.has(name)) this.#breakServer(name);
    else if (machine === null || machine.isGone) return;
    else if (NETWORK_FAULTS.has(name)) this.#breakNetwork(name, machine);
    else this.#breakMachine(name, machine);
    const { scenario, time } = this.#cluster;
    if (!this.#random.chance(scenario.echoRate)) return;
    const next = this.#random.pick([...scenario.faults.keys()]);
    time.schedule(this.#random.between(0, MAX_ECHO_MS), () => {
      if (!this.#isOver) this.#break(next, machine);
    });
  }

  #breakServer(name: FaultName): void {
    const { server, database, disk, serverHost } = this.#cluster;
    const random = this.#random;
    this.#cluster.trace.add(`fault: ${name}`);
    switch (name) {
      case "server_killed":
        server?.process.kill();
        break;
      case "server_stopped":
        void server?.stopInOrder();
        break;
      case "server_frozen":
        if (server) this.#freeze(server.process, random.between(500, 70_000));
        break;
      case "database_away":
        database.isAway = true;
        this.#mendAfter(random.between(200, random.pick([5_000, 90_000])), () => (database.isAway = false));
        break;
      case "disk_full":
        disk.isFull = true;
        this.#mendAfter(random.between(500, 40_000), () => (disk.isFull = false));
        break;
      case "disk_slow":
        disk.isSlow = true;
        this.#mendAfter(random.between(500, 40_000), () => (disk.isSlow = false));
        break;
      case "clock_set":
        serverHost.wallOffsetMs = this.#baseOffsetMs + this.#clockStepMs();
        break;
      default:
        break;
    }
  }

  /** A server that runs ignores the step, whatever its size. One that is started anew follows it. */
  #clockStepMs(): number {
    const { faults, store } = this.#cluster.scenario;
    const restarts: FaultName[] = ["server_killed", "server_stopped", "database_away"];
    const mayRestart = restarts.some((name) => faults.has(name)) || store.errorRate > 0;
    if (!mayRestart) return this.#random.between(-MAX_FREE_STEP_MS, MAX_FREE_STEP_MS);
    return this.#random.between(-MAX_RESTART_STEP_MS, MAX_RESTART_STEP_MS) / 2;
  }

  #breakNetwork(name: FaultName, machine: SimMachine): void {
    const { link } = machine;
    const random = this.#random;
    this.#cluster.trace.add(`fault: ${name} of ${machine.name}`);
    if (name === "network_cut") link.cut();
    if (name === "stream_stalled") link.stall(random.between(500, 90_000));
    if (name !== "network_away") return;
    link.goAway();
    this.#mendAfter(random.between(500, random.pick([20_000, 150_000])), () => link.comeBack());
  }

  #breakMachine(name: FaultName, machine: SimMachine): void {
    const { platform, scenario, time } = this.#cluster;
    const random = this.#random;
    const hasRunnerKills = scenario.faults.has("runner_killed");
    const maxAbsenceMs = hasRunnerKills ? MAX_AGENT_ABSENCE_MS : random.pick([10_000, 100_000]);
    const { agent, runner, host } = machine;
    // Whoever must watch over the processes is spared while the other one is away already.
    const isUnwatched =
      runner === null || agent === null || runner.process.isStopped || agent.process.isStopped;
    const hasJustWoken = host.isSuspended || time.nowMs - host.resumedAtMs < 2 * WAKE_SLACK_MS;
    if (name !== "machine_lost" && (isUnwatched || hasJustWoken)) return;
    this.#cluster.trace.add(`fault: ${name} of ${machine.name}`);
    switch (name) {
      case "agent_killed":
        agent?.process.kill();
        this.#mendAfter(random.between(500, maxAbsenceMs), () => {
          if (machine.agent === null) machine.startAgent();
        });
        break;
      case "agent_frozen":
        if (agent) this.#freezeAgent(machine, agent.process, random.between(100, maxAbsenceMs));
        break;
      case "runner_killed":
        runner?.process.kill();
        break;
      case "runner_frozen":
        if (runner) this.#freeze(runner.process, random.between(100, MAX_RUNNER_FREEZE_MS));
        break;
      case "socket_cut":
        // A runner that is stopped says hello late: until then nothing can be told to it.
        if (runner) this.#freeze(runner.process, random.between(100, MAX_RUNNER_FREEZE_MS));
        runner?.cutSocket();
        break;
      case "machine_lost":
        platform.lose(machine, "the machine broke down");
        break;
      case "machine_suspended":
        host.suspend();
        this.#mendAfter(random.between(500, random.pick([20_000, 200_000])), () => host.resume());
        break;
      default:
        break;
    }
  }

  /** The network may go meanwhile: what came before that is read when the agent wakes. */
  #freezeAgent(machine: SimMachine, process: SimProcess, durationMs: number): void {
    this.#freeze(process, durationMs);
    const { scenario, time } = this.#cluster;
    if (!scenario.faults.has("network_away") || !this.#random.chance(0.5)) return;
    time.schedule(this.#random.between(0, durationMs), () => {
      if (!this.#isOver && !machine.isGone) this.#breakNetwork("network_away", machine);
    });
  }

  #freeze(process: SimProcess, durationMs: number): void {
    process.stop();
    this.#mendAfter(durationMs, () => process.proceed());
  }

  #mendAfter(delayMs: number, mend: () => void): void {
    const once = (): void => {
      if (!this.#mends.delete(once)) return;
      mend();
    };
    this.#mends.add(once);
    this.#cluster.time.schedule(delayMs, once);
  }
}

const SERVER_FAULTS: ReadonlySet<FaultName> = new Set<FaultName>([
  "server_killed",
  "server_stopped",
  "server_frozen",
  "database_away",
  "disk_full",
  "disk_slow",
  "clock_set",
]);
const NETWORK_FAULTS: ReadonlySet<FaultName> = new Set<FaultName>([
  "network_cut",
  "network_away",
  "stream_stalled",
]);
