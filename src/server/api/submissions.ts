/** The way of new jobs into their queues: checked, let in, stored, announced. */

import { Batcher } from "../../base/batcher.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { uuidV7, type Random } from "../../base/random.ts";
import { placementProblem } from "../../core/explain.ts";
import { placementKey, placementOf } from "../../core/placement.ts";
import { definitionFromWire } from "../../protocol/convert-definition.ts";
import type { QueueJobRequest } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import type { InsertedJob, NewJob, Store } from "../../storage/store.ts";
import type { SchedulerView, SchedulingSnapshot } from "../scheduling/scheduler-view.ts";
import { checkDefinition } from "./definition-problems.ts";
import { QueueLimits, type Entrants } from "./queue-limits.ts";

export interface SubmissionsDependencies {
  store: Store;
  clock: Clock;
  random: Random;
  scheduler: SchedulerView;
  /** Told after the jobs are stored, with those that are new. */
  onQueued: (jobs: NewJob[]) => void;
}

/** Single submissions that share a statement. */
const MAX_SUBMISSION_GROUP = 1_000;
/** Single submissions that wait for the database; more are refused, and may be tried again. */
const MAX_WAITING_SUBMISSIONS = 20_000;
/** How long a kind of job that some worker or pool can take is not looked at again. */
const PLACEABLE_MS = 1_000;
/** Kinds of jobs that are remembered. */
const MAX_PLACEABLE = 10_000;

export class Submissions {
  readonly #deps: SubmissionsDependencies;
  readonly #limits: QueueLimits;
  readonly #batcher: Batcher<NewJob, InsertedJob>;
  readonly #placeable = new Set<string>();
  #placeableSinceMs = -Infinity;

  constructor(deps: SubmissionsDependencies) {
    this.#deps = deps;
    this.#limits = new QueueLimits(deps);
    this.#batcher = new Batcher<NewJob, InsertedJob>({
      run: (jobs) => this.#insert(jobs),
      maxGroup: MAX_SUBMISSION_GROUP,
      maxWaiting: MAX_WAITING_SUBMISSIONS,
      full: () => new AppError("resource_exhausted", "queue job: too many submissions wait for the database"),
    });
  }

  /**
   * @param path of the definition in the request, for refusals.
   * @returns the id of the job.
   * @throws AppError `invalid_argument`; `failed_precondition` if it could never be placed;
   * `resource_exhausted` if its queue is full.
   */
  async add(request: QueueJobRequest, path = "definition"): Promise<string> {
    const job = this.newJob(request, { id: this.#newId(), nowMs: this.#deps.clock.nowMs() }, path);
    const [jobId = ""] = await this.#orKnown([job], async () => {
      const problem = this.#placementProblems([request], [job])[0];
      if (problem) throw new AppError("failed_precondition", `queue job: ${problem}`);
      return [await this.#limited([job], () => this.#batcher.add(job))];
    });
    return jobId;
  }

  /** All or none of them; the refusals of `add`, with the index of the job that is meant. */
  async addAll(requests: readonly QueueJobRequest[]): Promise<string[]> {
    const nowMs = this.#deps.clock.nowMs();
    // Ids of one millisecond come in any order, but the jobs of a batch start and list in theirs.
    const ids = requests.map(() => this.#newId()).toSorted();
    const jobs = requests.map((request, index) =>
      this.newJob(request, { id: ids[index] as string, nowMs }, `jobs[${index}].definition`),
    );
    return await this.#orKnown(jobs, () => {
      const problems = this.#placementProblems(requests, jobs);
      const first = problems.findIndex((problem) => problem !== null);
      if (first >= 0) throw new AppError("failed_precondition", `jobs[${first}]: ${problems[first]}`);
      return this.#limited(jobs, () => this.#insert(jobs));
    });
  }

  /** A job as it would be stored. @throws AppError `invalid_argument`. */
  newJob(request: QueueJobRequest, { id, nowMs }: { id: string; nowMs: number }, path: string): NewJob {
    if (!request.definition) throw new AppError("invalid_argument", `${path}: value is required`);
    const definition = definitionFromWire(request.definition);
    checkDefinition(definition, path);
    return { id, nowMs, definition, idempotencyKey: request.idempotencyKey || null };
  }

  /** The configuration of a queue has changed. */
  queuesChanged(): void {
    this.#limits.forget();
  }

  #newId(): string {
    return uuidV7(this.#deps.clock, this.#deps.random);
  }

  /**
   * What was stored already is not refused when it is sent again, because its answer was lost for
   * example: there may be no place for it any more, but its jobs are there.
   */
  async #orKnown(jobs: readonly NewJob[], store: () => Promise<InsertedJob[]>): Promise<string[]> {
    try {
      return (await store()).map(({ jobId }) => jobId);
    } catch (error) {
      const keys = jobs.flatMap(({ idempotencyKey }) => idempotencyKey ?? []);
      const isRefusal =
        error instanceof AppError && ["failed_precondition", "resource_exhausted"].includes(error.code);
      if (!isRefusal || keys.length < jobs.length) throw error;
      const known = await this.#deps.store.findByIdempotencyKeys(keys);
      const ids = keys.flatMap((key) => known.get(key) ?? []);
      if (ids.length < jobs.length) throw error;
      return ids;
    }
  }

  async #limited<T>(jobs: readonly NewJob[], store: () => Promise<T>): Promise<T> {
    const entrants = entrantsOf(jobs);
    const limits = this.#limits.limitsOf(entrants);
    if (limits === null) return store();
    const entered = await this.#limits.enter(entrants, limits);
    try {
      const result = await store();
      entered(true);
      return result;
    } catch (error) {
      entered(false);
      throw error;
    }
  }

  async #insert(jobs: NewJob[]): Promise<InsertedJob[]> {
    const inserted = await this.#deps.store.insertJobs(jobs);
    const created = jobs.filter((_, index) => inserted[index]?.created);
    if (created.length > 0) this.#deps.onQueued(created);
    return inserted;
  }

  /** Of each job why no worker that is known and no pool could ever take it, if so. */
  #placementProblems(requests: readonly QueueJobRequest[], jobs: readonly NewJob[]): (string | null)[] {
    this.#forgetPlaceable();
    let snapshot: SchedulingSnapshot | null = null;
    const problems = new Map<string, string | null>();
    return jobs.map(({ definition }, index) => {
      if (requests[index]?.acceptUnplaceable) return null;
      const key = placementKey(definition);
      if (this.#placeable.has(key)) return null;
      const known = problems.get(key);
      if (known !== undefined) return known;
      snapshot ??= this.#deps.scheduler.snapshot([]);
      const problem = placementProblem(placementOf(definition), snapshot);
      if (problem === null) this.#placeable.add(key);
      const text = problem && `${problem}; set \`accept_unplaceable\` to queue it all the same`;
      problems.set(key, text);
      return text;
    });
  }

  /** A refusal is never remembered: somebody may just have made the pool that was missing. */
  #forgetPlaceable(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const isOld = nowMs - this.#placeableSinceMs >= PLACEABLE_MS;
    if (!isOld && this.#placeable.size < MAX_PLACEABLE) return;
    this.#placeable.clear();
    this.#placeableSinceMs = nowMs;
  }
}

function entrantsOf(jobs: readonly NewJob[]): Entrants {
  const entrants = new Map<string, number>();
  for (const { definition } of jobs) {
    entrants.set(definition.queue, (entrants.get(definition.queue) ?? 0) + 1);
  }
  return entrants;
}
