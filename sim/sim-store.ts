/**
 * The database of the cluster: the real memory store, watched by the checker, behind a connection
 * that can be slow, fail before or after the effect, and be away for long.
 */

import { AppError } from "../src/base/errors.ts";
import { createMemoryStore } from "../src/storage/memory/memory-store.ts";
import type { Store } from "../src/storage/store.ts";
import type { Checker } from "./checker.ts";
import type { SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";

export interface StoreConditions {
  /** Of each half of a call; 0: calls take no time at all. */
  latencyMs: number;
  /** How often a call fails. */
  errorRate: number;
}

/** The database server. */
export class SimDatabase {
  readonly store: Store;
  readonly random: SimRandom;
  readonly conditions: StoreConditions;
  isAway = false;

  constructor(deps: { random: SimRandom; checker: Checker; conditions: StoreConditions }) {
    this.random = deps.random;
    this.conditions = deps.conditions;
    this.store = watched(createMemoryStore({ random: deps.random }), deps.checker);
  }

  /** A connection of one server process: it dies with it. */
  connect(process: SimProcess): Store {
    const connection = new StoreConnection(this, process);
    return new Proxy(this.store, {
      get: (_, name) => {
        if (typeof name !== "string") return undefined;
        return (...args: unknown[]) => connection.call(name, args);
      },
    });
  }
}

/** Sees each change at the moment of its effect, whoever hears of it. */
function watched(store: Store, checker: Checker): Store {
  return {
    ...bound(store),
    async insertJobs(jobs) {
      const inserted = await store.insertJobs(jobs);
      jobs.forEach((job, index) => checker.jobInserted(job, inserted[index]));
      return inserted;
    },
    async applyInput(record) {
      const applied = await store.applyInput(record);
      checker.inputApplied(record, applied);
      return applied;
    },
    async changeWorker(change) {
      await store.changeWorker(change);
      checker.workerChanged(change);
    },
  };
}

/** Its methods, also those that it takes over. */
function bound(store: Store): Store {
  const target = store as unknown as Record<string, (...args: unknown[]) => unknown>;
  const methods: [string, unknown][] = [];
  for (let part: object = store; part !== Object.prototype; part = Object.getPrototypeOf(part) as object) {
    for (const name of Object.getOwnPropertyNames(part)) {
      if (name !== "constructor" && typeof target[name] === "function") {
        methods.push([name, (...args: unknown[]) => target[name]?.(...args)]);
      }
    }
  }
  return Object.fromEntries(methods) as unknown as Store;
}

class StoreConnection {
  readonly #database: SimDatabase;
  readonly #process: SimProcess;
  /** Calls take effect in their order. */
  #lastEffectMs = 0;

  constructor(database: SimDatabase, process: SimProcess) {
    this.#database = database;
    this.#process = process;
  }

  call(name: string, args: unknown[]): Promise<unknown> {
    const { conditions, random, isAway } = this.#database;
    const run = (
      this.#database.store as unknown as Record<string, (...given: unknown[]) => Promise<unknown>>
    )[name];
    if (!run) throw new Error(`store.${name} is not known`);
    if (!isAway && conditions.latencyMs === 0 && conditions.errorRate === 0) return run(...args);
    return new Promise((resolve, reject) => {
      const fail = (what: string): void => reject(new AppError("unavailable", `${name}: ${what}`));
      const { time } = this.#process.host;
      const latencyMs = (): number => random.between(0, 2 * conditions.latencyMs);
      if (isAway) {
        // Refused at once, or noticed by a time-out.
        this.#process.deliverAfter(random.chance(0.7) ? 1 : 3_000, () => fail("the database is away"));
        return;
      }
      const isLost = random.chance(conditions.errorRate);
      const isEffective = !isLost || random.chance(0.5);
      this.#lastEffectMs = Math.max(this.#lastEffectMs, time.nowMs + latencyMs());
      time.schedule(this.#lastEffectMs - time.nowMs, () => {
        // Of a process that was killed meanwhile, the statement may still run to its end.
        const isCutOff = this.#database.isAway || (!this.#process.isAlive && random.chance(0.5));
        const answer = isEffective && !isCutOff ? run(...args) : null;
        const backMs = latencyMs();
        this.#process.deliverAfter(backMs, () => {
          if (answer === null || isLost) fail("the connection was lost");
          else answer.then(resolve, reject);
        });
        // Nobody may be left who would take note of a failure.
        answer?.catch(() => {});
      });
    });
  }
}
