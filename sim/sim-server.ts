/**
 * One life of the server process: the real parts, put together as in src/server/wiring.ts, over a
 * connection to the database, a disk and a provider that are simulated.
 */

import { silentLogger } from "../src/base/log.ts";
import { Loop } from "../src/base/loop.ts";
import { stopAll, type Service } from "../src/base/service.ts";
import { steadyClock } from "../src/base/steady-clock.ts";
import { isFinal, type Job } from "../src/core/job.ts";
import { poolWith } from "../src/core/pool.ts";
import type { WorkerCapacity } from "../src/core/worker.ts";
import { jobsApi } from "../src/server/api/jobs.ts";
import type { LogReader } from "../src/server/api/logs.ts";
import { Submissions } from "../src/server/api/submissions.ts";
import { workersApi } from "../src/server/api/workers.ts";
import { JobBus } from "../src/server/job-bus.ts";
import { deadlineRound } from "../src/server/loops/deadlines.ts";
import { livenessRound } from "../src/server/loops/liveness.ts";
import { Scheduler } from "../src/server/loops/scheduling.ts";
import { fixedPools, poolOf, type Pool } from "../src/server/pools/pool.ts";
import { Provisioner } from "../src/server/pools/provisioner.ts";
import { ProvisioningLoops } from "../src/server/pools/provisioning-loops.ts";
import { createSchedulerView } from "../src/server/scheduling/scheduling-desk.ts";
import { SchedulingState } from "../src/server/scheduling/scheduling-state.ts";
import { HeartbeatWriter } from "../src/server/workers/heartbeat-writer.ts";
import { linkApi } from "../src/server/workers/link-api.ts";
import { WorkerConnections } from "../src/server/workers/worker-connections.ts";
import type { Store } from "../src/storage/store.ts";
import { SimLogs, type ServerDisk } from "./sim-logs.ts";
import type { SimNetwork } from "./sim-network.ts";
import { SimProvider, type SimPlatform } from "./sim-platform.ts";
import { SimProcess, type SimHost } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";
import type { SimDatabase } from "./sim-store.ts";

const SCHEDULING_PERIOD_MS = 1_000;
const DEADLINE_PERIOD_MS = 1_000;
const LIVENESS_PERIOD_MS = 5_000;

export interface ServerParts {
  host: SimHost;
  random: SimRandom;
  network: SimNetwork;
  database: SimDatabase;
  disk: ServerDisk;
  platform: SimPlatform;
  pool: { capacity: WorkerCapacity; maxWorkers: number; idleTimeoutMs: number; ephemeral: boolean };
}

type Apis = ReturnType<typeof jobsApi> & ReturnType<typeof workersApi>;

export class SimServer {
  readonly process: SimProcess;
  /** The time that deadlines are counted in. */
  readonly nowMs: () => number;
  readonly #parts: ServerParts;
  #api: Apis | null = null;
  #stop: () => Promise<void> = async () => {};

  constructor(parts: ServerParts) {
    this.#parts = parts;
    this.process = new SimProcess(parts.host, "server");
    const clock = steadyClock(this.process.clock, silentLogger, () => parts.host.bootMs);
    this.nowMs = () => clock.nowMs();
    this.process.onDeath(() => {
      if (parts.network.listener?.process === this.process) parts.network.listener = null;
    });
    void this.#start(clock);
  }

  /** Null while it starts. */
  get api(): Apis | null {
    return this.#api;
  }

  get isServing(): boolean {
    return this.process.isAlive && this.#api !== null;
  }

  /** SIGTERM: sends the workers away, finishes what is under way, and ends. */
  async stopInOrder(): Promise<void> {
    await this.#stop();
    this.process.kill();
  }

