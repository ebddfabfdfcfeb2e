/** `hodei explain`: why a job waits, worker by worker and pool by pool, and what would have to change. */

import type { PoolVerdict, WorkerVerdict } from "../../core/explain.ts";
import { isFinal, type JobState } from "../../core/job.ts";
import type { Blocker } from "../../core/placement.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import {
  decisionFromWire,
  poolVerdictFromWire,
  workerVerdictFromWire,
} from "../../protocol/convert-scheduling.ts";
import { jobStateFromWire, timeFromWire } from "../../protocol/convert.ts";
import type { GetSchedulingDecisionResponse } from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import type { CliCommand, Colors, CommandContext } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState, formatDuration } from "../job-text.ts";
import { toJsonText, toJsonView } from "../json-views.ts";
import { checkIds, flagOption, jsonOutput } from "../option-values.ts";
import { callPersistently, followContext, type FollowContext } from "../reconnect.ts";
import { formatTable, printable } from "../table.ts";

const WATCH_INTERVAL_MS = 1_000;
/** Of a large cluster, those that come closest say enough. */
const SHOWN_PLACES = 20;
const CLEAR_SCREEN = "\u001b[H\u001b[2J";

export const explainCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of the job, or its beginning")
      .option("-a, --all", `all workers and pools, not just the ${SHOWN_PLACES} that come closest`)
      .option("-w, --watch", "look again each second until the job starts")
      .option("-o, --output <format>", "json; with --watch one object for each change")
      .addHelpText(
        "after",
        "\nExamples:\n  hodei explain 0198f3c2\n  hodei explain --watch 0198f3c2\n  hodei explain -o json 0198f3c2",
      );
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const connection = await context.connect("running_server");
    const follow = followContext(connection, context);
    const how: How = { follow, isJson, isAll: flagOption(options, "all") };
    const jobId = operands[0] ?? "";
    if (flagOption(options, "watch")) return await watchExplanation(jobId, how);
    const explanation = await explain(jobId, follow);
    await context.stdout.write(isJson ? toJsonText(explanation) : explanationText(explanation, how));
    return EXIT.ok;
  },
};

interface How {
  follow: FollowContext;
  isJson: boolean;
  isAll: boolean;
}

interface Explanation {
  jobId: string;
  name: string;
  state: JobState;
  decision: SchedulingDecision | null;
  ahead: number;
  heldBy: string;
  notBeforeAtMs: number | null;
  workers: WorkerVerdict[];
  pools: PoolVerdict[];
}

async function explain(jobId: string, follow: FollowContext): Promise<Explanation> {
  const response = await callPersistently(`explain job ${jobId}`, follow, () =>
    follow.connection.scheduler.getSchedulingDecision({ jobId }),
  );
  return explanationFromWire(response);
}

function explanationFromWire(message: GetSchedulingDecisionResponse): Explanation {
  return {
    jobId: message.jobId,
    name: message.jobName,
    state: jobStateFromWire(message.state),
    decision: message.decision ? decisionFromWire(message.decision) : null,
    ahead: Number(message.ahead),
    heldBy: message.heldBy,
    notBeforeAtMs: timeFromWire(message.notBefore),
    workers: message.workers.map(workerVerdictFromWire),
    pools: message.pools.map(poolVerdictFromWire),
  };
}

async function watchExplanation(jobId: string, how: How): Promise<number> {
  const { follow, isJson } = how;
  const { environment, stdout } = follow.context;
  const isScreen = environment.isTty.stdout && !isJson;
  let shown = "";
  for (;;) {
    const explanation = await explain(jobId, follow);
    const text = isJson ? `${JSON.stringify(toJsonView(explanation))}\n` : explanationText(explanation, how);
    if (isScreen) await stdout.write(`${CLEAR_SCREEN}${text}`);
    else if (text !== shown) await stdout.write(shown === "" || isJson ? text : `\n${text}`);
    shown = text;
    const { state } = explanation;
    if (isFinal(state) || (state !== "pending" && state !== "scheduled")) return EXIT.ok;
    await environment.clock.sleep(WATCH_INTERVAL_MS);
  }
}

// ── Text ───────────────────────────────────────────────────────────────────────────────────────

