/** A paused job stands still whatever happens around it, and its time-out with it. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { systemClock } from "../../src/base/clock.ts";
import { signalProcess } from "../../src/base/process-identity.ts";
import { JobState, type Job } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { persist, untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, describeEnd, duration, seconds, submit, timeOfEvent, untilState } from "./job-calls.ts";
import { accountOfLog } from "./log-account.ts";
import { onCluster, type Scenario, type ScenarioContext } from "./scenario.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";
import { cpuTimeMs } from "./watched-processes.ts";

/** The job runs for less than its time-out, but with the pause for longer. */
const LONG = { pauseMs: 120_000, timeoutMs: 60_000, ticks: 350 };
const SHORT = { pauseMs: 35_000, timeoutMs: 25_000, ticks: 130 };
const TICK_MS = 100;
const BURN_MS = 20;
const GRACE_MS = 2_000;
const ENDLESS_TICKS = 36_000;
const TALK_BEFORE_MS = 5_000;
/** Between two of the things that happen during the pause. */
const CALM_MS = 2_000;
const START_TIMEOUT_MS = 60_000;
const CALL_TIMEOUT_MS = 60_000;
const END_TIMEOUT_MS = 3 * 60_000;
/** The work of the kernel to stop and to kick a frozen process, as far as it counts for the process. */
const IDLE_CPU_MS = 5;
/** What a time-out may come too late, with messages that cross a server. */
const LATE_MS = 3_000;
/** The server notes a pause a moment after it has begun. */
const EARLY_MS = 1_000;

export const longPause: Scenario = {
  name: "long-pause",
  description:
    "a pause of 2 minutes over restarts: no output, no CPU used, and the time-out does not count it",
  run: (context) => onCluster({}, (cluster) => run(cluster, context)),
};

interface Talker {
  talk: TalkOptions;
  jobId: string;
  pid: number;
}

/** What must not change while a job is paused. */
interface Still {
  cpuMs: number;
  logBytes: number;
}

async function run(cluster: Cluster, context: ScenarioContext): Promise<string[]> {
  const { pauseMs, timeoutMs, ticks } = context.isShort ? SHORT : LONG;
  const lasting = await start(cluster, { name: "lasting", ticks, timeoutMs });
  const endless = await start(cluster, { name: "endless", ticks: ENDLESS_TICKS, timeoutMs });
  await systemClock.sleep(TALK_BEFORE_MS);

  const talkers = [lasting, endless];
  const problems: string[] = [];
  for (const talker of talkers) await pause(cluster, talker);
  const before = await lookAtAll(cluster, talkers);
  const pausedMs = systemClock.monotonicMs();
  await disturb(cluster, context);
  await systemClock.sleep(pauseMs - (systemClock.monotonicMs() - pausedMs));
  for (const { jobId } of talkers) await untilPaused(cluster, jobId);
  const after = await lookAtAll(cluster, talkers);
  for (const [index, { talk }] of talkers.entries()) {
    problems.push(...compare(talk.name, { before: before[index], after: after[index] }, context));
  }
  for (const { jobId } of talkers) {
    await persist(() => cluster.client.jobs.resumeJob({ jobId }), { timeoutMs: CALL_TIMEOUT_MS });
  }
  context.say(`resumed after ${seconds(systemClock.monotonicMs() - pausedMs)}`);

  const job = await untilFinal(cluster.client, lasting.jobId, END_TIMEOUT_MS);
  problems.push(
    ...(await checkTalk(cluster.client, { job, talk: lasting.talk, attempt: 1, attempts: 1 }, context)),
  );
  const over = await untilFinal(cluster.client, endless.jobId, END_TIMEOUT_MS);
  problems.push(...(await checkTimeout(cluster, { over, timeoutMs }, context)));
  return problems;
}

