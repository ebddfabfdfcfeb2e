/** What becomes of jobs that shall not run twice at any price, when their worker falls silent. */

import { systemClock } from "../../src/base/clock.ts";
import { signalProcess, type ProcessIdentity } from "../../src/base/process-identity.ts";
import { Cause, JobState, WorkerLostPolicy } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, describeEnd, duration, getJob, seconds, submit, untilState } from "./job-calls.ts";
import { onCluster, requireNetworkFaults, type Scenario, type ScenarioContext } from "./scenario.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";
import { processesOfAttempt } from "./watched-processes.ts";

/** The shortest that the API takes. */
const LEASE_MS = 40_000;
const LONG = { silentMs: 5 * 60_000, ticks: 3_600 };
const SHORT = { silentMs: 58_000, ticks: 800 };
const TICK_MS = 100;
const START_TIMEOUT_MS = 60_000;
const SILENCE_TIMEOUT_MS = 60_000;
const RETURN_TIMEOUT_MS = 60_000;
const END_TIMEOUT_MS = 5 * 60_000;
/** How late the server may look at a deadline. */
const LATE_MS = 10_000;

export const workerLostPolicies: Scenario = {
  name: "worker-lost-policies",
  description:
    "onWorkerLost fail and wait: one fails at the end of the lease, the other waits for its worker",
  async run(context) {
    await requireNetworkFaults();
    return onCluster({ workers: 2 }, (cluster) => run(cluster, context));
  },
};

interface Talker {
  talk: TalkOptions;
  jobId: string;
}

async function run(cluster: Cluster, context: ScenarioContext): Promise<string[]> {
  const { silentMs, ticks } = context.isShort ? SHORT : LONG;
  const { client } = cluster;
  const failing = await start(cluster, { name: "failing", ticks, policy: WorkerLostPolicy.FAIL });
  const waiting = await start(cluster, { name: "waiting", ticks, policy: WorkerLostPolicy.WAIT });

  const silentFromMs = systemClock.monotonicMs();
  const sinceSilence = (): number => systemClock.monotonicMs() - silentFromMs;
  const stopped = await silence(cluster);
  const problems: string[] = [];
  for (const { jobId } of [failing, waiting]) {
    await untilState(client, { jobId, states: [JobState.UNREACHABLE], timeoutMs: SILENCE_TIMEOUT_MS });
  }
  context.say(`both unreachable ${seconds(sinceSilence())} after the last sign of the worker`);
  const lost = await untilFinal(client, failing.jobId, LEASE_MS + LATE_MS);
  context.say(`failing: ${describeEnd(lost)} after ${seconds(sinceSilence())}, lease ${seconds(LEASE_MS)}`);
  const left = processesOfAttempt(lost.attempts[0]?.id ?? "").length;
  if (left > 0) problems.push(`failing: ${left} processes are alive at the end of the lease`);
  await systemClock.sleep(silentMs - sinceSilence());
  const { state } = await getJob(client, waiting.jobId);
  context.say(`waiting: ${JobState[state]} after ${seconds(sinceSilence())}`);
  if (state !== JobState.UNREACHABLE)
    problems.push(`waiting: is ${JobState[state]} while its worker is silent`);

  await cluster.network.heal();
  for (const agent of stopped) signalProcess(agent, "SIGCONT");
  const states = [JobState.RUNNING, JobState.FAILED, JobState.SUCCEEDED];
  const back = await untilState(client, { jobId: waiting.jobId, states, timeoutMs: RETURN_TIMEOUT_MS });
  context.say(`waiting: ${JobState[back.state]} again after ${seconds(sinceSilence())}`);
  const job = await untilFinal(client, waiting.jobId, END_TIMEOUT_MS);
  const { talk } = waiting;
  problems.push(...(await checkTalk(client, { job, talk, attempt: 1, attempts: 1 }, context)));
  problems.push(...(await checkFailed(cluster, failing)));
  return problems;
}

async function start(
  cluster: Cluster,
  { name, ticks, policy }: { name: string; ticks: number; policy: WorkerLostPolicy },
): Promise<Talker> {
  const { directory } = cluster;
  const talk = { name, directory, ticks, tickMs: TICK_MS, bytesPerTick: 5_000, exitCode: 9 };
  const rest = { lease: duration(LEASE_MS), onWorkerLost: policy };
  const jobId = await submit(cluster.client, talkingJob(talk, rest));
  await untilBegun(talk, 1, START_TIMEOUT_MS);
  return { talk, jobId };
}

/** Stops the agent and cuts the network. The runner goes on, as on a machine that lost its network. */
async function silence(cluster: Cluster): Promise<ProcessIdentity[]> {
  await cluster.network.cut("both");
  const agents = (await cluster.workers()).flatMap(({ agent }) => (agent ? [agent] : []));
  for (const agent of agents) signalProcess(agent, "SIGSTOP");
  return agents;
}

/** Not even the return of the worker changes how the job ended. */
async function checkFailed(cluster: Cluster, { jobId }: Talker): Promise<string[]> {
  const job = await getJob(cluster.client, jobId);
  const problems: string[] = [];
  if (job.state !== JobState.FAILED || job.cause !== Cause.WORKER_LOST) {
    problems.push(`failing: should have failed with its worker, and is ${describeEnd(job)}`);
  }
  if (job.attemptCount !== 1) problems.push(`failing: had ${job.attemptCount} attempts`);
  return problems;
}
