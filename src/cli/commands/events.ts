/** `hodei events`: what happened to a job. */

import { eventFromWire } from "../../protocol/convert.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, jsonOutput } from "../option-values.ts";
import { formatTable } from "../table.ts";

export const eventsCommand: CliCommand = {
  configure(command) {
    command
      .argument("<job>", "id of the job, or its beginning")
      .option("-o, --output <format>", "json: an array");
  },
  async run({ options, operands }, context) {
    checkIds(operands, "job");
    const isJson = jsonOutput(options);
    const jobId = operands[0] ?? "";
    const connection = await context.connect("embedded_to_read");
    const response = await call(`get the events of job ${jobId}`, () =>
      connection.jobs.getJobEvents({ jobId }),
    );
    const events = response.events.map(eventFromWire);
    if (isJson) {
      await context.stdout.write(toJsonText(events));
      return EXIT.ok;
    }
    const rows = events.map((event) => [
      new Date(event.atMs).toISOString(),
      event.type,
      colorState(event.state, context.colors.stdout),
      event.message.replaceAll("\n", " "),
    ]);
    await context.stdout.write(formatTable(["TIME", "EVENT", "STATE", "MESSAGE"], rows));
    return EXIT.ok;
  },
};