async function start(
  cluster: Cluster,
  { name, ticks, timeoutMs }: { name: string; ticks: number; timeoutMs: number },
): Promise<Talker> {
  const { directory } = cluster;
  const talk = { name, directory, ticks, tickMs: TICK_MS, burnMs: BURN_MS, bytesPerTick: 1_000, exitCode: 0 };
  const limits = { timeout: duration(timeoutMs), grace: duration(GRACE_MS) };
  const jobId = await submit(cluster.client, talkingJob(talk, limits));
  const { pid } = await untilBegun(talk, 1, START_TIMEOUT_MS);
  return { talk, jobId, pid };
}

async function pause(cluster: Cluster, { jobId }: Talker): Promise<void> {
  await persist(() => cluster.client.jobs.pauseJob({ jobId }), { timeoutMs: CALL_TIMEOUT_MS });
  await untilPaused(cluster, jobId);
}

async function untilPaused(cluster: Cluster, jobId: string): Promise<void> {
  await untilState(cluster.client, { jobId, states: [JobState.PAUSED], timeoutMs: CALL_TIMEOUT_MS });
}

/** Each process of the cluster but the runner ends once. */
async function disturb(cluster: Cluster, { say }: ScenarioContext): Promise<void> {
  await systemClock.sleep(CALM_MS);
  await cluster.restartServer();
  await cluster.untilServing();
  say("while they are paused: the server was restarted");
  await systemClock.sleep(CALM_MS);
  for (const { agent } of await cluster.workers()) if (agent) signalProcess(agent, "SIGKILL");
  say("while they are paused: the agent was killed");
  await systemClock.sleep(CALM_MS);
  await cluster.killServer();
  await cluster.untilServing();
  say("while they are paused: the server was killed");
}

async function lookAtAll(cluster: Cluster, talkers: readonly Talker[]): Promise<Still[]> {
  // What was printed before the pause may still be on its way.
  await systemClock.sleep(CALM_MS);
  return Promise.all(
    talkers.map(async ({ jobId, pid }) => ({
      cpuMs: cpuTimeMs(pid),
      logBytes: (await accountOfLog(cluster.client, jobId, 1)).stdout.bytes,
    })),
  );
}

function compare(
  name: string,
  { before, after }: { before: Still | undefined; after: Still | undefined },
  { say }: ScenarioContext,
): string[] {
  if (!before || !after) return [`${name}: was not looked at`];
  const cpuMs = after.cpuMs - before.cpuMs;
  const bytes = after.logBytes - before.logBytes;
  say(
    `${name}: during the pause ${bytes} bytes of output, ${cpuMs.toFixed(3)} ms of CPU (${before.cpuMs.toFixed(0)} ms before it)`,
  );
  const problems: string[] = [];
  if (bytes !== 0) problems.push(`${name}: printed ${bytes} bytes while it was paused`);
  if (cpuMs > IDLE_CPU_MS) problems.push(`${name}: used ${cpuMs} ms of CPU while it was paused`);
  if (before.logBytes === 0) problems.push(`${name}: printed nothing before the pause`);
  return problems;
}

/** The time-out fires after the time that the job ran, without the pause. */
async function checkTimeout(
  cluster: Cluster,
  { over, timeoutMs }: { over: Job; timeoutMs: number },
  { say }: ScenarioContext,
): Promise<string[]> {
  const { startedAt, finishedAt } = over;
  if (!startedAt || !finishedAt) return ["endless: has no times"];
  const fromMs = await timeOfEvent(cluster.client, over.id, "paused");
  const untilMs = await timeOfEvent(cluster.client, over.id, "resumed");
  const ranMs = timestampMs(finishedAt) - timestampMs(startedAt) - (untilMs - fromMs);
  say(`endless: ${describeEnd(over)}; it ran for ${seconds(ranMs)} with a time-out of ${seconds(timeoutMs)}`);
  const problems: string[] = [];
  if (over.state !== JobState.TIMED_OUT)
    problems.push(`endless: should have timed out, and is ${describeEnd(over)}`);
  if (ranMs < timeoutMs - EARLY_MS) problems.push(`endless: timed out after only ${seconds(ranMs)}`);
  if (ranMs > timeoutMs + LATE_MS) problems.push(`endless: timed out only after ${seconds(ranMs)}`);
  return problems;
}
