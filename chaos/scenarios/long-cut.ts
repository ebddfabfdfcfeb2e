/** The network is cut for longer than the spool lasts: the job waits, and nothing is lost. */

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { JobState } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, duration, seconds, submit, untilState } from "./job-calls.ts";
import { onCluster, requireNetworkFaults, type Scenario, type ScenarioContext } from "./scenario.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";

/** More is printed during the cut than the 256 MiB that a spool may hold. */
const LONG = { cutMs: 20 * 60_000, leaseMs: 30 * 60_000, ticks: 2_500, bytesPerTick: 400_000 };
const SHORT = { cutMs: 42_000, leaseMs: 90_000, ticks: 400, bytesPerTick: 1_000_000 };
const TICK_MS = 100;
const TALK_BEFORE_MS = 5_000;
const START_TIMEOUT_MS = 60_000;
const SILENCE_TIMEOUT_MS = 60_000;
const RETURN_TIMEOUT_MS = 60_000;
const END_TIMEOUT_MS = 15 * 60_000;

export const longCut: Scenario = {
  name: "long-cut",
  description: "a network cut of 20 minutes with a lease of 30, while a job prints 1 GB: the log is equal",
  async run(context) {
    await requireNetworkFaults();
    return onCluster({}, (cluster) => run(cluster, context));
  },
};

async function run(cluster: Cluster, context: ScenarioContext): Promise<string[]> {
  const { cutMs, leaseMs, ticks, bytesPerTick } = context.isShort ? SHORT : LONG;
  const { client } = cluster;
  const talk: TalkOptions = {
    name: "talker",
    directory: cluster.directory,
    ticks,
    tickMs: TICK_MS,
    bytesPerTick,
    exitCode: 3,
  };
  const definition = talkingJob(talk, { lease: duration(leaseMs), timeout: duration(2 * 3_600_000) });
  const jobId = await submit(client, definition);
  await untilBegun(talk, 1, START_TIMEOUT_MS);
  await systemClock.sleep(TALK_BEFORE_MS);

  const cutAtMs = systemClock.monotonicMs();
  const sinceCut = (): string => seconds(systemClock.monotonicMs() - cutAtMs);
  await cluster.network.cut("both");
  await untilState(client, { jobId, states: [JobState.UNREACHABLE], timeoutMs: SILENCE_TIMEOUT_MS });
  context.say(`unreachable ${sinceCut()} after the cut`);
  await systemClock.sleep(cutMs - (systemClock.monotonicMs() - cutAtMs));
  const spooledMiB = (await spooledBytes(cluster)) / 2 ** 20;
  context.say(`the spool holds ${spooledMiB.toFixed(1)} MiB`);
  await cluster.network.heal();
  context.say(`the network is back ${sinceCut()} after the cut`);
  const states = [JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED];
  const back = await untilState(client, { jobId, states, timeoutMs: RETURN_TIMEOUT_MS });
  context.say(`${JobState[back.state]} again ${sinceCut()} after the cut`);
  const job = await untilFinal(client, jobId, END_TIMEOUT_MS);
  context.say(`ended ${sinceCut()} after the cut`);
  return checkTalk(client, { job, talk, attempt: 1, attempts: 1 }, context);
}

/** What the worker keeps for the server: no more than its limit, however much the job wants to print. */
async function spooledBytes(cluster: Cluster): Promise<number> {
  let bytes = 0;
  for (const { directory } of await cluster.workers()) {
    const spool = join(directory, "spool");
    for (const attempt of await readdir(spool)) {
      for (const name of await readdir(join(spool, attempt)))
        bytes += (await stat(join(spool, attempt, name))).size;
    }
  }
  return bytes;
}