  /** A server that cannot start ends, as a supervisor expects. */
  async #start(clock: SimProcess["clock"]): Promise<void> {
    const { random, network, database, disk, platform } = this.#parts;
    const store = database.connect(this.process);
    const pool = simPool(this.#parts.pool, new SimProvider(platform, this.process));
    const nothing = (): void => {};
    const hints = { scheduling: nothing, provisioning: nothing };
    const events = new JobBus();
    const connections = new WorkerConnections((name) => (name === pool.name ? pool.definition : null));
    const plannedPools = () => provisioner.plannedPools();
    const scheduling = new SchedulingState({ store, connections, clock, plannedPools });
    const shared: SharedParts = {
      store,
      clock,
      random,
      log: silentLogger,
      connections,
      scheduling,
      onJobChanged(job: Job): void {
        events.publish(job);
        scheduling.onJobChanged(job);
        if (isFinal(job.state) || job.state === "pending") hints.scheduling();
      },
      onWanted(job: Job): void {
        connections.jobSeen(job);
        shared.onJobChanged(job);
      },
      onRoom: () => hints.scheduling(),
      onIdle: () => hints.provisioning(),
    };
    const heartbeats = new HeartbeatWriter({ store, clock, log: silentLogger });
    const logs = new SimLogs({ disk, process: this.process, store });
    const provisioner = new Provisioner({ ...shared, pools: fixedPools([pool]), serverUrl: () => "sim" });
    try {
      await store.version();
      await scheduling.load();
      network.listener = { process: this.process, link: linkApi({ ...shared, logs, heartbeats }) };
      await provisioner.adopt();
    } catch {
      this.process.kill();
      return;
    }
    const loops = this.#startLoops(shared, provisioner, hints);
    this.#api = this.#makeApi(shared, events);
    const stopping: Service[] = [
      loops,
      { stop: async () => provisioner.stopListening() },
      shared.connections,
      heartbeats,
    ];
    this.#stop = () => {
      this.#api = null;
      if (network.listener?.process === this.process) network.listener = null;
      return stopAll(stopping);
    };
  }

  #startLoops(
    shared: SharedParts,
    provisioner: Provisioner,
    hints: { scheduling(): void; provisioning(): void },
  ): Service {
    const { clock } = shared;
    const loop = (name: string, periodMs: number, run: (signal: AbortSignal) => Promise<void>): Loop =>
      new Loop({ name, periodMs, run, clock, log: silentLogger });
    const provisioning = new ProvisioningLoops({ provisioner, clock, log: silentLogger });
    const scheduler = new Scheduler({
      ...shared,
      state: shared.scheduling,
      provision: (wanted) => provisioner.provision(wanted),
      hint: () => hints.scheduling(),
    });
    const scheduling = loop("scheduling", SCHEDULING_PERIOD_MS, (signal) => scheduler.round(signal));
    const deadlines = loop("deadlines", DEADLINE_PERIOD_MS, () => deadlineRound(shared));
    const liveness = loop("liveness", LIVENESS_PERIOD_MS, () => livenessRound(shared));
    hints.scheduling = () => scheduling.hint();
    hints.provisioning = () => provisioning.hint();
    return { stop: () => stopAll([scheduling, scheduler, provisioning, deadlines, liveness]) };
  }

  #makeApi(shared: SharedParts, events: JobBus): Apis {
    const { connections, onRoom, onIdle } = shared;
    const submissions = new Submissions({
      ...shared,
      scheduler: createSchedulerView(shared),
      onQueued: onRoom,
    });
    // Nobody reads logs through the API here.
    const logs: Pick<LogReader, "read"> = { async *read() {} };
    return {
      ...jobsApi({ ...shared, events, logs, submissions, onQueued: onRoom }),
      ...workersApi({
        ...shared,
        workerPort: { port: 9_090 },
        onDrained(workerId, reason) {
          connections.get(workerId)?.drain(reason);
          onIdle();
        },
        onCordoned: (workerId) => connections.noteCordon(workerId, shared.store),
        removeWorker: async () => false,
        removeStatic: async () => {},
      }),
    };
  }
}

function simPool({ capacity, ...limits }: ServerParts["pool"], provider: SimProvider): Pool {
  const { cpuMillis, memoryBytes, diskBytes, gpu, jobs } = capacity;
  const definition = poolWith({
    name: "sim",
    provider: { type: "process" },
    resources: { cpuMillis, memoryBytes, diskBytes, gpu },
    jobsPerWorker: jobs,
    ...limits,
  });
  return poolOf(definition, { provider, providerName: provider.name, machine: MACHINE });
}

const MACHINE = { cpuMillis: 4_000, memoryBytes: 2 ** 33, os: "sim", arch: "sim", hostname: "sim" };

interface SharedParts {
  store: Store;
  clock: SimProcess["clock"];
  random: SimRandom;
  log: typeof silentLogger;
  connections: WorkerConnections;
  scheduling: SchedulingState;
  onJobChanged(job: Job): void;
  onWanted(job: Job): void;
  onRoom(): void;
  onIdle(): void;
}
