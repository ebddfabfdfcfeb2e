/** `hodei assign`: gives a waiting job to a worker by hand. */

import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, jsonOutput } from "../option-values.ts";

export const assignCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of a waiting job, or its beginning")
      .argument("<worker>", "id of a worker, or its beginning")
      .option("-o, --output <format>", "json")
      .addHelpText(
        "after",
        "\nThe job goes past queue, fair share and strategy, but it must fit there; if it does not, what is in the\nway is told.\n\nExample:\n  hodei assign 0198f3c2 0198f3a1",
      );
  },
  async run({ options, operands }, context) {
    const [jobId = "", workerId = ""] = operands;
    checkIds([jobId], "job");
    checkIds([workerId], "worker");
    const isJson = jsonOutput(options);
    const connection = await context.connect("running_server");
    const { attemptId } = await call(`assign job ${jobId}`, () =>
      connection.scheduler.assignJob({ jobId, workerId }),
    );
    const text = `job ${jobId} goes to worker ${workerId}, attempt ${attemptId}\n`;
    await context.stdout.write(isJson ? toJsonText({ jobId, workerId, attemptId }) : text);
    return EXIT.ok;
  },
};
