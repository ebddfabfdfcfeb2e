/** A job whose agent is killed again and again goes on as if nothing were. */

import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import { signalProcess, type ProcessIdentity } from "../../src/base/process-identity.ts";
import { untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, duration, seconds, submit } from "./job-calls.ts";
import { onCluster, type Scenario, type ScenarioContext } from "./scenario.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";

const LONG = { kills: 100, intervalMs: 6_000, ticks: 6_250, bytesPerTick: 16_000 };
const SHORT = { kills: 10, intervalMs: 4_000, ticks: 550, bytesPerTick: 40_000 };
const TICK_MS = 100;
/** How long a new agent may take to appear. */
const AGENT_TIMEOUT_MS = 60_000;
const START_TIMEOUT_MS = 60_000;
/** After the last kill; killed agents hold the job up if its spool is full, so be generous. */
const END_TIMEOUT_MS = 10 * 60_000;

export const agentKilled: Scenario = {
  name: "agent-killed",
  description:
    "a job of 10 minutes, its agent killed with -9 one hundred times: exit code and log as without",
  run: (context) => onCluster({}, (cluster) => run(cluster, context)),
};

async function run(cluster: Cluster, context: ScenarioContext): Promise<string[]> {
  const { kills, intervalMs, ticks, bytesPerTick } = context.isShort ? SHORT : LONG;
  const talk: TalkOptions = {
    name: "talker",
    directory: cluster.directory,
    ticks,
    tickMs: TICK_MS,
    bytesPerTick,
    exitCode: 7,
  };
  const jobId = await submit(cluster.client, talkingJob(talk, { timeout: duration(3_600_000) }));
  const startedMs = systemClock.monotonicMs();
  await untilBegun(talk, 1, START_TIMEOUT_MS);
  const problems: string[] = [];
  const killed = await killAgents(cluster, { kills, intervalMs, jobId });
  context.say(`${killed} kills in ${seconds(systemClock.monotonicMs() - startedMs)}`);
  if (killed < kills) problems.push(`the job ended after ${killed} of ${kills} kills`);
  const job = await untilFinal(cluster.client, jobId, END_TIMEOUT_MS);
  context.say(`the job took ${seconds(systemClock.monotonicMs() - startedMs)}`);
  problems.push(...(await checkTalk(cluster.client, { job, talk, attempt: 1, attempts: 1 }, context)));
  return problems;
}

/** Returns how many agents were killed before the job ended. */
async function killAgents(
  cluster: Cluster,
  options: { kills: number; intervalMs: number; jobId: string },
): Promise<number> {
  const startedMs = systemClock.monotonicMs();
  for (let killed = 0; killed < options.kills; killed++) {
    const dueMs = startedMs + (killed + 1) * options.intervalMs;
    await systemClock.sleep(dueMs - systemClock.monotonicMs());
    const agent = await nextAgent(cluster);
    if (agent === null) return killed;
    signalProcess(agent, "SIGKILL");
  }
  return options.kills;
}

/** The living agent; null if there is no worker any more. */
async function nextAgent(cluster: Cluster): Promise<ProcessIdentity | null> {
  const found = await eventually(
    async () => {
      const [worker] = await cluster.workers();
      return worker === undefined || worker.agent !== null ? { agent: worker?.agent ?? null } : null;
    },
    { timeoutMs: AGENT_TIMEOUT_MS, intervalMs: 50, what: "a new agent" },
  );
  return found.agent;
}
