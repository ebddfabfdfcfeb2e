/** The network is cut for longer than the spool lasts: the job waits, and nothing is lost. */

import { systemClock } from "../../src/base/clock.ts";
import { JobState } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, duration, seconds, submit, untilState } from "./job-calls.ts";
import { onCluster, requireNetworkFaults, type Scenario, type ScenarioContext } from "./scenario.ts";
import { spooledBytes } from "./spooled-bytes.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";

/** More is printed during the cut than the 256 MiB that a spool may hold. */
const LONG = { cutMs: 20 * 60_000, leaseMs: 30 * 60_000, ticks: 2_500, bytesPerTick: 400_000 };
const SHORT = { cutMs: 42_000, leaseMs: 90_000, ticks: 400, bytesPerTick: 1_000_000 };
const TICK_MS = 100;
const TALK_BEFORE_MS = 5_000;
const START_TIMEOUT_MS = 60_000;
const SILENCE_TIMEOUT_MS = 60_000;
const RETURN_TIMEOUT_MS = 60_000;
const AFTER_CUT = [JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED];
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
  const states = [JobState.UNREACHABLE];
  const { attempts } = await untilState(client, { jobId, states, timeoutMs: SILENCE_TIMEOUT_MS });
  context.say(`unreachable ${sinceCut()} after the cut`);
  await systemClock.sleep(cutMs - (systemClock.monotonicMs() - cutAtMs));
  for (const attempt of attempts) {
    const spooledMiB = (await spooledBytes(cluster, attempt)) / 2 ** 20;
    context.say(`the spool holds ${spooledMiB.toFixed(1)} MiB`);
  }
  await cluster.network.heal();
  context.say(`the network is back ${sinceCut()} after the cut`);
  const back = await untilState(client, { jobId, states: AFTER_CUT, timeoutMs: RETURN_TIMEOUT_MS });
  context.say(`${JobState[back.state]} again ${sinceCut()} after the cut`);
  const job = await untilFinal(client, jobId, END_TIMEOUT_MS);
  context.say(`ended ${sinceCut()} after the cut`);
  return checkTalk(client, { job, talk, attempt: 1, attempts: 1 }, context);
}
