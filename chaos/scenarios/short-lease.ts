/**
 * A worker is cut off for longer than the lease: its processes are dead before the job begins again
 * elsewhere, and what it says when it comes back changes nothing.
 */

import { access } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "../../src/base/eventually.ts";
import { Cause, JobState, type Attempt } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { untilFinal } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { checkTalk, describeEnd, duration, getJob, seconds, submit, untilState } from "./job-calls.ts";
import { accountOfLog, describe, type LogAccount } from "./log-account.ts";
import { onCluster, requireNetworkFaults, type Scenario, type ScenarioContext } from "./scenario.ts";
import { spooledBytes } from "./spooled-bytes.ts";
import { talkingJob, untilBegun, type TalkOptions } from "./talking-job.ts";
import { bootNowMs, processesOfAttempt, watchEnd } from "./watched-processes.ts";
import { WorkerRelay } from "./worker-relay.ts";

const LONG_LEASE_MS = 60_000;
/** The shortest that the API takes. */
const SHORT_LEASE_MS = 40_000;
const TICK_MS = 100;
const START_TIMEOUT_MS = 60_000;
/** After the lease: backoff and a new worker. */
const AGAIN_TIMEOUT_MS = 60_000;
const CLEAN_UP_TIMEOUT_MS = 90_000;
/** More than the heads of records make up. */
const UNSENT_BYTES = 100_000;
const END_TIMEOUT_MS = 5 * 60_000;

export const shortLease: Scenario = {
  name: "short-lease",
  description: "a cut with a lease of 1 minute: the old processes are dead before the new attempt starts",
  async run(context) {
    await requireNetworkFaults();
    return onCluster({ workers: 2 }, async (cluster) => {
      const relay = await WorkerRelay.open(cluster);
      try {
        return await run({ cluster, relay }, context);
      } finally {
        await relay.stop();
      }
    });
  },
};

interface Stage {
  cluster: Cluster;
  relay: WorkerRelay;
}

async function run({ cluster, relay }: Stage, context: ScenarioContext): Promise<string[]> {
  const leaseMs = context.isShort ? SHORT_LEASE_MS : LONG_LEASE_MS;
  const { client } = cluster;
  const talk: TalkOptions = {
    name: "talker",
    directory: cluster.directory,
    // The first attempt would go on for an hour; the next one lasts until after the worker is back.
    ticks: 36_000,
    laterTicks: 250,
    tickMs: TICK_MS,
    bytesPerTick: 20_000,
    exitCode: 0,
    children: 4,
  };
  const jobId = await submit(client, talkingJob(talk, { lease: duration(leaseMs) }));
  await untilBegun(talk, 1, START_TIMEOUT_MS);
  const { attempts } = await untilState(client, {
    jobId,
    states: [JobState.RUNNING],
    timeoutMs: START_TIMEOUT_MS,
  });
  const [first] = attempts;
  if (!first) throw new Error(`job ${jobId} runs without an attempt`);
  await relay.redirect(cluster, first.workerId);
  await untilLogGrows({ cluster, relay }, jobId);

  context.say(`attempt 1 runs ${processesOfAttempt(first.id).length} processes on worker ${first.workerId}`);
  const problems = await cutOff({ cluster, relay }, { jobId, first, talk, leaseMs }, context);
  const lost = await accountOfLog(client, jobId, 1);
  problems.push(...(await checkUnsent({ cluster, relay }, { first, lost }, context)));
  await relay.network.heal();
  context.say("the network is back");
  await untilCleanedUp(cluster, first);
  context.say(`worker ${first.workerId} has removed what was left of attempt 1`);
  const job = await untilFinal(client, jobId, END_TIMEOUT_MS);
  problems.push(...(await checkTalk(client, { job, talk, attempt: 2, attempts: 2 }, context)));
  problems.push(...(await checkStale(cluster, { jobId, lost }, context)));
  return problems;
}

