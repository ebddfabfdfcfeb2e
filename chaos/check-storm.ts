/** Asks the server about every job of a storm, and holds it against the traces. */

import { errorMessage } from "../src/base/errors.ts";
import { JobState } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { checkJob } from "./check-job.ts";
import { persist, readLog, type AttemptLog, type ClusterClient } from "./cluster-client.ts";
import type { StormJob } from "./job-load.ts";
import { violation, type Violation } from "./violation.ts";
import { readTrace } from "./witness-job.ts";

export interface CheckedJobs {
  violations: Violation[];
  /** How many ended in each state. */
  states: Map<string, number>;
  attempts: number;
  logLines: number;
}

const CALL_TIMEOUT_MS = 60_000;
const PAGE_SIZE = 500;

export async function checkStorm(
  client: ClusterClient,
  storm: { jobs: readonly StormJob[]; label: string },
): Promise<CheckedJobs> {
  const checked: CheckedJobs = { violations: [], states: new Map(), attempts: 0, logLines: 0 };
  const register = await checkRegister(client, storm);
  checked.violations.push(...register.map((text) => violation("lost", text)));
  for (const planned of storm.jobs) {
    for (const { kind, text } of await checkOne(client, planned, checked)) {
      checked.violations.push(violation(kind, `${planned.name} (${planned.jobId}): ${text}`));
    }
  }
  return checked;
}

/** Every job that was submitted is there once, and no other is. */
async function checkRegister(
  client: ClusterClient,
  { jobs, label }: { jobs: readonly StormJob[]; label: string },
): Promise<string[]> {
  const stored = new Map<string, string>();
  const problems: string[] = [];
  let pageToken = "";
  do {
    const request = { labels: { storm: label }, pageSize: PAGE_SIZE, pageToken };
    const page = await persist(() => client.jobs.listJobs(request), { timeoutMs: CALL_TIMEOUT_MS });
    for (const { id, definition } of page.jobs) {
      const name = definition?.name ?? "";
      if (stored.has(name)) problems.push(`${name} was stored twice: ${id} and ${stored.get(name)}`);
      stored.set(name, id);
    }
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  for (const { name, jobId } of jobs) {
    if (stored.get(name) !== jobId)
      problems.push(`${name} (${jobId}) is lost: stored is ${stored.get(name)}`);
  }
  if (stored.size > jobs.length)
    problems.push(`${stored.size - jobs.length} jobs were stored that nobody has an id of`);
  return problems;
}

async function checkOne(
  client: ClusterClient,
  planned: StormJob,
  checked: CheckedJobs,
): Promise<Violation[]> {
  const { jobId } = planned;
  const call = <T>(run: () => Promise<T>): Promise<T> => persist(run, { timeoutMs: CALL_TIMEOUT_MS });
  const { job } = await call(() => client.jobs.getJob({ jobId }));
  if (!job) return [violation("lost", "the server knows nothing of it")];
  const state = JobState[job.state];
  checked.states.set(state, (checked.states.get(state) ?? 0) + 1);
  checked.attempts += job.attempts.length;
  const logs = new Map<number, AttemptLog>();
  for (const { number } of job.attempts) {
    try {
      logs.set(number, await call(() => readLog(client, jobId, number)));
    } catch (error) {
      return [violation("log", `the log of attempt ${number} cannot be read: ${errorMessage(error)}`)];
    }
  }
  for (const { stdout, stderr } of logs.values()) checked.logLines += countLines(stdout) + countLines(stderr);
  const { events } = await call(() => client.jobs.getJobEvents({ jobId }));
  return checkJob({ planned, job, events, trace: await readTrace(planned.directory), logs });
}

function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count += 1;
  return count;
}
