/** `hodei retry`: new attempts of jobs that ended. */

import { jobFromWire } from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { eachId } from "../each-id.ts";
import { checkIds, flagOption, jsonOutput } from "../option-values.ts";

export const retryCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job...>", "ids of jobs, or their beginnings")
      .option("--force", "also jobs that succeeded")
      .option("-o, --output <format>", "json: an array of the jobs");
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const force = flagOption(options, "force");
    const connection = await context.connect("running_server");
    const retry = async (jobId: string) => {
      const { job } = await call(`retry job ${jobId}`, () => connection.jobs.retryJob({ jobId, force }));
      if (!job) throw new Error("the server sent no job");
      return jobFromWire(job);
    };
    return await eachId(operands, retry, { context, isJson });
  },
};
