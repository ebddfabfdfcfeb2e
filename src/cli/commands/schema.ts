/** `hodei schema`: the JSON Schema of job files, for editors. */

import { jobFileJsonSchema } from "../../spec/job-schema.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";

export const schemaCommand: CliCommand = {
  configure(command) {
    command.addHelpText(
      "after",
      "\nWith the YAML language server:  hodei schema > hodei.schema.json, and in the job file\n# yaml-language-server: $schema=hodei.schema.json",
    );
  },
  async run(_call, context) {
    await context.stdout.write(`${JSON.stringify(jobFileJsonSchema(), null, 2)}\n`);
    return EXIT.ok;
  },
};
