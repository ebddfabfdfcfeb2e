/** Cancels a job whose two hundred processes do not want to end, with each way to find them. */

import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import { JobState } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { FINAL_STATES } from "../cluster-client.ts";
import type { Cluster } from "../cluster.ts";
import { describeEnd, duration, getJob, seconds, submit } from "./job-calls.ts";
import { onCluster, type Scenario, type ScenarioContext } from "./scenario.ts";
import { countCommand } from "./watched-processes.ts";

const MODES = ["v2", "v1", "none"] as const;
type Mode = (typeof MODES)[number];

const LONG_GRACE_MS = 10_000;
const SHORT_GRACE_MS = 3_000;
/** What a cancel may take besides the grace. */
const MARGIN_MS = 3_000;
const START_TIMEOUT_MS = 60_000;
const END_TIMEOUT_MS = 90_000;
const POLL_MS = 25;

/** Of no other process on this machine. */
const SLEEP = ["sleep", "7654.321"];
const PROCESSES = 200;

/**
 * A hundred processes in the session of the job that end at SIGTERM, half of them orphans, and a
 * hundred in sessions of their own that ignore it: children that hold the pipe open, orphans that do
 * not, and some without their environment.
 */
const TREE = String.raw`
stubborn=(setsid bash -c "trap '' TERM; exec ${SLEEP.join(" ")}")
bare=(setsid env -i "$(type -P bash)" -c "trap '' TERM; exec -a ${SLEEP[0]} $(type -P sleep) ${SLEEP[1]}")
if [ -n "$KEEP_ENVIRONMENT" ]; then bare_orphan=("${"$"}{stubborn[@]}"); else bare_orphan=("${"$"}{bare[@]}"); fi
for ((i = 0; i < 50; i++)); do
  ${SLEEP.join(" ")} &
  (${SLEEP.join(" ")} &)
done
for ((i = 0; i < 40; i++)); do
  "${"$"}{stubborn[@]}" &
  ("${"$"}{stubborn[@]}" </dev/null >/dev/null 2>&1 &)
done
for ((i = 0; i < 10; i++)); do
  "${"$"}{bare[@]}" &
  ("${"$"}{bare_orphan[@]}" &)
done
wait
`;

export const bigCancel: Scenario = {
  name: "big-cancel",
  description:
    "cancel of 200 processes, half in their own sessions ignoring SIGTERM, with cgroups v2, v1 and none",
  async run(context) {
    const problems: string[] = [];
    for (const mode of MODES) {
      const environment = { HODEI_CGROUP: mode };
      const found = await onCluster({ environment }, (cluster) => run(cluster, mode, context));
      problems.push(...found.map((problem) => `${mode}: ${problem}`));
    }
    return problems;
  },
};

async function run(cluster: Cluster, mode: Mode, { isShort, say }: ScenarioContext): Promise<string[]> {
  const graceMs = isShort ? SHORT_GRACE_MS : LONG_GRACE_MS;
  const { client } = cluster;
  const jobId = await submit(client, {
    name: `tree-${mode}`,
    grace: duration(graceMs),
    // Without cgroups nobody can know such an orphan, see src/runner/tree/process-sweep.ts.
    env: { KEEP_ENVIRONMENT: mode === "none" ? "1" : "" },
    command: {
      commandType: { case: "script", value: { interpreter: "bash", content: TREE, noSafetyHeaders: true } },
    },
  });
  const isUp = (): boolean => countCommand(SLEEP) === PROCESSES;
  await eventually(isUp, {
    timeoutMs: START_TIMEOUT_MS,
    intervalMs: POLL_MS,
    what: `${PROCESSES} processes`,
  });

  const startedMs = systemClock.monotonicMs();
  await client.jobs.cancelJob({ jobId, reason: "scenario" });
  const { cancelledMs, goneMs, stayed, end, state } = await watchCancel(cluster, jobId, startedMs);
  say(
    `${mode}: grace ${seconds(graceMs)}; no process left after ${seconds(goneMs)}, ${end} after ${seconds(cancelledMs)}`,
  );
  const problems = await checkMode(cluster, mode);
  if (state !== JobState.CANCELLED) problems.push(`the job ended as ${end}`);
  if (stayed > 0) problems.push(`${stayed} processes were there when the job was called ended`);
  const tookMs = Math.max(cancelledMs, goneMs);
  if (tookMs > graceMs + MARGIN_MS)
    problems.push(`it took ${seconds(tookMs)} with a grace of ${seconds(graceMs)}`);
  return problems;
}

/** What the runner did is what was asked for. */
async function checkMode({ client }: Cluster, mode: Mode): Promise<string[]> {
  const { workers } = await client.workers.listWorkers({});
  const capabilities = workers[0]?.info?.capabilities ?? [];
  return capabilities.includes(`cgroup_${mode}`) ? [] : [`the worker has ${capabilities.join(", ")}`];
}

interface Cancelled {
  cancelledMs: number;
  goneMs: number;
  /** Processes that were alive when the job was called ended. */
  stayed: number;
  end: string;
  state: JobState;
}

async function watchCancel(cluster: Cluster, jobId: string, startedMs: number): Promise<Cancelled> {
  let goneMs: number | null = null;
  return eventually(
    async () => {
      const job = await getJob(cluster.client, jobId);
      // Counted after the answer, so that what is seen here was there when the job was called ended.
      const left = countCommand(SLEEP);
      const nowMs = systemClock.monotonicMs() - startedMs;
      if (left === 0) goneMs ??= nowMs;
      if (!FINAL_STATES.includes(job.state)) return null;
      const end = describeEnd(job);
      return { cancelledMs: nowMs, goneMs: goneMs ?? Infinity, stayed: left, end, state: job.state };
    },
    { timeoutMs: END_TIMEOUT_MS, intervalMs: POLL_MS, what: "the end of the cancelled job" },
  );
}
