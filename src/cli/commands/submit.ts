/** `hodei submit`: queues jobs, one or many thousands. */

import { AppError } from "../../base/errors.ts";
import { uuidV7 } from "../../base/random.ts";
import { isFinal, type JobState } from "../../core/job.ts";
import { definitionToWire } from "../../protocol/convert-definition.ts";
import type { ParsedJob } from "../../spec/job-file.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import { EXIT } from "../exit-codes.ts";
import { watchJob } from "../follow.ts";
import { addJobOptions, applyJobOptions, commandJob, readJobFile } from "../job-options.ts";
import { flagOption, jsonOutput } from "../option-values.ts";
import { ProgressBar } from "../progress-bar.ts";
import { callPersistently, followContext, type FollowContext } from "../reconnect.ts";
import { throwRefusal } from "../submit-refusal.ts";

const BATCH_JOBS = 1_000;
/** Under the limit of one request, also if every script is as long as it may be. */
const BATCH_BYTES = 16 * 1024 * 1024;
/** Jobs that are watched at the same time while waiting for all. */
const WATCHES = 16;

export const submitCommand: CliCommand = {
  configure(command) {
    command
      .argument("[file...]", "job files, - for standard input; or give a command after --")
      .usage("[options] FILE…\n       hodei submit [options] -- COMMAND ARGUMENTS…");
    addJobOptions(command);
    command
      .option("-w, --wait", "wait until all have ended; 0 only if all succeeded")
      .option("-o, --output <format>", "json: an array of ids");
  },
  run: submitJobs,
};

async function submitJobs(given: CommandCall, context: CommandContext): Promise<number> {
  const isJson = jsonOutput(given.options);
  const jobs = (await readJobs(given, context)).map((job) => ({
    ...job,
    definition: applyJobOptions(job.definition, given, context.environment),
  }));
  const connection = await context.connect("running_server");
  const bar = new ProgressBar({ context, total: jobs.length, isOn: true });
  const follow = followContext(connection, context, { spinner: bar });
  const acceptUnplaceable = flagOption(given.options, "acceptUnplaceable");
  const ids: string[] = [];
  try {
    await queueAll(jobs, { ids, follow, bar, isJson, acceptUnplaceable });
  } finally {
    // Also those that are queued when a later one is refused.
    if (isJson && (ids.length > 0 || jobs.length === 0))
      await context.stdout.write(`${JSON.stringify(ids, null, 2)}\n`);
  }
  return flagOption(given.options, "wait") ? await waitForAll(ids, follow, bar) : EXIT.ok;
}

async function readJobs(given: CommandCall, context: CommandContext): Promise<ParsedJob[]> {
  if (given.afterDashes !== null) {
    if (given.operands.length === 0) return [commandJob(given.afterDashes)];
    throw new AppError("invalid_argument", "submit takes files or a command, not both");
  }
  if (given.operands.length === 0) {
    throw new AppError("invalid_argument", "submit needs a job file or a command", {
      details: { hint: "hodei submit FILE…, hodei submit - < FILE, or hodei submit -- COMMAND ARGUMENTS…" },
    });
  }
  const jobs: ParsedJob[] = [];
  for (const file of given.operands) {
    for (const job of await readJobFile(file, context.environment)) jobs.push(job);
  }
  return jobs;
}

/** Adds the ids to `ids` as they come. */
async function queueAll(
  jobs: readonly ParsedJob[],
  how: {
    ids: string[];
    follow: FollowContext;
    bar: ProgressBar;
    isJson: boolean;
    acceptUnplaceable: boolean;
  },
): Promise<void> {
  const { ids, follow, bar, isJson, acceptUnplaceable } = how;
  const { connection, context } = follow;
  const { clock, random } = context.environment;
  try {
    for (const batch of batches(jobs)) {
      const request = {
        jobs: batch.map((job) => ({
          definition: definitionToWire(job.definition),
          // Whether a call whose answer was lost has made the jobs is not known: keys make it harmless.
          idempotencyKey: job.idempotencyKey ?? uuidV7(clock, random),
          acceptUnplaceable,
        })),
      };
      const submit = callPersistently(`submit ${describeBatch(jobs, ids.length)}`, follow, () =>
        connection.jobs.queueJobs(request),
      );
      const { jobIds } = await submit.catch((error: unknown) => throwRefusal(error, batch));
      for (const id of jobIds) ids.push(id);
      bar.hide();
      if (!isJson) await context.stdout.write(`${jobIds.join("\n")}\n`);
      if (jobs.length > BATCH_JOBS) bar.show(ids.length, "jobs submitted");
    }
  } finally {
    bar.hide();
  }
}

function describeBatch(jobs: readonly ParsedJob[], done: number): string {
  if (jobs.length === 1) return `job ${jobs[0]?.definition.name ?? ""}`;
  return done === 0 ? `${jobs.length} jobs` : `${jobs.length} jobs (the first ${done} are queued)`;
}

function* batches(jobs: readonly ParsedJob[]): Generator<ParsedJob[]> {
  let batch: ParsedJob[] = [];
  let bytes = 0;
  for (const job of jobs) {
    const size = roughSize(job);
    if (batch.length >= BATCH_JOBS || (batch.length > 0 && bytes + size > BATCH_BYTES)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(job);
    bytes += size;
  }
  if (batch.length > 0) yield batch;
}

/** At least half of what is sent: three bytes for a character are rare. */
function roughSize({ definition }: ParsedJob): number {
  const commands = [definition.command, ...definition.steps.map((step) => step.command)];
  const maps = [
    definition.env,
    definition.labels,
    definition.selector,
    ...definition.steps.map((step) => step.env),
  ];
  let size = 200;
  for (const command of commands) {
    if (command?.kind === "script") size += command.content.length;
    else if (command) size += command.cmd.length + command.args.reduce((sum, arg) => sum + arg.length, 0);
  }
  for (const map of maps) for (const [key, value] of Object.entries(map)) size += key.length + value.length;
  return size;
}

async function waitForAll(ids: readonly string[], follow: FollowContext, bar: ProgressBar): Promise<number> {
  const counts = new Map<JobState, number>();
  const waiting = ids[Symbol.iterator]();
  let done = 0;
  const watchNext = async (): Promise<void> => {
    for (const id of waiting) {
      for await (const job of watchJob(id, follow)) {
        if (!isFinal(job.state)) continue;
        counts.set(job.state, (counts.get(job.state) ?? 0) + 1);
        done += 1;
        bar.show(done, describeCounts(counts));
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(WATCHES, ids.length) }, watchNext));
  } finally {
    bar.hide();
  }
  await follow.context.stderr.write(`${describeCounts(counts)}\n`);
  return counts.get("succeeded") === ids.length ? EXIT.ok : EXIT.failure;
}

function describeCounts(counts: ReadonlyMap<JobState, number>): string {
  return [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
}
