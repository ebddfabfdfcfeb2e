/** The calls that scenarios make about one job, each repeated until the server answers. */

import { durationFromMs, type Duration } from "@bufbuild/protobuf/wkt";
import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import { uuidV4 } from "../../src/base/random.ts";
import { Cause, JobState, type Job } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { persist, type ClusterClient } from "../cluster-client.ts";
import type { JobInit } from "../witness-job.ts";
import { accountOfLog, compareLog, describe } from "./log-account.ts";
import type { ScenarioContext } from "./scenario.ts";
import { readEnd, type TalkOptions } from "./talking-job.ts";

const CALL_TIMEOUT_MS = 60_000;
const POLL_MS = 50;

export async function submit(client: ClusterClient, definition: JobInit): Promise<string> {
  const request = { definition, idempotencyKey: uuidV4() };
  const { jobId } = await persist(() => client.jobs.queueJob(request), { timeoutMs: CALL_TIMEOUT_MS });
  return jobId;
}

export async function getJob(client: ClusterClient, jobId: string): Promise<Job> {
  const { job } = await persist(() => client.jobs.getJob({ jobId }), { timeoutMs: CALL_TIMEOUT_MS });
  if (!job) throw new Error(`job ${jobId} is gone`);
  return job;
}

/** Waits until the job is in one of these states. */
export function untilState(
  client: ClusterClient,
  wanted: { jobId: string; states: readonly JobState[]; timeoutMs: number },
): Promise<Job> {
  const { jobId, states, timeoutMs } = wanted;
  return eventually(
    async () => {
      const job = await getJob(client, jobId);
      return states.includes(job.state) ? job : null;
    },
    {
      timeoutMs,
      intervalMs: POLL_MS,
      what: `${states.map((state) => JobState[state]).join(" or ")} of ${jobId}`,
    },
  );
}

/** When something of a kind happened to the job last, in milliseconds since the epoch. */
export async function timeOfEvent(client: ClusterClient, jobId: string, type: string): Promise<number> {
  const answer = await persist(() => client.jobs.getJobEvents({ jobId }), { timeoutMs: CALL_TIMEOUT_MS });
  const time = answer.events.findLast((event) => event.type === type)?.time;
  if (!time) throw new Error(`job ${jobId} has no event ${type}`);
  return Number(time.seconds) * 1_000 + time.nanos / 1e6;
}

/** Holds a talking job that has ended against its own account. Says what it sees. */
export async function checkTalk(
  client: ClusterClient,
  ended: { job: Job; talk: TalkOptions; attempt: number; attempts: number },
  { say }: ScenarioContext,
): Promise<string[]> {
  const { job, talk, attempt, attempts } = ended;
  const printed = await readEnd(talk, attempt);
  const startedMs = systemClock.monotonicMs();
  const log = await accountOfLog(client, job.id, attempt);
  const readMs = systemClock.monotonicMs() - startedMs;
  say(`${talk.name}: ${describeEnd(job)}, attempts: ${job.attemptCount}`);
  if (printed) say(`  printed: ${printed.lines} lines, ${describe(printed.stdout)}`);
  say(`  in the log: ${describe(log.stdout)} (read in ${seconds(readMs)})`);
  const problems = compareLog(log, printed);
  const wanted = talk.exitCode === 0 ? JobState.SUCCEEDED : JobState.FAILED;
  if (job.state !== wanted || job.exitCode !== talk.exitCode) {
    problems.push(`it should have ended with exit code ${talk.exitCode}, and ended as ${describeEnd(job)}`);
  }
  if (job.attemptCount !== attempts) problems.push(`it took ${job.attemptCount} attempts, not ${attempts}`);
  return problems.map((problem) => `${talk.name} (${job.id}): ${problem}`);
}

export function describeEnd(job: Pick<Job, "state" | "cause" | "exitCode" | "message">): string {
  const cause = job.cause === Cause.UNSPECIFIED ? "" : `, ${Cause[job.cause]}`;
  const code = job.exitCode === undefined ? "" : `, exit code ${job.exitCode}`;
  const message = job.message === "" ? "" : ` (${job.message})`;
  return `${JobState[job.state]}${cause}${code}${message}`;
}

export function duration(ms: number): Duration {
  return durationFromMs(ms);
}

export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}
