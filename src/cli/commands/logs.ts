/** `hodei logs`: the log of a job, all of it, its end, or as it grows. */

import { isFinal } from "../../core/job.ts";
import { LOG_STREAMS, type LogStreamName } from "../../core/log-record.ts";
import { jobFromWire } from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT, exitCodeOfJob } from "../exit-codes.ts";
import { followLog, readPresentLog, watchJob } from "../follow.ts";
import { createJsonPrinter, createTextPrinter, piecesFromWire, type LogPrinter } from "../log-printer.ts";
import { LogTail } from "../log-tail.ts";
import {
  checkIds,
  choiceOption,
  collect,
  flagOption,
  invalidOption,
  jsonOutput,
  sinceOption,
  textsOption,
  wholeNumberOption,
} from "../option-values.ts";
import { followContext, type FollowContext } from "../reconnect.ts";

export const logsCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of the job, or its beginning")
      .option("-f, --follow", "go on until the job has ended")
      .option("--since <time>", "only what was written since: a duration back from now, or a time")
      .option("-n, --tail <lines>", "only this many lines at the end")
      .option("--stream <stream>", "stdout, stderr or system (repeatable)", collect)
      .option("-t, --timestamps", "begin each line with its time")
      .option("--raw", "exactly the bytes of stdout and stderr, all on stdout")
      .option("--attempt <number>", "the log of this attempt; the last one by default")
      .option("--exit-code", "end with the exit code of the job")
      .option("-o, --output <format>", "json: one object for each line")
      .addHelpText(
        "after",
        "\nWhat the job wrote to stderr goes to stderr, and so does what Hodei says of it (dim).",
      );
  },
  run: showLog,
};

interface LogWish {
  jobId: string;
  attempt: number;
  streams: LogStreamName[];
  sinceMs: number | null;
  tailLines: number | undefined;
  follow: boolean;
}

async function showLog(given: CommandCall, context: CommandContext): Promise<number> {
  const { options, operands } = given;
  checkIds(operands.slice(0, 1), "job");
  const isRaw = flagOption(options, "raw");
  const isJson = jsonOutput(options);
  if (isRaw && (isJson || flagOption(options, "timestamps"))) {
    throw invalidOption("--raw", "cannot be combined with --timestamps or --output json");
  }
  const wish: LogWish = {
    jobId: operands[0] ?? "",
    attempt: wholeNumberOption(options, "attempt", { option: "--attempt", min: 1, max: 1_000_000 }) ?? 0,
    streams: chosenStreams(options, isRaw),
    sinceMs: sinceOption(options, context.environment.clock.nowMs()) ?? null,
    tailLines: wholeNumberOption(options, "tail", { option: "--tail", min: 0, max: 10_000_000 }),
    follow: flagOption(options, "follow"),
  };
  const connection = await context.connect("embedded_to_read");
  const printer = choosePrinter(
    { isRaw, isJson, timestamps: flagOption(options, "timestamps"), streams: wish.streams },
    context,
  );
  await printLog(wish, { connection, context, printer });
  await printer.finish();
  return flagOption(options, "exitCode") ? await jobExitCode(wish, connection, context) : EXIT.ok;
}

function chosenStreams(options: Record<string, unknown>, isRaw: boolean): LogStreamName[] {
  const chosen = textsOption(options, "stream").map((text) => choiceOption(text, LOG_STREAMS, "--stream"));
  if (chosen.length === 0 && !isRaw) return [...LOG_STREAMS];
  // Whoever wants only a part of the output must still see that something is missing in it.
  return [
    ...new Set<LogStreamName>([...(chosen.length > 0 ? chosen : (["stdout", "stderr"] as const)), "gap"]),
  ];
}

function choosePrinter(
  wish: { isRaw: boolean; isJson: boolean; timestamps: boolean; streams: LogStreamName[] },
  context: CommandContext,
): LogPrinter {
  const { stdout, stderr, colors } = context;
  if (wish.isJson) return createJsonPrinter(stdout, wish.streams);
  const toStdout = { output: stdout, colors: colors.stdout };
  const toStderr = { output: stderr, colors: colors.stderr };
  const has = (stream: LogStreamName): boolean => wish.streams.includes(stream);
  return createTextPrinter({
    targets: {
      stdout: has("stdout") ? toStdout : null,
      stderr: has("stderr") ? (wish.isRaw ? toStdout : toStderr) : null,
      system: has("system") ? (wish.isRaw ? toStdout : toStderr) : null,
      gap: toStderr,
    },
    timestamps: wish.timestamps,
    exact: wish.isRaw,
  });
}

interface LogRun {
  connection: Connection;
  context: CommandContext;
  printer: LogPrinter;
}

/** What is there now, cut to its last lines if that is wanted; then what comes. */
async function printLog(wish: LogWish, run: LogRun): Promise<void> {
  const { connection, context, printer } = run;
  const streams = wish.streams.map((stream) => LOG_STREAMS.indexOf(stream) + 1);
  const follow = followContext(connection, context);
  let place = { attempt: wish.attempt, offset: 0n };
  if (!wish.follow || wish.tailLines !== undefined) {
    const present = await printPresent(wish, streams, { ...run, follow });
    if (!wish.follow || present.complete) return;
    place = { attempt: present.attempt, offset: present.nextOffset };
  }
  // Reading on from a place needs the number of its attempt, but later attempts are wanted too.
  const request = {
    jobId: wish.jobId,
    streams,
    sinceMs: wish.sinceMs,
    ...place,
    onlyAttempt: wish.attempt !== 0,
  };
  for await (const response of followLog(request, follow)) {
    await printer.print(piecesFromWire(response.entries), response.attempt);
  }
}

async function printPresent(
  wish: LogWish,
  streams: number[],
  { follow, printer }: LogRun & { follow: FollowContext },
): Promise<{ attempt: number; nextOffset: bigint; complete: boolean }> {
  const tail = wish.tailLines === undefined ? null : new LogTail(wish.tailLines);
  const { jobId, attempt, sinceMs, tailLines = 0 } = wish;
  const seen = { attempt: wish.attempt, nextOffset: 0n, complete: false };
  for await (const response of readPresentLog({ jobId, attempt, streams, sinceMs, tailLines }, follow)) {
    Object.assign(seen, { nextOffset: response.nextOffset, complete: response.complete });
    if (response.attempt !== 0) seen.attempt = response.attempt;
    const pieces = piecesFromWire(response.entries);
    if (tail) for (const piece of pieces) tail.push(piece);
    else await printer.print(pieces, response.attempt);
  }
  if (tail && wish.tailLines !== 0) await printer.print(tail.pieces(), seen.attempt);
  return seen;
}

async function jobExitCode(wish: LogWish, connection: Connection, context: CommandContext): Promise<number> {
  const { job } = await call(`get job ${wish.jobId}`, () => connection.jobs.getJob({ jobId: wish.jobId }));
  if (!job) return EXIT.failure;
  const view = jobFromWire(job);
  if (isFinal(view.state) || !wish.follow) return exitCodeOfJob(view);
  const follow = followContext(connection, context);
  for await (const change of watchJob(view.id, follow))
    if (isFinal(change.state)) return exitCodeOfJob(change);
  return EXIT.failure;
}
