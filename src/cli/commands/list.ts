/** `hodei list`: jobs by filter, newest first. */

import { CAUSES, JOB_STATES } from "../../core/job.ts";
import {
  causeToWire,
  jobFromWire,
  jobStateToWire,
  timeToWire,
  type JobView,
} from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState, formatAge, formatDuration, ranForMs } from "../job-text.ts";
import { toJsonView } from "../json-views.ts";
import {
  choiceOption,
  collect,
  flagOption,
  jsonOutput,
  pairsOption,
  sinceOption,
  textOption,
  textsOption,
  wholeNumberOption,
} from "../option-values.ts";
import { shortIds } from "../short-ids.ts";
import { formatTable } from "../table.ts";

const DEFAULT_LIMIT = 50;
const PAGE_SIZE = 500;

export const listCommand: CliCommand = {
  configure(command) {
    command
      .option("--state <state>", `${JOB_STATES.join(", ")} (repeatable, or with commas)`, collect)
      .option(
        "--cause <cause>",
        "why it ended, such as exit_code or worker_lost (repeatable, or with commas)",
        collect,
      )
      .option("--queue <queue>", "jobs of this queue")
      .option("--name <name>", "jobs with this name")
      .option("--label <key=value>", "jobs with this label (repeatable)", collect)
      .option("--since <time>", "created since: a duration back from now, or a time")
      .option("-n, --limit <number>", `this many jobs (${DEFAULT_LIMIT})`)
      .option("-a, --all", "all jobs")
      .option("-o, --output <format>", "json: an array");
  },
  run: listJobs,
};

async function listJobs(given: CommandCall, context: CommandContext): Promise<number> {
  const { options } = given;
  const isJson = jsonOutput(options);
  const filter = toFilter(options, context.environment.clock.nowMs());
  const chosen = wholeNumberOption(options, "limit", { option: "--limit", min: 1, max: 1_000_000 });
  const limit = flagOption(options, "all") ? Infinity : (chosen ?? DEFAULT_LIMIT);
  const connection = await context.connect("embedded_to_read");
  const rest = { isLeft: false };
  const pages = jobPages(connection, filter, { limit, rest });
  await (isJson ? printJson(pages, context) : printTables(pages, context));
  if (rest.isLeft && chosen === undefined)
    context.stderr.writeNow(`these are the newest ${DEFAULT_LIMIT}; --all shows all\n`);
  return EXIT.ok;
}

/** Given again and again, or with commas between them. */
function wordsOption(options: Record<string, unknown>, name: string): string[] {
  return textsOption(options, name).flatMap((text) => text.split(","));
}

type Filter = ReturnType<typeof toFilter>;

function toFilter(options: Record<string, unknown>, nowMs: number) {
  const createdAfter = timeToWire(sinceOption(options, nowMs) ?? null);
  return {
    states: wordsOption(options, "state").map((text) =>
      jobStateToWire(choiceOption(text, JOB_STATES, "--state")),
    ),
    causes: wordsOption(options, "cause").map((text) => causeToWire(choiceOption(text, CAUSES, "--cause"))),
    queue: textOption(options, "queue") ?? "",
    name: textOption(options, "name") ?? "",
    labels: pairsOption(options, "label", "--label"),
    ...(createdAfter ? { createdAfter } : {}),
  };
}

/** Notes in `rest`, at the end, whether there are more jobs than the limit. */
async function* jobPages(
  connection: Connection,
  filter: Filter,
  { limit, rest }: { limit: number; rest: { isLeft: boolean } },
): AsyncGenerator<JobView[]> {
  let left = limit;
  let pageToken = "";
  do {
    const pageSize = Math.min(left, PAGE_SIZE);
    const request = { ...filter, pageSize, pageToken };
    const page = await call("list jobs", () => connection.jobs.listJobs(request));
    left -= page.jobs.length;
    pageToken = page.nextPageToken;
    yield page.jobs.map(jobFromWire);
  } while (left > 0 && pageToken !== "");
  rest.isLeft = pageToken !== "";
}

/** Printed as the pages come, so that a million jobs are never in memory. */
async function printJson(pages: AsyncIterable<JobView[]>, { stdout }: CommandContext): Promise<void> {
  let isFirst = true;
  await stdout.write("[");
  for await (const jobs of pages) {
    for (const job of jobs) {
      await stdout.write(`${isFirst ? "\n" : ",\n"}${JSON.stringify(toJsonView(job))}`);
      isFirst = false;
    }
  }
  await stdout.write(isFirst ? "]\n" : "\n]\n");
}

async function printTables(pages: AsyncIterable<JobView[]>, context: CommandContext): Promise<void> {
  const { stdout, environment, colors } = context;
  let count = 0;
  for await (const jobs of pages) {
    if (jobs.length === 0) continue;
    const ids = jobs.map((job) => job.id);
    const shown = environment.isTty.stdout ? shortIds(ids) : ids;
    const nowMs = environment.clock.nowMs();
    const rows = jobs.map((job, index) => {
      const ranMs = ranForMs(job, nowMs);
      return [
        shown[index] ?? job.id,
        job.definition.name,
        colorState(job.state, colors.stdout),
        job.cause ?? "",
        formatAge(nowMs - job.createdAtMs),
        ranMs === null ? "" : formatDuration(ranMs),
        job.workerId ?? "",
      ];
    });
    const table = formatTable(["ID", "NAME", "STATE", "CAUSE", "AGE", "DURATION", "WORKER"], rows);
    // One heading is enough, also over many pages.
    await stdout.write(count === 0 ? table : table.slice(table.indexOf("\n") + 1));
    count += jobs.length;
  }
  if (count === 0) context.stderr.writeNow("no jobs\n");
}
