/** `hodei help`: explains a command, or the exit codes. */

import { AppError } from "../../base/errors.ts";
import { closestName } from "../../spec/closest-name.ts";
import type { CliCommand } from "../command.ts";
import { EXIT, EXIT_CODE_HELP, JOB_EXIT_CODE_HELP } from "../exit-codes.ts";

export const helpCommand: CliCommand = {
  configure(command) {
    command.argument("[topic...]", "a command, or exit-codes");
  },
  async run({ operands }, context) {
    const [topic] = operands;
    if (topic === "exit-codes") {
      await context.stdout.write(exitCodeText());
      return EXIT.ok;
    }
    let text = "";
    const program = await context.describeProgram((part) => {
      text += part;
    });
    let command = program;
    for (const name of operands) {
      // What follows a command that has no others, as in `agent install`, is explained with it.
      if (command !== program && command.commands.length === 0) break;
      const found = command.commands.find((candidate) => candidate.name() === name);
      const known = command.commands.map((candidate) => candidate.name());
      if (!found) throw unknownTopic(name, command === program ? [...known, "exit-codes"] : known);
      command = found;
    }
    command.outputHelp();
    await context.stdout.write(text);
    return EXIT.ok;
  },
};

function unknownTopic(topic: string, known: readonly string[]): AppError {
  const close = closestName(topic, known);
  const hint = close === null ? "see hodei help" : `did you mean ${close}?`;
  return new AppError("invalid_argument", `help: there is no topic ${JSON.stringify(topic)}`, {
    details: { hint },
  });
}

function exitCodeText(): string {
  const lines = (table: typeof EXIT_CODE_HELP): string =>
    table.map(({ code, meaning }) => `  ${code.padEnd(6)} ${meaning}\n`).join("");
  return `Exit codes\n\n${lines(EXIT_CODE_HELP)}\nOf run, watch and logs --exit-code, when the job has ended\n\n${lines(JOB_EXIT_CODE_HELP)}`;
}
