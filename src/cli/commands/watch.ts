/** `hodei watch`: the changes of a job until it ends. */

import { isFinal } from "../../core/job.ts";
import type { JobView } from "../../protocol/convert.ts";
import type { CliCommand } from "../command.ts";
import { EXIT, exitCodeOfJob } from "../exit-codes.ts";
import { watchJob } from "../follow.ts";
import { colorState, resultLine } from "../job-text.ts";
import { toJsonView } from "../json-views.ts";
import { checkIds, jsonOutput } from "../option-values.ts";
import { followContext } from "../reconnect.ts";
import { printable } from "../table.ts";

export const watchCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of the job, or its beginning")
      .option("-o, --output <format>", "json: one object for each change")
      .addHelpText("after", "\nThe exit code is the job's own; see hodei help exit-codes.");
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const { environment, stdout, stderr, colors } = context;
    const connection = await context.connect("embedded_to_read");
    const follow = followContext(connection, context);
    for await (const job of watchJob(operands[0] ?? "", follow)) {
      const time = new Date(environment.clock.nowMs()).toISOString();
      const line = `${colors.stdout.dim(time)} ${colorState(job.state, colors.stdout)}${detail(job)}`;
      await stdout.write(isJson ? `${JSON.stringify(toJsonView(job))}\n` : `${printable(line)}\n`);
      if (!isFinal(job.state)) continue;
      if (!isJson) await stderr.write(`${resultLine(job, colors.stderr, environment.clock.nowMs())}\n`);
      return exitCodeOfJob(job);
    }
    return EXIT.failure;
  },
};

function detail(job: JobView): string {
  const parts: string[] = [];
  if (job.progress && !isFinal(job.state))
    parts.push(`${Math.round(job.progress.percent)} % ${job.progress.message}`.trim());
  if (job.message !== "") parts.push(job.message.replaceAll("\n", " "));
  return parts.length === 0 ? "" : `: ${parts.join(", ")}`;
}
