/**
 * Refuses jobs of a queue in which as many wait as may.
 *
 * The number of waiting jobs comes from the database and is remembered for a moment, with what has
 * been let in since. So a full queue is never exceeded by submissions to this server; one that has
 * become shorter may refuse for `RECOUNT_MS` more. Queues without a limit cost nothing.
 */

import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Store } from "../../storage/store.ts";
import type { SchedulerView } from "../scheduling/scheduler-view.ts";

/** How long configurations and counts are taken as they were. */
const REMEMBERED_MS = 1_000;
/** Before a refusal, a count that is older than this is made again. */
const RECOUNT_MS = 100;

export interface QueueLimitsDependencies {
  store: Pick<Store, "listBacklogs">;
  scheduler: Pick<SchedulerView, "queues">;
  clock: Clock;
}

/** How many jobs are being let into each queue. */
export type Entrants = ReadonlyMap<string, number>;

export class QueueLimits {
  readonly #deps: QueueLimitsDependencies;
  /** Of the queues that have a limit. */
  #limits = new Map<string, number>();
  #limitsReadAtMs = -Infinity;
  #counts = new Map<string, number>();
  #countedAtMs = -Infinity;
  #counting: Promise<void> | null = null;
  /** Let in, of which it is not known yet that they are stored. */
  readonly #entering = new Map<string, number>();

  constructor(deps: QueueLimitsDependencies) {
    this.#deps = deps;
  }

  /** The configuration of a queue has changed. */
  forget(): void {
    this.#limitsReadAtMs = -Infinity;
  }

  /** Null if none of them has a limit: then nothing has to be asked. */
  limitsOf(entrants: Entrants): Map<string, number> | null {
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - this.#limitsReadAtMs >= REMEMBERED_MS) {
      this.#limits = limitsIn(this.#deps.scheduler);
      this.#limitsReadAtMs = nowMs;
    }
    if (this.#limits.size === 0) return null;
    const limits = [...entrants.keys()].flatMap((queue): [string, number][] => {
      const limit = this.#limits.get(queue);
      return limit === undefined ? [] : [[queue, limit]];
    });
    return limits.length === 0 ? null : new Map(limits);
  }

  /**
   * Lets all of them in or none.
   *
   * @returns what to call once they are stored, or could not be.
   * @throws AppError `resource_exhausted` if a queue is full.
   */
  async enter(entrants: Entrants, limits: ReadonlyMap<string, number>): Promise<(stored: boolean) => void> {
    await this.#countedWithin(REMEMBERED_MS);
    if (this.#fullQueue(entrants, limits) !== null) await this.#countedWithin(RECOUNT_MS);
    const full = this.#fullQueue(entrants, limits);
    if (full !== null) refuse(full, limits.get(full) ?? 0);
    for (const queue of limits.keys()) add(this.#entering, queue, entrants.get(queue) ?? 0);
    return (stored) => {
      for (const queue of limits.keys()) {
        const count = entrants.get(queue) ?? 0;
        add(this.#entering, queue, -count);
        if (stored) add(this.#counts, queue, count);
      }
    };
  }

  #fullQueue(entrants: Entrants, limits: ReadonlyMap<string, number>): string | null {
    for (const [queue, limit] of limits) {
      const waiting = (this.#counts.get(queue) ?? 0) + (this.#entering.get(queue) ?? 0);
      if (waiting + (entrants.get(queue) ?? 0) > limit) return queue;
    }
    return null;
  }

  async #countedWithin(ageMs: number): Promise<void> {
    if (this.#deps.clock.monotonicMs() - this.#countedAtMs < ageMs) return;
    this.#counting ??= this.#count().finally(() => (this.#counting = null));
    await this.#counting;
  }

  async #count(): Promise<void> {
    const startedAtMs = this.#deps.clock.monotonicMs();
    const before = new Map(this.#counts);
    const backlogs = await this.#deps.store.listBacklogs();
    const counts = new Map(backlogs.map(({ queue, pending }) => [queue, pending]));
    // What was stored meanwhile may be missing in the answer: it is counted, if need be twice.
    for (const [queue, count] of this.#counts) {
      const added = count - (before.get(queue) ?? 0);
      if (added > 0) add(counts, queue, added);
    }
    this.#counts = counts;
    this.#countedAtMs = startedAtMs;
  }
}

function limitsIn(scheduler: Pick<SchedulerView, "queues">): Map<string, number> {
  const limits = new Map<string, number>();
  for (const { config } of scheduler.queues([])) {
    if (config.maxPending !== null) limits.set(config.name, config.maxPending);
  }
  return limits;
}

function add(counts: Map<string, number>, queue: string, count: number): void {
  counts.set(queue, (counts.get(queue) ?? 0) + count);
}

function refuse(queue: string, limit: number): never {
  throw new AppError(
    "resource_exhausted",
    `queue job: queue ${queue} is full, no more than ${limit} of its jobs may wait; try again later`,
  );
}
