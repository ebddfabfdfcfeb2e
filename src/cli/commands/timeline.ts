/** `hodei timeline`: how long each part of a job's way took. */

import { isFinal } from "../../core/job.ts";
import { jobStateFromWire, timeFromWire } from "../../protocol/convert.ts";
import type { AttemptTimeline } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { formatDuration } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, jsonOutput } from "../option-values.ts";
import { formatTable, printable } from "../table.ts";

const BAR_CHARS = 40;

export const timelineCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of the job, or its beginning")
      .option("-o, --output <format>", "json: an array of the attempts")
      .addHelpText(
        "after",
        "\nThe start of a job and its output are told by the clock of its worker, all else by the server's.\n\nExample:\n  hodei timeline 0198f3c2",
      );
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const jobId = operands[0] ?? "";
    const connection = await context.connect("running_server");
    const response = await call(`get the timeline of job ${jobId}`, () =>
      connection.jobs.getJobTimeline({ jobId }),
    );
    const nowMs = context.environment.clock.nowMs();
    const attempts = response.attempts.map((attempt) => timelineOf(attempt, nowMs));
    if (isJson) {
      await context.stdout.write(toJsonText(attempts));
    } else if (attempts.length === 0) {
      context.stderr.writeNow(`${await whyNoAttempt(connection, jobId)}\n`);
    } else {
      await context.stdout.write(attempts.map((attempt) => timelineText(attempt, context)).join("\n"));
    }
    return EXIT.ok;
  },
};

async function whyNoAttempt(connection: Connection, jobId: string): Promise<string> {
  const { job } = await call(`get job ${jobId}`, () => connection.jobs.getJob({ jobId }));
  const state = job ? jobStateFromWire(job.state) : "pending";
  if (!isFinal(state)) return `no attempt yet; see why with: hodei explain ${jobId}`;
  return `it was never given to a worker: ${job?.message || state}`;
}

type PartName = "waiting" | "creating" | "registering" | "assigning" | "starting" | "first_byte" | "running";

interface Part {
  name: PartName;
  fromAtMs: number;
  durationMs: number;
  /** It goes on; the duration is that until now. */
  isOpen: boolean;
}

interface Timeline {
  attemptId: string;
  number: number;
  workerId: string;
  parts: Part[];
}

/** A part begins where a fact is known, and ends at the next fact; facts that are missing join parts. */
function timelineOf(attempt: AttemptTimeline, nowMs: number): Timeline {
  const { attemptId, number, workerId } = attempt;
  const queuedAtMs = timeFromWire(attempt.queuedAt) ?? timeFromWire(attempt.scheduledAt) ?? nowMs;
  const startedAtMs = timeFromWire(attempt.startedAt);
  const finishedAtMs = timeFromWire(attempt.finishedAt);
  const before: [PartName, number | null][] = [
    ["waiting", queuedAtMs],
    ...madeForIt(attempt, queuedAtMs),
    ["starting", timeFromWire(attempt.scheduledAt)],
  ];
  const parts = chain(before, startedAtMs ?? finishedAtMs, nowMs);
  if (startedAtMs === null) return { attemptId, number, workerId, parts };
  const firstByteAtMs = timeFromWire(attempt.firstByteAt);
  if (firstByteAtMs !== null) parts.push(...chain([["first_byte", startedAtMs]], firstByteAtMs, nowMs));
  parts.push(...chain([["running", startedAtMs]], finishedAtMs, nowMs));
  return { attemptId, number, workerId, parts };
}

/** A worker that was there before the job waited was not made for it: how long that took is not its time. */
function madeForIt(attempt: AttemptTimeline, queuedAtMs: number): [PartName, number | null][] {
  const askedAtMs = timeFromWire(attempt.provisioningAt);
  if (askedAtMs === null || askedAtMs < queuedAtMs) return [];
  return [
    ["creating", askedAtMs],
    ["registering", timeFromWire(attempt.createdAt)],
    ["assigning", timeFromWire(attempt.registeredAt)],
  ];
}

/** Times of two clocks may differ: no part is shorter than nothing. */
function chain(facts: readonly [PartName, number | null][], endAtMs: number | null, nowMs: number): Part[] {
  const known = facts.flatMap(([name, atMs]) => (atMs === null ? [] : [{ name, atMs }]));
  return known.map(({ name, atMs }, index) => {
    const toMs = known[index + 1]?.atMs ?? endAtMs;
    const durationMs = Math.max(0, (toMs ?? nowMs) - atMs);
    return { name, fromAtMs: atMs, durationMs, isOpen: toMs === null };
  });
}

const PART_WORDS: Readonly<Record<PartName, string>> = {
  waiting: "waiting",
  creating: "creating a worker",
  registering: "connecting it",
  assigning: "giving it the job",
  starting: "starting",
  first_byte: "to first output",
  running: "running",
};

function timelineText({ number, workerId, parts }: Timeline, { colors }: CommandContext): string {
  const { bold, dim, cyan } = colors.stdout;
  const startMs = Math.min(...parts.map(({ fromAtMs }) => fromAtMs));
  const endMs = Math.max(...parts.map(({ fromAtMs, durationMs }) => fromAtMs + durationMs));
  const rows = parts.map((part) => [
    PART_WORDS[part.name],
    `+${formatDuration(part.fromAtMs - startMs)}`,
    `${formatDuration(part.durationMs)}${part.isOpen ? " so far" : ""}`,
    cyan(bar(part, startMs, endMs)),
  ]);
  const head = `${bold(`attempt ${number}`)} ${dim(`on worker ${printable(workerId)}, waiting since ${new Date(startMs).toISOString()}`)}\n`;
  return `${head}${formatTable(["PART", "AT", "TOOK", ""], rows)}`;
}

function bar({ fromAtMs, durationMs }: Part, startMs: number, endMs: number): string {
  const perChar = Math.max(1, endMs - startMs) / BAR_CHARS;
  const offset = Math.min(BAR_CHARS - 1, Math.floor((fromAtMs - startMs) / perChar));
  const length = Math.min(BAR_CHARS - offset, Math.max(1, Math.round(durationMs / perChar)));
  // A part that took no time to speak of is still a part.
  return `${" ".repeat(offset)}${(durationMs < perChar / 2 ? "▏" : "█").repeat(length)}`;
}
