/** `hodei workers remove`: ends workers at once. */

import { AppError } from "../../base/errors.ts";
import { workerFromWire, type WorkerView } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import type { Connection } from "../connection.ts";
import { eachId } from "../each-id.ts";
import { checkIds, flagOption, jsonOutput, textOption } from "../option-values.ts";

/** The way out in words of the API. */
const FIELD_HINT = /; drain it .* `force`$/s;

export const removeWorkersCommand: CliCommand = {
  configure(command) {
    command
      .argument("<worker...>", "ids of workers, or their beginnings")
      .option("--force", "also workers that run jobs: these are tried again elsewhere")
      .option("--reason <text>", "kept with the worker")
      .option("-o, --output <format>", "json: an array of the workers")
      .addHelpText(
        "after",
        "\nWorkers that should first finish what they run are drained instead: hodei workers drain.\n\nExample:\n  hodei workers remove --reason 'bad disk' 0198f3a1",
      );
  },
  async run({ options, operands }, context) {
    checkIds(operands, "worker");
    const isJson = jsonOutput(options);
    const request = { force: flagOption(options, "force"), reason: textOption(options, "reason") ?? "" };
    const connection = await context.connect("running_server");
    const remove = async (workerId: string) => await removeWorker(connection, { ...request, workerId });
    return await eachId(operands, remove, { context, isJson });
  },
};

async function removeWorker(
  connection: Connection,
  request: { workerId: string; force: boolean; reason: string },
): Promise<WorkerView> {
  const { workerId, force } = request;
  try {
    const { worker } = await call(`remove worker ${workerId}`, () =>
      connection.workers.removeWorker(request),
    );
    if (!worker) throw new Error("the server sent no worker");
    return workerFromWire(worker);
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "failed_precondition" || force) throw error;
    // One that is gone can neither be drained nor be removed once more.
    if (!FIELD_HINT.test(error.message)) throw error;
    const hint = `let it finish with: hodei workers drain ${workerId}, or end its jobs with --force`;
    const message = error.message.replace(FIELD_HINT, "");
    throw new AppError(error.code, message, { cause: error, details: { hint } });
  }
}
