/**
 * Injects faults at random moments from a seed: drawn from a bag with all kinds in it, so that each
 * occurs in its turn, and at most a few at once, each in a lane of its own.
 */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { systemClock } from "../src/base/clock.ts";
import { errorMessage } from "../src/base/errors.ts";
import type { Cluster } from "./cluster.ts";
import type { Fault } from "./faults.ts";
import type { StormJob } from "./job-load.ts";
import type { SeededRandom } from "./seeded-random.ts";

/** One fault that happened. */
export interface FaultRecord {
  name: string;
  /** When it began, in milliseconds since the Unix epoch. */
  atMs: number;
  what: string;
  lastedMs: number;
  /** From its end until the server answered and had heard every worker again; null: it never did. */
  recoveryMs: number | null;
}

export interface InjectorOptions {
  cluster: Cluster;
  random: SeededRandom;
  faults: readonly Fault[];
  jobs: () => readonly StormJob[];
  meanIntervalMs: number;
  /** Has injected enough after so many, and goes on until it is told to stop; null: never enough. */
  enough: number | null;
}

const MAX_AT_ONCE = 3;
const BUSY_WAIT_MS = 250;
const RECOVERY_TIMEOUT_MS = 120_000;
const RECOVERY_POLL_MS = 200;

export class FaultInjector {
  readonly records: FaultRecord[] = [];
  readonly problems: string[] = [];
  readonly #options: InjectorOptions;
  readonly #stop = new AbortController();
  readonly #active = new Map<Fault["lane"], { name: string; done: Promise<void> }>();
  readonly #recoveries = new Set<Promise<void>>();
  readonly #done: Promise<void>;
  #bag: Fault[] = [];

  constructor(options: InjectorOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  /** What is broken right now. */
  get active(): string[] {
    return [...this.#active.values()].map(({ name }) => name);
  }

  get hasEnough(): boolean {
    return this.#options.enough !== null && this.records.length >= this.#options.enough;
  }

  /** Takes back what is broken, and resolves when the cluster has recovered from all of it. */
  async finish(): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await Promise.all([...this.#active.values()].map(({ done }) => done));
    await this.#options.cluster.network.heal();
    await Promise.all(this.#recoveries);
  }

  async #run(): Promise<void> {
    const { random, meanIntervalMs } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      // Exponential, so that faults also come right after each other; and never too far apart.
      const waitMs = Math.min(4 * meanIntervalMs, -Math.log(1 - random.fraction()) * meanIntervalMs);
      await systemClock.sleep(waitMs, signal);
      while (!signal.aborted && this.#active.size >= MAX_AT_ONCE)
        await systemClock.sleep(BUSY_WAIT_MS, signal);
      if (!signal.aborted) this.#start(this.#draw());
    }
  }

  /** The next of the bag whose lane is free; the others keep their turn. */
  #draw(): Fault | null {
    const { random, faults } = this.#options;
    const isFree = ({ lane }: Fault): boolean => !this.#active.has(lane);
    if (!this.#bag.some(isFree)) {
      this.#bag.push(...random.shuffled(faults.flatMap((fault) => Array<Fault>(fault.weight).fill(fault))));
    }
    const index = this.#bag.findIndex(isFree);
    return index < 0 ? null : (this.#bag.splice(index, 1)[0] ?? null);
  }

  #start(fault: Fault | null): void {
    if (!fault) return;
    const done = this.#inject(fault).finally(() => this.#active.delete(fault.lane));
    this.#active.set(fault.lane, { name: fault.name, done });
  }

  async #inject(fault: Fault): Promise<void> {
    const { cluster, random, jobs } = this.#options;
    const startedMs = systemClock.monotonicMs();
    try {
      const context = { cluster, random: random.fork(), jobs: jobs(), signal: this.#stop.signal };
      const what = await fault.inject(context);
      if (what === null) return;
      const record: FaultRecord = {
        name: fault.name,
        atMs: systemClock.nowMs() - (systemClock.monotonicMs() - startedMs),
        what,
        lastedMs: systemClock.monotonicMs() - startedMs,
        recoveryMs: null,
      };
      this.records.push(record);
      const recovery = this.#noteRecovery(record).finally(() => this.#recoveries.delete(recovery));
      this.#recoveries.add(recovery);
    } catch (error) {
      this.problems.push(`${fault.name}: ${errorMessage(error)}`);
    }
  }

  async #noteRecovery(record: FaultRecord): Promise<void> {
    const healedMs = systemClock.monotonicMs();
    const healedAtMs = systemClock.nowMs();
    for (;;) {
      const isWell = await this.#hasHeardAll(healedAtMs);
      const tookMs = systemClock.monotonicMs() - healedMs;
      if (isWell) record.recoveryMs = tookMs;
      if (isWell || tookMs > RECOVERY_TIMEOUT_MS) return;
      await systemClock.sleep(RECOVERY_POLL_MS);
    }
  }

  /** Every worker whose agent is alive has been heard since then. */
  async #hasHeardAll(sinceMs: number): Promise<boolean> {
    const { cluster } = this.#options;
    try {
      const { workers } = await cluster.client.workers.listWorkers({ pageSize: 1_000 });
      const heard = new Set<string>();
      for (const { info, lastHeartbeatAt } of workers) {
        if (info && lastHeartbeatAt && timestampMs(lastHeartbeatAt) >= sinceMs) heard.add(info.workerId);
      }
      const living = (await cluster.workers()).filter(({ agent }) => agent !== null);
      return living.every(({ workerId }) => heard.has(workerId));
    } catch {
      // The server does not answer.
      return false;
    }
  }
}
