/** `hodei decisions`: what the scheduler decides, as it decides it. */

import { isFinal } from "../../core/job.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import { decisionFromWire } from "../../protocol/convert-scheduling.ts";
import { jobStateFromWire } from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { toJsonView } from "../json-views.ts";
import { checkIds, checkQueueName, jsonOutput, textOption } from "../option-values.ts";
import { Reconnect, followContext, type FollowContext } from "../reconnect.ts";
import { printable } from "../table.ts";

export const decisionsCommand: CliCommand = {
  configure(command) {
    command
      .option("--queue <queue>", "only of this queue")
      .option("--job <job>", "only of this job: its id, or its beginning")
      .option("-o, --output <format>", "json: one object a line")
      .addHelpText(
        "after",
        "\nIt follows until it is interrupted, also over restarts of the server.\n\nExamples:\n  hodei decisions\n  hodei decisions --queue nightly\n  hodei decisions --output json | jq 'select(.kind == \"impossible\")'",
      );
  },
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const job = textOption(options, "job");
    const queue = textOption(options, "queue") ?? "";
    if (queue !== "") checkQueueName(queue, "--queue");
    if (job !== undefined) checkIds([job], "job");
    const connection = await context.connect("running_server");
    const jobId = job === undefined ? "" : await followedJob(connection, job, context);
    const follow = followContext(connection, context);
    for await (const { decision, lost } of watchDecisions({ queue, jobId }, follow)) {
      if (lost > 0) context.stderr.writeNow(`hodei: ${lost} decisions were left out: too many at once\n`);
      if (!decision) continue;
      const line = decisionLine(decision, context.colors.stdout);
      await context.stdout.write(`${isJson ? JSON.stringify(toJsonView(decision)) : printable(line)}\n`);
    }
    return EXIT.ok;
  },
};

/** Its whole id. Why nothing may come for a long time is said at once. */
async function followedJob(
  connection: Connection,
  jobId: string,
  { stderr }: CommandContext,
): Promise<string> {
  const { job } = await call(`get job ${jobId}`, () => connection.jobs.getJob({ jobId }));
  if (!job) return jobId;
  const state = jobStateFromWire(job.state);
  if (state === "pending") return job.id;
  const next = isFinal(state) ? "it is retried" : "it needs another attempt";
  stderr.writeNow(`the job is ${state}: nothing is decided on it until ${next}\n`);
  return job.id;
}

/** Goes on after a break; what was decided meanwhile is not known. */
async function* watchDecisions(
  filter: { queue: string; jobId: string },
  follow: FollowContext,
): AsyncGenerator<{ decision: SchedulingDecision | null; lost: number }> {
  const reconnect = new Reconnect(follow, { attempted: "watch scheduling decisions", hint: "" });
  const { connection, signal } = follow;
  while (!signal.aborted) {
    try {
      for await (const message of connection.scheduler.watchSchedulingDecisions(filter, { signal })) {
        reconnect.succeeded();
        const decision = message.decision ? decisionFromWire(message.decision) : null;
        yield { decision, lost: Number(message.lost) };
      }
      await reconnect.wait(null);
    } catch (error) {
      await reconnect.wait(error);
    }
  }
}

function decisionLine({ atMs, kind, jobId, queue, reason }: SchedulingDecision, colors: Colors): string {
  const time = colors.dim(new Date(atMs).toISOString());
  return `${time} ${colorKind(kind, colors)} ${jobId} ${colors.dim(queue)} ${reason.replaceAll("\n", " ")}`;
}

function colorKind(kind: SchedulingDecision["kind"], colors: Colors): string {
  const word = kind.padEnd(12);
  switch (kind) {
    case "assigned":
      return colors.green(word);
    case "impossible":
    case "failed":
      return colors.red(word);
    case "preempting":
      return colors.yellow(word);
    case "provisioning":
    case "waiting":
    case "ended":
      return word;
  }
}
