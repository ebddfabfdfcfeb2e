/** A whole cluster from a seed: builds it, lets faults happen, lets it settle, and audits it. */

import { isFinal } from "../src/core/job.ts";
import type { WorkerSpec } from "../src/providers/provider.ts";
import { auditRecords } from "./audit.ts";
import { Checker } from "./checker.ts";
import { FaultInjector } from "./faults.ts";
import type { Violation } from "./rules.ts";
import { drawScenario, type Scenario } from "./scenario.ts";
import { ServerDisk } from "./sim-logs.ts";
import { SimMachine } from "./sim-machine.ts";
import { SimLink, SimNetwork } from "./sim-network.ts";
import { SimPlatform } from "./sim-platform.ts";
import { SimHost } from "./sim-process.ts";
import { SimRandom } from "./sim-random.ts";
import { SimServer } from "./sim-server.ts";
import { SimDatabase } from "./sim-store.ts";
import { Trace } from "./trace.ts";
import { SimUsers } from "./users.ts";
import { VirtualTime } from "./virtual-time.ts";

export interface RunResult {
  seed: number;
  violation: Violation | null;
  traceHash: string;
  lastLines: readonly string[];
  events: number;
  virtualMs: number;
  jobs: number;
}

/** How long a cluster without faults may take until every job has ended and every worker has left. */
const SETTLE_LIMIT_MS = 45 * 60_000;
/** A runner that cannot be told anything for a minute on end looks like one that does nothing. */
const MIN_CUT_INTERVAL_MS = 12_000;
const SWEEP_MS = 1_000;
/**
 * How long after its deadline a state may last while the server can act: a worker may need half a
 * minute to come back, and is then heard for half a minute before its word counts for the last one.
 */
const DEADLINE_SLACK_MS = 80_000;
/** How long a wish may take to reach a worker that can be reached. */
const WISH_SLACK_MS = 45_000;

export async function runSeed(
  seed: number,
  onLine: ((line: string) => void) | null = null,
): Promise<RunResult> {
  const cluster = new Cluster(drawScenario(seed), onLine);
  return await cluster.run();
}

export class Cluster {
  readonly scenario: Scenario;
  readonly time = new VirtualTime();
  readonly trace: Trace;
  readonly checker: Checker;
  readonly network: SimNetwork;
  readonly database: SimDatabase;
  readonly disk: ServerDisk;
  readonly platform: SimPlatform;
  readonly users: SimUsers;
  readonly serverHost: SimHost;
  server: SimServer | null = null;
  /** Since when nothing has been wrong with the server and what it needs. */
  calmSinceMs: number | null = null;
  readonly #faults: FaultInjector;
  #serverStarts = 0;
  #serverStartedAtMs = 0;
  #isSettled = false;
  readonly #wishes = new Map<string, number>();

  constructor(scenario: Scenario, onLine: ((line: string) => void) | null) {
    const { seed } = scenario;
    this.scenario = scenario;
    const { time } = this;
    this.trace = new Trace(time, onLine);
    this.checker = new Checker(time, this.trace);
    const { checker } = this;
    checker.hasFaults = scenario.hasFaults;
    checker.takesOneJob = scenario.pool.ephemeral;
    const meanCutMs = scenario.faults.get("socket_cut") ?? Number.POSITIVE_INFINITY;
    checker.mayResist = scenario.machine.spawnHangRate > 0 || meanCutMs < MIN_CUT_INTERVAL_MS;
    const random = (name: string): SimRandom => new SimRandom(seed, name);
    this.serverHost = new SimHost(time, "server");
    this.serverHost.wallOffsetMs = random("skew").between(-1, 1) * scenario.clockSkewMs;
    this.network = new SimNetwork({
      time,
      random: random("network"),
      conditions: { ...scenario.wire },
      faults: { halfOpen: scenario.halfOpen },
    });
    this.database = new SimDatabase({ random: random("store"), checker, conditions: { ...scenario.store } });
    this.disk = new ServerDisk({ random: random("disk"), checker, conditions: { ...scenario.disk } });
    checker.durableLog = (attemptId) => this.disk.durable(attemptId);
    this.platform = new SimPlatform({
      time,
      random: random("platform"),
      conditions: { ...scenario.platform },
      makeMachine: (spec, onAgentExit) => this.#makeMachine(spec, onAgentExit),
    });
    this.users = new SimUsers({
      time,
      random: random("users"),
      checker,
      lossRate: scenario.store.errorRate,
      server: () => this.server,
    });
    this.#faults = new FaultInjector(this, random("faults"));
  }

