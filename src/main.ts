/** Picks the process. Each part is loaded only when its command runs. */

import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { agentSettings } from "./agent/settings.ts";
import { settingsOptions, type Flags, type SettingsTable } from "./base/settings.ts";
import { VERSION } from "./base/version.ts";
import { runCli } from "./cli/cli.ts";
import type { ProcessCommand } from "./cli/environment.ts";
import { processEnvironment } from "./cli/wiring.ts";
import { serverSettings } from "./server/settings.ts";

/** Beside this file in the bundle. */
const workerProgram = fileURLToPath(new URL("./worker.js", import.meta.url));
const program = { version: VERSION, workerProgram };

const processCommands: ProcessCommand[] = [
  {
    name: "dev",
    description: "run server, database and a local worker in one command, until Ctrl-C",
    addOptions: (command) => addSettings(command, serverSettings),
    async run(options) {
      const { devMain } = await import("./server/main.ts");
      return devMain({ ...program, flags: options as Flags, onStarted: greet });
    },
  },
  {
    name: "server",
    description: "run the control plane",
    addOptions: (command) => addSettings(command, serverSettings),
    async run(options) {
      const { serverMain } = await import("./server/main.ts");
      return serverMain({ ...program, flags: options as Flags });
    },
  },
  {
    name: "agent",
    description: "run a worker on this machine",
    addOptions: addAgentOptions,
    async run(options, [action]) {
      const { agentCommand } = await import("./agent/main.ts");
      return agentCommand({ ...program, flags: options as Flags, action });
    },
  },
];

function addSettings(command: Command, table: SettingsTable): void {
  for (const { flags, description } of settingsOptions(table)) command.option(flags, description);
}

function addAgentOptions(command: Command): void {
  command
    .argument("[action]", "install: run it as a service of systemd; uninstall: end that")
    .usage("[options]\n       hodei agent install [options]\n       hodei agent uninstall [--unit NAME]");
  addSettings(command, agentSettings);
  command
    .option("--user <name>", "of install: who runs the worker and its jobs; root by default")
    .option("--unit <name>", "of install and uninstall: the name of the unit; hodei-worker by default")
    .option("--print", "of install: write the unit to standard output and do nothing else");
}

function greet(server: { url: string; grpcUrl: string; databaseVersion: string }): void {
  const lines = [
    `hodei ${VERSION} is ready`,
    "",
    `  people and tools  ${server.url}`,
    `  workers and gRPC  ${server.grpcUrl}`,
    `  database          ${server.databaseVersion}`,
    "",
    "  In another terminal:  npx hodei run -- echo hello",
    "  Ctrl-C stops everything.",
    "",
  ];
  process.stdout.write(lines.join("\n"));
}

const environment = processEnvironment({
  version: VERSION,
  processCommands,
  async startEmbeddedServer(options) {
    const { startEmbeddedServer } = await import("./server/main.ts");
    return startEmbeddedServer({ ...program, ...options });
  },
});
process.exitCode = await runCli(process.argv.slice(2), environment);
