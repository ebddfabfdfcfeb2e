/** `hodei pools apply`: makes or changes the pools of a file, all or none of them. */

import type { AppliedPool } from "../../core/pool-view.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import { appliedPoolFromWire, poolDefinitionToWire } from "../../protocol/convert-pool.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors } from "../command.ts";
import type { CliEnvironment } from "../environment.ts";
import { EXIT } from "../exit-codes.ts";
import { toJsonText } from "../json-views.ts";
import { flagOption, jsonOutput, textOption } from "../option-values.ts";
import { readSource, sourceError } from "../source-file.ts";
import { printable } from "../table.ts";

export const applyPoolsCommand: CliCommand = {
  configure(command) {
    command
      .requiredOption("-f, --file <file>", "pool file, - for standard input")
      .option("--prune", "delete every other pool that is not of the settings of the server")
      .option("--dry-run", "only check, and say what would be done")
      .option("-o, --output <format>", "json: an array")
      .addHelpText(
        "after",
        "\nExamples:\n  hodei pools apply -f pools.yaml --dry-run\n  hodei pools apply -f pools.yaml --prune",
      );
  },
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const file = textOption(options, "file") ?? "";
    const prune = flagOption(options, "prune");
    const dryRun = flagOption(options, "dryRun");
    const pools = await readPoolFile(file, context.environment);
    const connection = await context.connect("running_server");
    const response = await call("apply pools", () =>
      connection.pools.applyPools({ pools: pools.map(poolDefinitionToWire), prune, dryRun }),
    );
    const applied = response.pools.map(appliedPoolFromWire);
    const colors = context.colors.stdout;
    const lines = applied.map(({ name, change }) => `${printable(name)}  ${colorChange(change, colors)}\n`);
    await context.stdout.write(isJson ? toJsonText(applied) : lines.join(""));
    if (dryRun && !isJson) context.stderr.writeNow("nothing was changed: --dry-run\n");
    return EXIT.ok;
  },
};

async function readPoolFile(file: string, environment: CliEnvironment): Promise<PoolDefinition[]> {
  const { parsePoolFile } = await import("../../spec/pool-file.ts");
  const result = parsePoolFile(await readSource(file, { kind: "pool" }, environment));
  if (!result.ok) throw await sourceError(file, result.problems);
  return result.pools;
}

function colorChange(change: AppliedPool["change"], colors: Colors): string {
  switch (change) {
    case "created":
      return colors.green(change);
    case "updated":
      return colors.cyan(change);
    case "deleted":
      return colors.yellow(change);
    case "unchanged":
      return colors.dim(change);
  }
}
