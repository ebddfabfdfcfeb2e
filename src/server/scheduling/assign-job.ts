/** Gives one waiting job to one connected worker. */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { uuidV7, type Random } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import { isFinal, type Job } from "../../core/job.ts";
import type { Store } from "../../storage/store.ts";
import { ONE_JOB_ONLY, type WorkerConnections } from "../workers/worker-connections.ts";

export interface AssignDependencies {
  store: Pick<Store, "applyInput" | "changeWorker">;
  connections: Pick<WorkerConnections, "assign">;
  clock: Clock;
  random: Random;
  signal: AbortSignal;
  onJobChanged(job: Job): void;
}

/** The job with its new attempt; null if the job or the worker takes none any more. */
export async function assignJob(
  { jobId, workerId }: { jobId: string; workerId: string },
  deps: AssignDependencies,
): Promise<Job | null> {
  const { clock, random, connections, onJobChanged } = deps;
  let assigned: Job | null = null;
  // A worker that loses its stream meanwhile finds the attempt in its next welcome.
  await connections.assign(workerId, async (connection) => {
    const attemptId = uuidV7(clock, random);
    const { runnerId } = connection;
    const input = { type: "assign", attemptId, workerId, runnerId } as const;
    const job = await assignedJob({ jobId, input }, { ...deps, isGone: () => connection.isClosed });
    if (job === null) return null;
    assigned = job;
    onJobChanged(job);
    if (connection.takesOneJob) await noteItsOnlyJob(workerId, deps.store);
    return { attemptId, attemptNumber: job.attemptCount, job, logDurable: 0, runnerId };
  });
  return assigned;
}

/**
 * Before the attempt is sent: a worker of which agent and runner die once the job has ended comes back
 * knowing of no job, and of no order to leave.
 */
async function noteItsOnlyJob(workerId: string, store: AssignDependencies["store"]): Promise<void> {
  try {
    await store.changeWorker({ workerId, state: "draining", message: ONE_JOB_ONLY });
  } catch {
    // The attempt is assigned and must be sent. The next hello of its agent or runner tells this again.
  }
}

/** How soon a store that did not answer is asked again. */
const ASK_AGAIN = { baseMs: 100, maxMs: 2_000 };

/**
 * The job with its new attempt; null if it got none. A store that goes away while it writes may have
 * written, and an attempt of which nobody tells the worker would block the job until its lease ends.
 * So the same attempt is assigned again until there is an answer, or until the worker goes: its next
 * welcome has what was written.
 */
async function assignedJob(
  { jobId, input }: { jobId: string; input: Extract<JobInput, { type: "assign" }> },
  deps: AssignDependencies & { isGone(): boolean },
): Promise<Job | null> {
  const { store, clock, random, signal, isGone } = deps;
  const backoff = new Backoff(ASK_AGAIN, random);
  for (;;) {
    try {
      const { job } = await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
      const isOurs = job !== null && job.attemptId === input.attemptId;
      return isOurs && job.state !== "pending" && !isFinal(job.state) ? job : null;
    } catch (error) {
      const mayBeWritten = error instanceof AppError && error.code === "unavailable";
      if (!mayBeWritten || isGone() || signal.aborted) throw error;
    }
    await clock.sleep(backoff.nextDelayMs(), signal);
  }
}