  async run(): Promise<RunResult> {
    const { scenario, time, users } = this;
    this.startServer();
    for (const submission of scenario.submissions) users.submit(submission);
    for (const atMs of scenario.drains) users.drainSomeWorker(atMs);
    this.#faults.begin();
    time.schedule(scenario.faultsMs, () => this.#calmDown());
    this.#sweep();
    const endMs = scenario.faultsMs + SETTLE_LIMIT_MS;
    const isOver = (): boolean => this.checker.violation !== null || this.#isSettled;
    const crash = (reason: unknown): void =>
      this.checker.fail("crashed", String((reason as Error)?.stack ?? reason));
    process.on("unhandledRejection", crash);
    process.on("uncaughtException", crash);
    try {
      await time
        .run({ endMs, isOver })
        .catch((error: unknown) => this.checker.fail("runs_away", String(error)));
      if (!isOver()) this.#failToSettle();
      if (this.checker.violation === null) await auditRecords(this);
    } finally {
      process.off("unhandledRejection", crash);
      process.off("uncaughtException", crash);
    }
    return {
      seed: scenario.seed,
      violation: this.checker.violation,
      traceHash: this.trace.hash,
      lastLines: this.trace.lastLines,
      events: time.events,
      virtualMs: time.nowMs,
      jobs: this.checker.jobs.size,
    };
  }

  /** Starts one, and another one whenever it ends. */
  startServer(): void {
    const { serverHost: host, network, database, disk, platform, scenario } = this;
    this.#serverStarts += 1;
    this.#serverStartedAtMs = this.time.nowMs;
    const random = new SimRandom(scenario.seed, `server ${this.#serverStarts}`);
    this.trace.add(`server starts (${this.#serverStarts})`);
    const server = new SimServer({
      host,
      random,
      network,
      database,
      disk,
      platform,
      pool: scenario.pool,
    });
    this.server = server;
    server.process.onDeath(() => {
      this.trace.add("server has ended");
      this.server = null;
      const delayMs = this.users.isCalm ? 500 : random.between(200, scenario.serverRestartMs);
      this.time.schedule(delayMs, () => this.startServer());
    });
  }

  #makeMachine(
    spec: WorkerSpec,
    onAgentExit: (machine: SimMachine, code: number | null) => void,
  ): SimMachine {
    const name = this.trace.name(spec.workerId, "w");
    const random = new SimRandom(this.scenario.seed, name);
    this.trace.add(`machine ${name} is made`);
    const machine = new SimMachine(
      { ...spec, name },
      {
        time: this.time,
        random,
        checker: this.checker,
        link: new SimLink(this.network),
        conditions: this.scenario.machine,
        onAgentExit,
      },
    );
    machine.host.wallOffsetMs = random.between(-1, 1) * this.scenario.clockSkewMs;
    return machine;
  }

  /** From here on nothing breaks any more, and all that was broken is mended. */
  #calmDown(): void {
    this.trace.add("the faults stop");
    this.calmSinceMs = this.time.nowMs;
    this.users.isCalm = true;
    this.network.faults.halfOpen = 0;
    this.database.conditions.errorRate = 0;
    this.platform.conditions.errorRate = 0;
    this.platform.conditions.lostEventRate = 0;
    this.#faults.mendAll();
    this.#resumeLoop();
  }

  #resumeLoop(): void {
    this.users.resumePaused();
    this.time.schedule(5_000, () => this.#resumeLoop());
  }

  #sweep(): void {
    this.checker.checkProcesses();
    if (this.calmSinceMs !== null) {
      this.#checkDeadlines();
      this.#checkWishes();
      this.#isSettled =
        this.users.isDone && this.platform.machines.size === 0 && this.checker.livingTrees.length === 0;
    }
    this.time.schedule(SWEEP_MS, () => this.#sweep());
  }

  #checkDeadlines(): void {
    const { server } = this;
    if (!server?.isServing || this.calmSinceMs === null) return;
    const calmMs = this.time.nowMs - Math.max(this.calmSinceMs, this.#serverStartedAtMs);
    for (const { job } of this.checker.jobs.values()) {
      if (isFinal(job.state)) continue;
      if (job.deadlineAtMs === null) {
        this.checker.fail("deadline_passed", `${this.trace.name(job.id, "j")} is ${job.state} without one`);
        continue;
      }
      const overMs = Math.min(server.nowMs() - job.deadlineAtMs, calmMs - job.definition.leaseMs);
      if (overMs <= DEADLINE_SLACK_MS) continue;
      this.checker.fail(
        "deadline_passed",
        `${this.trace.name(job.id, "j")} is ${job.state} ${Math.round(overMs)} ms too long`,
      );
    }
  }

  #checkWishes(): void {
    for (const tree of this.checker.livingTrees) {
      const job = this.checker.jobs.get(tree.jobId)?.job;
      if (!job || job.attemptId !== tree.attemptId || isFinal(job.state)) continue;
      // Nothing can be said to a runner that waits for the end of what cannot be ended.
      const isRight = tree.isUnkillable || job.state === "cancelling" || tree.isFrozen === job.pauseWanted;
      const sinceMs = Math.max(this.calmSinceMs ?? 0, this.#wishes.get(tree.attemptId) ?? this.time.nowMs);
      if (isRight) this.#wishes.delete(tree.attemptId);
      else if (this.time.nowMs - sinceMs > WISH_SLACK_MS) {
        this.checker.fail(
          "wish_ignored",
          `${this.trace.name(job.id, "j")} is ${job.state}, frozen: ${tree.isFrozen}`,
        );
      } else if (!this.#wishes.has(tree.attemptId)) this.#wishes.set(tree.attemptId, this.time.nowMs);
    }
  }

  #failToSettle(): void {
    const waiting = [...this.checker.jobs.values()].filter(({ job }) => !isFinal(job.state));
    if (waiting.length > 0 || this.users.busy > 0) {
      const names = waiting.map(({ job }) => `${this.trace.name(job.id, "j")} is ${job.state}`);
      this.checker.fail("does_not_end", names.join(", ") || "a user still waits");
    } else if (this.checker.livingTrees.length > 0) {
      this.checker.fail("processes_left", `${this.checker.livingTrees.length}`);
    } else {
      const names = this.platform.all().map(({ name }) => name);
      this.checker.fail("left_behind", names.join(", "));
    }
  }
}
