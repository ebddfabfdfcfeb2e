/** `hodei providers`: what makes workers, and how it is. */

import type { ProviderView } from "../../core/pool-view.ts";
import { providerStateFromWire } from "../../protocol/convert-pool.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors, CommandContext } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { formatAge } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { jsonOutput } from "../option-values.ts";
import { formatTable } from "../table.ts";

const checkCommand: CliCommand = {
  configure(command) {
    command
      .argument("[provider]", "name of a provider; all of them without it")
      .option("-o, --output <format>", "json: an array")
      .addHelpText(
        "after",
        "\nThe exit code is 1 if one is unhealthy.\n\nExamples:\n  hodei providers check\n  hodei providers check 'docker unix:///var/run/docker.sock'",
      );
  },
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    const name = operands[0] ?? "";
    const connection = await context.connect("running_server");
    const response = await call(name === "" ? "check providers" : `check provider ${name}`, () =>
      connection.pools.checkProviders({ name }),
    );
    const providers = response.providers.map(providerStateFromWire);
    await show(providers, isJson, context);
    return providers.some(({ status }) => status === "unhealthy") ? EXIT.failure : EXIT.ok;
  },
};

export const providersCommand: CliCommand = {
  configure(command) {
    command
      .usage("[options]\n       hodei providers check [PROVIDER]")
      .option("-o, --output <format>", "json: an array")
      .addHelpText("after", "\nExamples:\n  hodei providers\n  hodei providers check");
  },
  subcommands: [{ name: "check", description: "check the health of providers now", command: checkCommand }],
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const connection = await context.connect("running_server");
    const { providers } = await call("list providers", () => connection.pools.listProviders({}));
    await show(providers.map(providerStateFromWire), isJson, context);
    return EXIT.ok;
  },
};

async function show(
  providers: readonly ProviderView[],
  isJson: boolean,
  context: CommandContext,
): Promise<void> {
  if (isJson) await context.stdout.write(toJsonText(providers));
  else if (providers.length === 0) context.stderr.writeNow("no providers: there are no pools\n");
  else await context.stdout.write(providerTable(providers, context));
}

function providerTable(providers: readonly ProviderView[], { colors, environment }: CommandContext): string {
  const nowMs = environment.clock.nowMs();
  const rows = providers.map((provider) => [
    provider.name,
    colorStatus(provider.status, colors.stdout),
    provider.pools.join(" "),
    `${provider.orphans} (${provider.orphansDestroyed} destroyed)`,
    provider.checkedAtMs === null ? "never" : `${formatAge(nowMs - provider.checkedAtMs)} ago`,
    provider.reason.replaceAll("\n", " "),
  ]);
  return formatTable(["PROVIDER", "STATUS", "POOLS", "ORPHANS", "CHECKED", "REASON"], rows);
}

function colorStatus(status: ProviderView["status"], colors: Colors): string {
  switch (status) {
    case "healthy":
      return colors.green(status);
    case "degraded":
      return colors.yellow(status);
    case "unhealthy":
      return colors.red(status);
    case "unknown":
      return status;
  }
}
