/** `hodei run`: one job, as if it ran here. */

import { AppError } from "../../base/errors.ts";
import { uuidV7 } from "../../base/random.ts";
import { definitionToWire } from "../../protocol/convert-definition.ts";
import type { JobView } from "../../protocol/convert.ts";
import type { ParsedJob } from "../../spec/job-file.ts";
import { attachToJob } from "../attach.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import { EXIT, exitCodeOfJob } from "../exit-codes.ts";
import { addJobOptions, applyJobOptions, commandJob, readJobFile } from "../job-options.ts";
import { resultLine } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { flagOption, jsonOutput } from "../option-values.ts";
import { callPersistently, followContext } from "../reconnect.ts";
import { createSpinner } from "../spinner.ts";
import { throwRefusal } from "../submit-refusal.ts";

export const runCommand: CliCommand = {
  configure(command) {
    command
      .argument("[file]", "job file with one job; or give a command after --")
      .allowExcessArguments()
      .usage("[options] FILE\n       hodei run [options] -- COMMAND ARGUMENTS…");
    addJobOptions(command);
    command
      .option("-d, --detach", "print the id of the job and do not wait")
      .option("-q, --quiet", "only what the job itself prints")
      .option("-t, --timestamps", "begin each line of the log with its time")
      .option("-o, --output <format>", "json: the ended job on stdout, its log on stderr")
      .addHelpText(
        "after",
        "\nThe exit code is the job's own; see hodei help exit-codes.\nCtrl-C asks whether to detach or to cancel; without a terminal it cancels.",
      );
  },
  run: runJob,
};

async function runJob(given: CommandCall, context: CommandContext): Promise<number> {
  const isJson = jsonOutput(given.options);
  const isQuiet = flagOption(given.options, "quiet");
  const isDetached = flagOption(given.options, "detach");
  checkOperands(given);
  const spinner = createSpinner(context, !isQuiet && !isDetached);
  try {
    spinner.show("connecting to a server, or starting one");
    // A server that starts waits for other processes most of the time: the file is read meanwhile.
    const connecting = context.connect(isDetached ? "running_server" : "embedded_to_run");
    // A fault in the file is told first, whatever becomes of the server.
    connecting.catch(() => {});
    const job = await oneJob(given, context);
    const definition = applyJobOptions(job.definition, given, context.environment);
    const connection = await connecting;
    const { clock, random } = context.environment;
    const request = {
      definition: definitionToWire(definition),
      // Whether a call whose answer was lost has made the job is not known: the key makes one of both.
      idempotencyKey: job.idempotencyKey ?? uuidV7(clock, random),
      acceptUnplaceable: flagOption(given.options, "acceptUnplaceable"),
    };
    const follow = followContext(connection, context, { isQuiet, spinner });
    const submit = callPersistently(`submit job ${definition.name}`, follow, () =>
      connection.jobs.queueJob(request),
    );
    const { jobId } = await submit.catch((error: unknown) => throwRefusal(error, [job]));
    if (isDetached) {
      await context.stdout.write(isJson ? toJsonText({ id: jobId }) : `${jobId}\n`);
      return EXIT.ok;
    }
    const timestamps = flagOption(given.options, "timestamps");
    const end = await attachToJob({
      jobId,
      connection,
      context,
      spinner,
      isQuiet,
      timestamps,
      logToStderr: isJson,
    });
    return end.type === "left" ? end.exitCode : await report(end.job, { isQuiet, isJson, context });
  } finally {
    spinner.hide();
  }
}

async function report(
  job: JobView,
  how: { isQuiet: boolean; isJson: boolean; context: CommandContext },
): Promise<number> {
  const { stdout, stderr, colors, environment } = how.context;
  if (!how.isQuiet && !stderr.isBroken)
    await stderr.write(`${resultLine(job, colors.stderr, environment.clock.nowMs())}\n`);
  if (how.isJson && !stdout.isBroken) await stdout.write(toJsonText(job));
  return exitCodeOfJob(job);
}

function checkOperands(given: CommandCall): void {
  const [file, ...others] = given.operands;
  if (given.afterDashes !== null) {
    if (file === undefined) return;
    throw new AppError(
      "invalid_argument",
      `run takes a file or a command, not both: ${file} stands before --`,
    );
  }
  if (file === undefined || others.length > 0) {
    throw new AppError(
      "invalid_argument",
      file === undefined ? "run needs a job file or a command" : "run takes one file",
      {
        details: { hint: "hodei run FILE, or hodei run -- COMMAND ARGUMENTS…" },
      },
    );
  }
}

async function oneJob(given: CommandCall, context: CommandContext): Promise<ParsedJob> {
  if (given.afterDashes !== null) return commandJob(given.afterDashes);
  const file = given.operands[0] ?? "";
  const jobs = await readJobFile(file, context.environment);
  const [job] = jobs;
  if (job && jobs.length === 1) return job;
  throw new AppError("invalid_argument", `run ${file}: it holds ${jobs.length} jobs, and run takes one`, {
    details: { hint: `queue them all with: hodei submit ${file}` },
  });
}