/** Cuts the worker off until the next attempt has begun, and compares the two. */
async function cutOff(
  { cluster, relay }: Stage,
  running: { jobId: string; first: Attempt; talk: TalkOptions; leaseMs: number },
  { say }: ScenarioContext,
): Promise<string[]> {
  const { jobId, first, talk, leaseMs } = running;
  const cutAtMs = bootNowMs();
  await relay.network.cut("both");
  const end = watchEnd(first.id);
  const begin = await untilBegun(talk, 2, leaseMs + AGAIN_TIMEOUT_MS);
  const alive = processesOfAttempt(first.id);
  end.stop();
  const job = await getJob(cluster.client, jobId);
  const second = job.attempts[1];
  say(`lease of ${seconds(leaseMs)}; the network was cut at 0`);
  say(
    `  ${end.goneAtMs === null ? "never" : seconds(end.goneAtMs - cutAtMs)}: no process of attempt 1 is left`,
  );
  say(`  ${seconds(begin.bootMs - cutAtMs)}: attempt 2 begins on worker ${second?.workerId ?? "unknown"}`);
  const problems: string[] = [];
  if (alive.length > 0)
    problems.push(`processes ${alive.join(", ")} of attempt 1 were alive beside attempt 2`);
  if (end.goneAtMs === null || end.goneAtMs > begin.bootMs) {
    problems.push("attempt 2 began before the processes of attempt 1 were gone");
  }
  if (second?.workerId === first.workerId) problems.push("attempt 2 was given to the worker that is cut off");
  return problems;
}

/** There must be something to refuse when the worker comes back. */
async function checkUnsent(
  { cluster }: Stage,
  { first, lost }: { first: Attempt; lost: LogAccount },
  { say }: ScenarioContext,
): Promise<string[]> {
  const spooled = await spooledBytes(cluster, first);
  say(`the worker holds ${spooled} bytes of log of attempt 1, of which the server has ${lost.stdout.bytes}`);
  const isEnough = spooled > lost.stdout.bytes + UNSENT_BYTES;
  return isEnough ? [] : ["attempt 1 printed nothing while its worker was cut off"];
}

/** The log passes the relay now, and so does everything else. */
async function untilLogGrows({ cluster }: Stage, jobId: string): Promise<void> {
  const size = async (): Promise<number> => (await accountOfLog(cluster.client, jobId, 1)).stdout.bytes;
  const before = await size();
  await eventually(async () => (await size()) > before + 100_000, {
    timeoutMs: START_TIMEOUT_MS,
    intervalMs: 500,
    what: "more log over the relay",
  });
}

/** The worker was told that nobody wants the attempt any more. */
async function untilCleanedUp(cluster: Cluster, { id, workerId }: Attempt): Promise<void> {
  const directory = join(cluster.dataDirectory, "workers", workerId);
  const isGone = (path: string): Promise<boolean> =>
    access(path).then(
      () => false,
      () => true,
    );
  await eventually(
    async () =>
      (await isGone(join(directory, "attempts", id))) && (await isGone(join(directory, "spool", id))),
    { timeoutMs: CLEAN_UP_TIMEOUT_MS, intervalMs: 100, what: "the removal of attempt 1 from its worker" },
  );
}

/** Neither the state nor the log of the lost attempt has changed since it was lost. */
async function checkStale(
  { client }: Cluster,
  before: { jobId: string; lost: LogAccount },
  { say }: ScenarioContext,
): Promise<string[]> {
  const { jobId, lost } = before;
  const [first] = (await getJob(client, jobId)).attempts;
  const log = await accountOfLog(client, jobId, 1);
  if (!first) return ["attempt 1 is not known any more"];
  say(`attempt 1: ${describeEnd(first)}`);
  say(`  its log when it was lost: ${describe(lost.stdout)}; at the end: ${describe(log.stdout)}`);
  const problems: string[] = [];
  if (first.state !== JobState.FAILED || first.cause !== Cause.WORKER_LOST) {
    problems.push(`attempt 1 should be lost, and is ${describeEnd(first)}`);
  }
  if (log.stdout.sha256 !== lost.stdout.sha256 || log.stderr.sha256 !== lost.stderr.sha256) {
    problems.push("the log of attempt 1 grew after it was lost");
  }
  if (!log.isComplete) problems.push("the log of attempt 1 is not complete");
  return problems;
}