function explanationText(explanation: Explanation, { follow, isAll }: How): string {
  const { context } = follow;
  const colors = context.colors.stdout;
  const parts = [headText(explanation, context)];
  if (explanation.state === "pending") {
    const limit = isAll ? Number.POSITIVE_INFINITY : SHOWN_PLACES;
    if (explanation.workers.length > 0) parts.push(workersText(explanation.workers, limit, colors));
    if (explanation.pools.length > 0) parts.push(poolsText(explanation.pools, limit, colors));
    if (explanation.workers.length === 0 && explanation.pools.length === 0)
      parts.push("There are no workers and no pools; see hodei pools apply --help.\n");
  }
  return parts.join("\n");
}

/** The reason stands first: most people need nothing else. */
function headText(explanation: Explanation, { colors, environment }: CommandContext): string {
  const { decision, state } = explanation;
  const { dim } = colors.stdout;
  const waitMs = (explanation.notBeforeAtMs ?? 0) - environment.clock.nowMs();
  const lines: [string, string][] = [
    ["job", `${explanation.name} ${dim(explanation.jobId)}`],
    ["state", colorState(state, colors.stdout)],
    ["decision", decision ? kindText(decision, colors.stdout) : ""],
    ["why", state === "pending" ? "" : (decision?.reason ?? "")],
    ["queue", queueText(explanation)],
    // What holds the whole queue is often the reason itself.
    ["held by", explanation.heldBy === decision?.reason ? "" : explanation.heldBy],
    ["retry", waitMs > 0 ? `the next attempt begins in ${formatDuration(waitMs)} at the earliest` : ""],
  ];
  const shown = lines
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${dim(name.padEnd(8))} ${printable(value)}\n`);
  const why =
    state === "pending"
      ? decision?.reason || "nothing was decided on this job yet"
      : `it does not wait: it is ${state.replaceAll("_", " ")}`;
  return `${printable(why)}\n\n${shown.join("")}`;
}

function kindText({ kind, workerId, pool }: SchedulingDecision, colors: Colors): string {
  const isBad = kind === "impossible" || kind === "failed";
  const word = isBad ? colors.red(kind) : kind;
  if (workerId !== null) return `${word}, worker ${workerId}`;
  return pool === null ? word : `${word}, pool ${pool}`;
}

function queueText({ decision, state, ahead }: Explanation): string {
  const queue = decision?.queue ?? "";
  if (queue === "" || state !== "pending") return queue;
  if (ahead === 0) return `${queue}, no job goes first`;
  return `${queue}, ${ahead === 1 ? "1 job goes" : `${ahead} jobs go`} first`;
}

function workersText(workers: readonly WorkerVerdict[], limit: number, colors: Colors): string {
  const rows = workers.slice(0, limit).flatMap((worker) => {
    const blockers = worker.fits ? [] : worker.blockers;
    return blockerRows([worker.name || worker.workerId, worker.pool], blockers, fitText(worker.fits, colors));
  });
  const head = ["WORKER", "POOL", "IN THE WAY", "WHAT WOULD HAVE TO CHANGE"];
  return `${formatTable(head, rows)}${restText(workers.length - limit, "workers", colors)}`;
}

function poolsText(pools: readonly PoolVerdict[], limit: number, colors: Colors): string {
  const rows = pools.slice(0, limit).flatMap((pool) => {
    const arriving = pool.arriving === 0 ? "" : String(pool.arriving);
    return blockerRows([pool.name, arriving], pool.fits ? [] : pool.blockers, fitText(pool.fits, colors));
  });
  const head = ["POOL", "ARRIVING", "IN THE WAY", "WHAT WOULD HAVE TO CHANGE"];
  return `${formatTable(head, rows)}${restText(pools.length - limit, "pools", colors)}`;
}

function fitText(fits: boolean, colors: Colors): string {
  return fits ? colors.green("nothing: it fits") : "";
}

/** A row for each thing in the way; the place is named in its first one. */
function blockerRows(
  place: readonly [string, string],
  blockers: readonly Blocker[],
  none: string,
): string[][] {
  if (blockers.length === 0) return [[...place, none, ""]];
  return blockers.map(({ message, change }, index) => [
    ...(index === 0 ? place : ["", ""]),
    message.replaceAll("\n", " "),
    change.replaceAll("\n", " "),
  ]);
}

function restText(more: number, what: string, { dim }: Colors): string {
  return more > 0 ? dim(`and ${more} more ${what}; --all shows them\n`) : "";
}
