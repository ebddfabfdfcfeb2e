/** `hodei version`: what runs here, and what runs there. */

import { AppError } from "../../base/errors.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { toJsonText } from "../json-views.ts";
import { jsonOutput } from "../option-values.ts";

export const versionCommand: CliCommand = {
  configure(command) {
    command.option("-o, --output <format>", "json");
  },
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const { environment, stdout } = context;
    let server: { version: string; instanceId: string; databaseVersion: string; url: string } | null = null;
    let problem = "";
    try {
      const connection = await context.connect("running_server");
      const info = await call("get the version of the server", () => connection.server.getServerInfo({}));
      const { version, instanceId, databaseVersion } = info;
      server = { version, instanceId, databaseVersion, url: connection.url };
    } catch (error) {
      // The version of the client is worth having without a server.
      if (!(error instanceof AppError)) throw error;
      problem = error.message;
    }
    if (isJson) {
      await stdout.write(toJsonText({ client: environment.version, server }));
      return EXIT.ok;
    }
    await stdout.write(`client  ${environment.version}\n`);
    await stdout.write(
      server
        ? `server  ${server.version} (${server.databaseVersion}) at ${server.url}\n`
        : `server  not reached: ${problem}\n`,
    );
    return EXIT.ok;
  },
};
