/** `hodei workers`: the workers, or one of them. */

import { AppError } from "../../base/errors.ts";
import { workerFromWire, type WorkerView } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, flagOption, jsonOutput } from "../option-values.ts";
import { describeWorker, workerTable } from "../worker-text.ts";
import { cordonCommand, uncordonCommand } from "./cordon-workers.ts";
import { drainWorkersCommand } from "./drain-workers.ts";
import { removeWorkersCommand } from "./remove-workers.ts";
import { workerTokenCommand } from "./worker-token.ts";

const getWorkerCommand: CliCommand = {
  configure(command) {
    command
      .argument("<worker>", "id of a worker, or its beginning")
      .option("-o, --output <format>", "json")
      .addHelpText("after", "\nExample:\n  hodei workers get 0198f3a1");
  },
  run: showWorker,
};

export const workersCommand: CliCommand = {
  configure(command) {
    command
      .argument("[worker]", "id of a worker, or its beginning; all workers without it")
      .usage("[options] [WORKER]\n       hodei workers COMMAND [options]")
      .option("-a, --all", "also workers that are gone")
      .option("--wide", "also capacity, usage, host and when it was last seen")
      .option("-o, --output <format>", "json")
      .addHelpText(
        "after",
        "\nExamples:\n  hodei workers --wide\n  hodei workers drain --wait 0198f3a1\n  hodei workers token --write worker.token",
      );
  },
  subcommands: [
    { name: "get", description: "show one worker", command: getWorkerCommand },
    { name: "cordon", description: "give workers no new jobs", command: cordonCommand },
    { name: "uncordon", description: "give workers jobs again", command: uncordonCommand },
    {
      name: "drain",
      description: "let workers finish what they run and leave",
      command: drainWorkersCommand,
    },
    { name: "remove", description: "end workers at once", command: removeWorkersCommand },
    { name: "token", description: "make a token for a worker that you start", command: workerTokenCommand },
  ],
  async run(given, context) {
    if (given.operands.length > 0) return await showWorker(given, context);
    const isJson = jsonOutput(given.options);
    const connection = await context.connect("running_server");
    const workers = await listWorkers(connection, flagOption(given.options, "all"));
    if (isJson) {
      await context.stdout.write(toJsonText(workers));
    } else if (workers.length === 0) {
      context.stderr.writeNow("no workers\n");
    } else {
      await context.stdout.write(workerTable(workers, flagOption(given.options, "wide"), context));
    }
    return EXIT.ok;
  },
};

async function showWorker({ options, operands }: CommandCall, context: CommandContext): Promise<number> {
  const [workerId = "", ...others] = operands;
  if (others.length > 0) throw new AppError("invalid_argument", "workers shows one worker at a time");
  checkIds([workerId], "worker");
  const isJson = jsonOutput(options);
  const connection = await context.connect("running_server");
  const { worker } = await call(`get worker ${workerId}`, () =>
    connection.workers.getWorkerInfo({ workerId }),
  );
  if (!worker) throw new Error("the server sent no worker");
  const view = workerFromWire(worker);
  await context.stdout.write(isJson ? toJsonText(view) : describeWorker(view, context));
  return EXIT.ok;
}

export async function listWorkers(connection: Connection, includeTerminated: boolean): Promise<WorkerView[]> {
  const workers: WorkerView[] = [];
  let pageToken = "";
  do {
    const page = await call("list workers", () =>
      connection.workers.listWorkers({ includeTerminated, pageSize: 1000, pageToken }),
    );
    workers.push(...page.workers.map(workerFromWire));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return workers;
}
