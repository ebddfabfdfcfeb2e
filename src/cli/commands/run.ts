/** `hodei run`: one job, as if it ran here. */

import { AppError } from "../../base/errors.ts";
import { definitionToWire, type JobView } from "../../protocol/convert.ts";
import type { ParsedJob } from "../../spec/job-file.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import { EXIT, exitCodeOfJob } from "../exit-codes.ts";
import { addJobOptions, applyJobOptions, commandJob, readJobFile } from "../job-options.ts";
import { resultLine } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { flagOption, jsonOutput } from "../option-values.ts";
import { attachToJob } from "../attach.ts";

export const runCommand: CliCommand = {
  configure(command) {
    command.argument("[file]", "job file with one job; or give a command after --").allowExcessArguments().usage("[options] FILE\n       hodei run [options] -- COMMAND ARGUMENTS…");
    addJobOptions(command);
    command
      .option("-d, --detach", "print the id of the job and do not wait")
      .option("-q, --quiet", "only what the job itself prints")
      .option("-t, --timestamps", "begin each line of the log with its time")
      .option("-o, --output <format>", "json: the ended job on stdout, its log on stderr")
      .addHelpText("after", "\nThe exit code is the job's own; see hodei help exit-codes.\nCtrl-C asks whether to detach or to cancel; without a terminal it cancels.");
  },
  run: runJob,
};

async function runJob(given: CommandCall, context: CommandContext): Promise<number> {
  const { environment, stdout, stderr, colors } = context;
  const isJson = jsonOutput(given.options);
  const job = await oneJob(given, context);
  const definition = applyJobOptions(job.definition, given, environment);
  const isDetached = flagOption(given.options, "detach");
  const connection = await context.connect(isDetached ? "running_server" : "embedded_to_run");
  const { jobId } = await call(`submit job ${definition.name}`, () =>
    connection.jobs.queueJob({ definition: definitionToWire(definition), idempotencyKey: job.idempotencyKey ?? "" }),
  );
  if (isDetached) {
    await stdout.write(isJson ? toJsonText({ id: jobId }) : `${jobId}\n`);
    return EXIT.ok;
  }
  const isQuiet = flagOption(given.options, "quiet");
  const end = await attachToJob({
    jobId,
    connection,
    context,
    isQuiet,
    timestamps: flagOption(given.options, "timestamps"),
    logToStderr: isJson,
  });
  if (end.type === "left") return end.exitCode;
  if (!isQuiet) await report(end.job, context);
  if (isJson && !stdout.isBroken) await stdout.write(toJsonText(end.job));
  return exitCodeOfJob(end.job);

  async function report(ended: JobView, { environment: { clock } }: CommandContext): Promise<void> {
    if (!stderr.isBroken) await stderr.write(`${resultLine(ended, colors.stderr, clock.nowMs())}\n`);
  }
}

async function oneJob(given: CommandCall, context: CommandContext): Promise<ParsedJob> {
  const [file, ...others] = given.operands;
  if (given.afterDashes !== null) {
    if (file === undefined) return commandJob(given.afterDashes);
    throw new AppError("invalid_argument", `run takes a file or a command, not both: ${file} stands before --`);
  }
  if (file === undefined || others.length > 0) {
    throw new AppError("invalid_argument", file === undefined ? "run needs a job file or a command" : "run takes one file", {
      details: { hint: "hodei run FILE, or hodei run -- COMMAND ARGUMENTS…" },
    });
  }
  const jobs = await readJobFile(file, context.environment);
  const [job] = jobs;
  if (job && jobs.length === 1) return job;
  throw new AppError("invalid_argument", `run ${file}: it holds ${jobs.length} jobs, and run takes one`, {
    details: { hint: `queue them all with: hodei submit ${file}` },
  });
}
