/** `hodei cancel`: asks jobs to end. */

import { jobFromWire } from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { eachId } from "../each-id.ts";
import { checkIds, jsonOutput, textOption } from "../option-values.ts";

export const cancelCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job...>", "ids of jobs, or their beginnings")
      .option("--reason <text>", "kept with the job")
      .option("-o, --output <format>", "json: an array of the jobs")
      .addHelpText(
        "after",
        "\nA job that runs gets SIGTERM, and after its grace SIGKILL; it is `cancelled` when its processes are gone.",
      );
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const reason = textOption(options, "reason") ?? "";
    const connection = await context.connect("running_server");
    const cancel = async (jobId: string) => {
      const { job } = await call(`cancel job ${jobId}`, () => connection.jobs.cancelJob({ jobId, reason }));
      if (!job) throw new Error("the server sent no job");
      return jobFromWire(job);
    };
    return await eachId(operands, cancel, { context, isJson });
  },
};
