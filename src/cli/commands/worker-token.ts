/** `hodei workers token`: a one-time token for a worker that a person starts. */

import { open, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { AppError } from "../../base/errors.ts";
import { timeFromWire } from "../../protocol/convert.ts";
import type { CreateWorkerTokenResponse } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { call } from "../call.ts";
import type { CliCommand } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { fileProblem } from "../file-problem.ts";
import { toJsonText } from "../json-views.ts";
import { durationOption, jsonOutput, textOption } from "../option-values.ts";

export const workerTokenCommand: CliCommand = {
  configure(command) {
    command
      .option("--name <name>", "shown for the worker until it registers")
      .option("--lifetime <duration>", "how long the token is valid; 5m by default, 24h at most")
      .option("--write <file>", "write the token into this new file, which only you can read")
      .option("-o, --output <format>", "json")
      .addHelpText(
        "after",
        "\nThe token works once. It is printed on stdout, and only it.\n\nExamples:\n  hodei workers token --write worker.token\n  hodei workers token --name build-1 | ssh build-1 'umask 077; cat > worker.token'",
      );
  },
  async run({ options }, context) {
    const isJson = jsonOutput(options);
    const name = textOption(options, "name") ?? "";
    const lifetimeMs = durationOption(options, "lifetime", { option: "--lifetime" });
    const file = textOption(options, "write");
    const path = file === undefined ? null : resolve(context.environment.cwd, file);
    // Made before the token: one that cannot be kept would be of no use to anybody.
    const target = path === null ? null : await createPrivateFile(path);
    try {
      const connection = await context.connect("running_server");
      const made = await call("make a worker token", () =>
        connection.workers.createWorkerToken({
          name,
          ...(lifetimeMs === undefined ? {} : { lifetime: durationFromMs(lifetimeMs) }),
        }),
      );
      await target?.writeFile(`${made.token}\n`);
      if (isJson) await context.stdout.write(toJsonText(tokenView(made, path)));
      else if (target === null) await context.stdout.write(`${made.token}\n`);
      if (!isJson) context.stderr.writeNow(nextStep(made, connection.url, file ?? "FILE"));
    } catch (error) {
      if (path !== null) await rm(path, { force: true });
      throw error;
    } finally {
      await target?.close();
    }
    return EXIT.ok;
  },
};

/** A file that was there is not written to: somebody else could read it. */
async function createPrivateFile(path: string) {
  try {
    return await open(path, "wx", 0o600);
  } catch (error) {
    throw new AppError("invalid_argument", `write the token to ${path}: ${fileProblem(error)}`, {
      cause: error,
    });
  }
}

function tokenView(made: CreateWorkerTokenResponse, path: string | null) {
  const { workerId, token, expiresAt } = made;
  const place = path === null ? { token } : { file: path };
  return { workerId, ...place, expiresAtMs: timeFromWire(expiresAt) };
}

function nextStep(
  { workerId, expiresAt, workerPort }: CreateWorkerTokenResponse,
  serverUrl: string,
  file: string,
): string {
  const untilMs = timeFromWire(expiresAt);
  const until = untilMs === null ? "" : ` until ${new Date(untilMs).toISOString()}`;
  const { protocol, hostname } = new URL(serverUrl);
  return [
    `the token is for worker ${workerId}, once${until}; on the machine of the worker, run:`,
    `  hodei agent --server ${protocol}//${hostname}:${workerPort} --token-file ${file}`,
    "where --server is the worker port of the server, by a name under which that machine reaches it",
    "",
  ].join("\n");
}
