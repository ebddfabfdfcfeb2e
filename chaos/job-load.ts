/**
 * The jobs of a storm: submits them, a few more whenever some have ended, and does to each what was
 * planned for it. Every call is repeated until the server answers, as a careful client does; the
 * idempotency key makes that harmless.
 */

import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../src/base/clock.ts";
import { JobState } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { FINAL_STATES, persist, type ClusterClient } from "./cluster-client.ts";
import { drawJob, type PlannedJob } from "./job-mix.ts";
import type { SeededRandom } from "./seeded-random.ts";

/** A job that the server has taken, and what was done to it since. */
export interface StormJob extends PlannedJob {
  jobId: string;
  /** How many attempts there were when the server took the cancel. */
  cancelledAtAttempt: number | null;
  /** Between the answer that it is paused and the call to resume, in milliseconds after boot. */
  pauses: { attempt: number; fromMs: number; untilMs: number }[];
  /** A fault killed a process of it. */
  wasHit: boolean;
}

export interface LoadOptions {
  client: ClusterClient;
  directory: string;
  random: SeededRandom;
  /** A storm of its own among those that a data directory has seen. */
  label: string;
  /** Has submitted enough after so many, and goes on until it is told to stop; null: never enough. */
  enough: number | null;
}

/** Jobs that have not ended, at most: enough to keep every worker busy, and a queue. */
const MAX_UNFINISHED = 64;
const MAX_BATCH = 20;
const POLL_MS = 1_000;
const CALL_TIMEOUT_MS = 180_000;
/** Between two looks at a job that shall be paused. */
const ACT_POLL_MS = 100;

export const UNFINISHED: readonly JobState[] = [
  JobState.PENDING,
  JobState.SCHEDULED,
  JobState.RUNNING,
  JobState.PAUSED,
  JobState.UNREACHABLE,
  JobState.CANCELLING,
];

export class JobLoad {
  readonly jobs: StormJob[] = [];
  /** Jobs that have not ended, when last looked at. */
  unfinished = 0;
  /** By code: how often a call had to be repeated, and what the server said the last time. */
  readonly retries = new Map<string, { count: number; message: string }>();
  /** What the server answered that it should not have. */
  readonly problems: string[] = [];
  readonly #options: LoadOptions;
  readonly #acts = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  get hasEnough(): boolean {
    return this.#options.enough !== null && this.jobs.length >= this.#options.enough;
  }

  /** Submits no more, and resolves when everything planned for the jobs was done. */
  async finish(): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await Promise.all(this.#acts);
  }

  /** Resolves with how many have not ended, from the server. */
  async countUnfinished(): Promise<number> {
    const { client, label } = this.#options;
    const request = { states: [...UNFINISHED], labels: { storm: label }, pageSize: 1_000 };
    const { jobs } = await this.#persist(() => client.jobs.listJobs(request));
    this.unfinished = jobs.length;
    return jobs.length;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    try {
      while (!signal.aborted) {
        const room = MAX_UNFINISHED - (await this.countUnfinished());
        if (room > 0) await this.#submit(room);
        await systemClock.sleep(POLL_MS, signal);
      }
    } catch (error) {
      this.problems.push(`submitting ended: ${ConnectError.from(error).message}`);
    }
  }

  async #submit(room: number): Promise<void> {
    const { client, random, directory, label } = this.#options;
    const count = Math.min(room, random.chance(0.3) ? 1 : random.integer(2, MAX_BATCH));
    const planned = Array.from({ length: count }, (_, index) => {
      const name = `job-${this.jobs.length + index + 1}`;
      return drawJob(random, name, join(directory, name));
    });
    for (const job of planned) await mkdir(job.directory, { recursive: true });
    const requests = planned.map(({ definition, name }) => ({
      definition: { ...definition, labels: { storm: label } },
      idempotencyKey: `${label}/${name}`,
    }));
    const [only] = requests;
    const jobIds =
      count === 1 && only
        ? [(await this.#persist(() => client.jobs.queueJob(only))).jobId]
        : (await this.#persist(() => client.jobs.queueJobs({ jobs: requests }))).jobIds;
    planned.forEach((job, index) => this.#taken(job, jobIds[index] ?? ""));
  }

  #taken(planned: PlannedJob, jobId: string): void {
    const job: StormJob = { ...planned, jobId, cancelledAtAttempt: null, pauses: [], wasHit: false };
    this.jobs.push(job);
    const { act } = job;
    if (act.type === "none") return;
    const acting = (act.type === "cancel" ? this.#cancel(job, act.afterMs) : this.#pause(job, act))
      .catch((error: unknown) => {
        this.problems.push(`${job.name}: ${act.type}: ${ConnectError.from(error).message}`);
      })
      .finally(() => this.#acts.delete(acting));
    this.#acts.add(acting);
  }

  async #cancel(job: StormJob, afterMs: number): Promise<void> {
    await systemClock.sleep(afterMs);
    const request = { jobId: job.jobId, reason: "planned by the storm" };
    const { jobs } = this.#options.client;
    const answer = await this.#unlessEnded(() => jobs.cancelJob(request));
    // Refused because it has ended already: perhaps by this very call, whose first answer was lost.
    const { job: found } = answer ?? (await this.#persist(() => jobs.getJob({ jobId: job.jobId })));
    if (found && (answer || found.state === JobState.CANCELLED)) job.cancelledAtAttempt = found.attemptCount;
  }

  async #pause(job: StormJob, act: { afterMs: number; forMs: number }): Promise<void> {
    const { jobs } = this.#options.client;
    const { jobId } = job;
    await this.#untilState(jobId, [JobState.RUNNING]);
    await systemClock.sleep(act.afterMs);
    if (!(await this.#unlessEnded(() => jobs.pauseJob({ jobId })))) return;
    const paused = await this.#untilState(jobId, [JobState.PAUSED]);
    const pause = { attempt: paused.attemptCount, fromMs: bootMs(), untilMs: 0 };
    await systemClock.sleep(act.forMs);
    pause.untilMs = bootMs();
    if (!(await this.#unlessEnded(() => jobs.resumeJob({ jobId })))) return;
    if (paused.state === JobState.PAUSED) job.pauses.push(pause);
  }

  /** Resolves when the job is in one of these states, or has ended. */
  async #untilState(
    jobId: string,
    states: readonly JobState[],
  ): Promise<{ state: JobState; attemptCount: number }> {
    for (;;) {
      const { job } = await this.#persist(() => this.#options.client.jobs.getJob({ jobId }));
      if (job && (states.includes(job.state) || FINAL_STATES.includes(job.state))) return job;
      await systemClock.sleep(ACT_POLL_MS);
    }
  }

  /** Null if the server refuses because the job has ended. */
  async #unlessEnded<T>(call: () => Promise<T>): Promise<T | null> {
    try {
      return await this.#persist(call);
    } catch (error) {
      if (ConnectError.from(error).code === Code.FailedPrecondition) return null;
      throw error;
    }
  }

  #persist<T>(call: () => Promise<T>): Promise<T> {
    return persist(call, {
      timeoutMs: CALL_TIMEOUT_MS,
      onRetry: ({ code, rawMessage }) => {
        const count = (this.retries.get(Code[code])?.count ?? 0) + 1;
        this.retries.set(Code[code], { count, message: rawMessage });
      },
    });
  }
}

/** Milliseconds since the boot, of the clock that the traces use. */
export function bootMs(): number {
  return Math.round(Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * 1_000);
}
