/** Compares what the database says at the end with itself and with what was answered. */

import { isFinal, type Attempt, type Job, type JobEventRecord } from "../src/core/job.ts";
import type { Cluster } from "./cluster.ts";

export async function auditRecords(cluster: Cluster): Promise<void> {
  const { checker, users, trace } = cluster;
  const { store } = cluster.database;
  for (const jobId of users.answered) {
    if ((await store.getJob(jobId)) === null) checker.fail("job_lost", trace.name(jobId, "j"));
  }
  for (const { job: seen } of checker.jobs.values()) {
    const job = await store.getJob(seen.id);
    if (job === null) {
      checker.fail("job_lost", trace.name(seen.id, "j"));
      continue;
    }
    const problem = disagreement(job, await store.listAttempts(job.id), await store.listEvents(job.id, 0));
    if (problem) checker.fail("records_disagree", `${trace.name(job.id, "j")}: ${problem}`);
  }
}

function disagreement(job: Job, attempts: Attempt[], events: JobEventRecord[]): string | null {
  if (job.version !== events.length) return `version ${job.version}, ${events.length} events`;
  if (events.some(({ sequence }, index) => sequence !== index + 1))
    return "the events are not numbered through";
  if (events.at(-1)?.state !== job.state) return `last event ${events.at(-1)?.state}, job ${job.state}`;
  if (attempts.length !== job.attemptCount) return `${attempts.length} attempts, counted ${job.attemptCount}`;
  if (attempts.some(({ number }, index) => number !== index + 1))
    return "the attempts are not numbered through";
  const live = attempts.filter(({ state }) => !isFinal(state));
  const mayLive = job.state !== "pending" && !isFinal(job.state);
  if (live.length > (mayLive ? 1 : 0)) return `${live.length} live attempts, job ${job.state}`;
  if (attempts.length > 0 && attempts.at(-1)?.id !== job.attemptId)
    return "the newest attempt is not the job's";
  return null;
}
