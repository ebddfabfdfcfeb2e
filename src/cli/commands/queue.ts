/** `hodei queue`: what waits and runs in each queue, and how it is treated. */

import { durationMs } from "@bufbuild/protobuf/wkt";
import { AppError } from "../../base/errors.ts";
import { defaultQueue, type QueueConfig } from "../../core/pool.ts";
import { queueConfigFromWire, queueConfigToWire } from "../../protocol/convert-scheduling.ts";
import type { QueueStatus } from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { formatDuration } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import {
  checkQueueName,
  flagOption,
  invalidOption,
  jsonOutput,
  textOption,
  wholeNumberOption,
} from "../option-values.ts";
import { formatTable } from "../table.ts";

const MAX_LIMIT = 2 ** 32 - 1;

const setCommand: CliCommand = {
  configure(command) {
    command
      .argument("<queue>", "name of the queue; it need not exist")
      .option("--weight <number>", "its share of the starts among queues that wait, 1 to 1000")
      .option(
        "--max-running <number>",
        "jobs of it that may be at work at the same time, or none for no limit",
      )
      .option("--max-pending <number>", "jobs that may wait; more are refused; or none for no limit")
      .option("--pause", "start no job of it")
      .option("--resume", "start jobs of it again")
      .option("-o, --output <format>", "json")
      .addHelpText(
        "after",
        "\nWhat is not named stays as it is.\n\nExamples:\n  hodei queue set release --weight 3\n  hodei queue set nightly --max-running 4 --max-pending 1000\n  hodei queue set nightly --pause",
      );
  },
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    const name = operands[0] ?? "";
    checkQueueName(name, "queue");
    const change = readChange(options);
    const connection = await context.connect("running_server");
    const [before] = await queueStatuses(connection, name);
    const config: QueueConfig = { ...(before?.config ?? defaultQueue(name)), ...change };
    await call(`configure queue ${name}`, () =>
      connection.scheduler.configureScheduler({ queues: [queueConfigToWire(config)] }),
    );
    const statuses = await queueStatuses(connection, name);
    await context.stdout.write(isJson ? toJsonText(statuses) : queueTable(statuses, context.colors.stdout));
    return EXIT.ok;
  },
};

const resetCommand: CliCommand = {
  configure(command) {
    command
      .argument("<queue...>", "names of queues")
      .option("-o, --output <format>", "json: an array of the queues as they are now")
      .addHelpText(
        "after",
        "\nThe queue then has weight 1 and no limits.\n\nExample:\n  hodei queue reset nightly",
      );
  },
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    for (const name of operands) checkQueueName(name, "queue");
    const connection = await context.connect("running_server");
    await call(`reset queue ${operands.join(", ")}`, () =>
      connection.scheduler.configureScheduler({ resetQueues: operands }),
    );
    if (isJson) {
      const statuses = await Promise.all(operands.map((name) => queueStatuses(connection, name)));
      await context.stdout.write(toJsonText(statuses.flat()));
      return EXIT.ok;
    }
    for (const name of operands) await context.stdout.write(`${name}  reset\n`);
    return EXIT.ok;
  },
};

export const queueCommand: CliCommand = {
  configure(command) {
    command
      .argument("[queue]", "only this one")
      .usage("[options] [QUEUE]\n       hodei queue set QUEUE [options]\n       hodei queue reset QUEUE…")
      .option("-o, --output <format>", "json: an array")
      .addHelpText("after", "\nExamples:\n  hodei queue\n  hodei queue set release --weight 3");
  },
  subcommands: [
    { name: "set", description: "set weight and limits of a queue, pause or resume it", command: setCommand },
    { name: "reset", description: "let queues be as nobody configured them", command: resetCommand },
  ],
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    const only = operands[0] ?? "";
    if (only !== "") checkQueueName(only, "queue");
    const connection = await context.connect("running_server");
    const statuses = await queueStatuses(connection, only);
    if (isJson) await context.stdout.write(toJsonText(statuses));
    else if (statuses.length === 0) context.stderr.writeNow("no queues: nothing waits or runs\n");
    else await context.stdout.write(queueTable(statuses, context.colors.stdout));
    return EXIT.ok;
  },
};

interface QueueView {
  name: string;
  config: QueueConfig;
  pending: number;
  running: number;
  oldestWaitMs: number | null;
  starts: number;
}

export async function queueStatuses(connection: Connection, queue: string): Promise<QueueView[]> {
  const { queues } = await call("get the status of the queues", () =>
    connection.scheduler.getQueueStatus({ queue }),
  );
  return queues.map(queueView);
}

function queueView(message: QueueStatus): QueueView {
  const config = message.config ? queueConfigFromWire(message.config) : defaultQueue("");
  return {
    name: config.name,
    config,
    pending: Number(message.pending),
    running: Number(message.running),
    oldestWaitMs: message.oldestWait ? Math.round(durationMs(message.oldestWait)) : null,
    starts: Number(message.starts),
  };
}

function queueTable(queues: readonly QueueView[], colors: Colors): string {
  const rows = queues.map(({ name, config, pending, running, oldestWaitMs, starts }) => [
    name,
    config.paused ? colors.yellow("paused") : "open",
    limited(pending, config.maxPending),
    limited(running, config.maxRunning),
    String(config.weight),
    oldestWaitMs === null || pending === 0 ? "" : formatDuration(oldestWaitMs),
    String(starts),
  ]);
  return formatTable(["QUEUE", "STATE", "WAITING", "RUNNING", "WEIGHT", "OLDEST WAIT", "STARTS"], rows);
}

function limited(count: number, limit: number | null): string {
  return limit === null ? String(count) : `${count}/${limit}`;
}

function readChange(options: Record<string, unknown>): Partial<QueueConfig> {
  const weight = wholeNumberOption(options, "weight", { option: "--weight", min: 1, max: 1000 });
  const maxRunning = limitOption(options, "maxRunning", "--max-running");
  const maxPending = limitOption(options, "maxPending", "--max-pending");
  const isPause = flagOption(options, "pause");
  const isResume = flagOption(options, "resume");
  if (isPause && isResume) throw invalidOption("--pause", "cannot stand beside --resume");
  const change = {
    ...(weight === undefined ? {} : { weight }),
    ...(maxRunning === undefined ? {} : { maxRunning }),
    ...(maxPending === undefined ? {} : { maxPending }),
    ...(isPause || isResume ? { paused: isPause } : {}),
  };
  if (Object.keys(change).length > 0) return change;
  throw new AppError("invalid_argument", "queue set: nothing to set", {
    details: { hint: "give --weight, --max-running, --max-pending, --pause or --resume" },
  });
}

/** Null for no limit; undefined if it shall stay as it is. */
function limitOption(
  options: Record<string, unknown>,
  name: string,
  option: string,
): number | null | undefined {
  if (textOption(options, name) === "none") return null;
  return wholeNumberOption(options, name, { option, min: 0, max: MAX_LIMIT });
}
