/** `hodei schema`: the JSON Schema of job files or pool files, for editors. */

import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { choiceOption } from "../option-values.ts";

const KINDS = ["jobs", "pools"] as const;

export const schemaCommand: CliCommand = {
  configure(command) {
    command
      .argument("[kind]", "jobs (the default) or pools")
      .addHelpText(
        "after",
        "\nFor the YAML language server: hodei schema > hodei.schema.json, and then in the file\n# yaml-language-server: $schema=hodei.schema.json",
      );
  },
  async run({ operands }, context) {
    const kind = choiceOption(operands[0] ?? "jobs", KINDS, "kind");
    const schema =
      kind === "jobs"
        ? (await import("../../spec/job-schema.ts")).jobFileJsonSchema()
        : (await import("../../spec/pool-schema.ts")).poolFileJsonSchema();
    await context.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
    return EXIT.ok;
  },
};
