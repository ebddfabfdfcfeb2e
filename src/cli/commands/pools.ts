/** `hodei pools`: the pools, and what there is of them. */

import { AppError } from "../../base/errors.ts";
import { formatTaint } from "../../core/labels.ts";
import type { PoolView } from "../../core/pool-view.ts";
import { poolFromWire } from "../../protocol/convert-pool.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { formatDuration } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { choiceOption, jsonOutput, textOption } from "../option-values.ts";
import { formatTable } from "../table.ts";
import { applyPoolsCommand } from "./apply-pools.ts";

const getPoolCommand: CliCommand = {
  configure(command) {
    command
      .argument("<pool>", "name of the pool")
      .option(
        "-o, --output <format>",
        "yaml (the default), which pools apply takes again; or json, with its state",
      )
      .addHelpText("after", "\nExample:\n  hodei pools get linux > pools.yaml");
  },
  async run({ options, operands }, context) {
    const format = choiceOption(textOption(options, "output") ?? "yaml", ["yaml", "json"], "--output");
    const name = operands[0] ?? "";
    const connection = await context.connect("running_server");
    const pools = await listPools(connection);
    const pool = pools.find(({ definition }) => definition.name === name);
    if (!pool) throw unknownPool(name, pools);
    if (format === "json") {
      await context.stdout.write(toJsonText(pool));
      return EXIT.ok;
    }
    const { formatPool } = await import("../../spec/pool-file.ts");
    await context.stdout.write(formatPool(pool.definition));
    return EXIT.ok;
  },
};

const deletePoolCommand: CliCommand = {
  configure(command) {
    command
      .argument("<pool>", "name of the pool")
      .option("-o, --output <format>", "json: the name, and that it is deleted")
      .addHelpText(
        "after",
        "\nIts workers finish what they run and leave; the pool is gone with the last one.\n\nExample:\n  hodei pools delete linux",
      );
  },
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    const name = operands[0] ?? "";
    const connection = await context.connect("running_server");
    await call(`delete pool ${name}`, () => connection.pools.deletePool({ name }));
    await context.stdout.write(isJson ? toJsonText({ name, change: "deleted" }) : `${name}  deleted\n`);
    return EXIT.ok;
  },
};

export const poolsCommand: CliCommand = {
  configure(command) {
    command
      .usage(
        "[options]\n       hodei pools apply -f FILE [options]\n       hodei pools get POOL\n       hodei pools delete POOL",
      )
      .option("-o, --output <format>", "json: an array")
      .addHelpText(
        "after",
        "\nExamples:\n  hodei pools\n  hodei pools apply -f pools.yaml --dry-run\n  hodei pools get linux",
      );
  },
  subcommands: [
    { name: "apply", description: "make or change the pools of a file", command: applyPoolsCommand },
    { name: "get", description: "print a pool as a pool file, or as JSON", command: getPoolCommand },
    { name: "delete", description: "drain the workers of a pool, and remove it", command: deletePoolCommand },
  ],
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const connection = await context.connect("running_server");
    const pools = await listPools(connection);
    if (isJson) await context.stdout.write(toJsonText(pools));
    else if (pools.length === 0)
      context.stderr.writeNow("no pools; make some with: hodei pools apply -f FILE\n");
    else await context.stdout.write(poolTable(pools, context));
    return EXIT.ok;
  },
};

export async function listPools(connection: Connection): Promise<PoolView[]> {
  const { pools } = await call("list pools", () => connection.pools.listPools({}));
  return pools.map(poolFromWire);
}

function unknownPool(name: string, pools: readonly PoolView[]): AppError {
  const names = pools.map(({ definition }) => definition.name).join(", ");
  const hint = names === "" ? "there are no pools" : `pools are ${names}`;
  return new AppError("not_found", `get pool ${JSON.stringify(name)}: there is none`, { details: { hint } });
}

function poolTable(pools: readonly PoolView[], { colors, environment }: CommandContext): string {
  const nowMs = environment.clock.nowMs();
  const rows = pools.map((pool) => {
    const { definition, workers, arriving, busy } = pool;
    const { minWorkers, maxWorkers, labels, taints } = definition;
    return [
      definition.name,
      stateText(pool, colors.stdout),
      definition.provider.type === "docker" ? `docker ${definition.provider.docker.image}` : "process",
      `${workers} of ${minWorkers}-${maxWorkers}`,
      String(busy),
      arriving === 0 ? "" : String(arriving),
      pool.startTimeMs === null ? "" : formatDuration(pool.startTimeMs),
      Object.entries(labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
      taints.map(formatTaint).join(" "),
      problemText(pool, nowMs),
    ];
  });
  const head = [
    "POOL",
    "STATE",
    "PROVIDER",
    "WORKERS",
    "BUSY",
    "ARRIVING",
    "START",
    "LABELS",
    "TAINTS",
    "PROBLEM",
  ];
  return formatTable(head, rows);
}

function stateText(pool: PoolView, colors: CommandContext["colors"]["stdout"]): string {
  if (pool.isDeleting) return colors.yellow("deleting");
  if (pool.problem !== "") return colors.red("problem");
  return colors.green("ok");
}

function problemText({ problem, retryAtMs }: PoolView, nowMs: number): string {
  const text = problem.replaceAll("\n", " ");
  if (text === "" || retryAtMs === null) return text;
  return `${text} (next try ${retryAtMs > nowMs ? `in ${formatDuration(retryAtMs - nowMs)}` : "now"})`;
}
