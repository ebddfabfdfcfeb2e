/** Commands that ask for a change of running jobs and wait until their workers have made it. */

import type { Command } from "commander";
import { AppError } from "../base/errors.ts";
import { formatDurationMs } from "../base/quantities.ts";
import { isFinal } from "../core/job.ts";
import { jobFromWire, type JobView } from "../protocol/convert.ts";
import type { Job } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { call } from "./call.ts";
import type { CommandCall, CommandContext } from "./command.ts";
import type { Connection } from "./connection.ts";
import { eachId } from "./each-id.ts";
import { watchJob } from "./follow.ts";
import { checkIds, durationOption, jsonOutput } from "./option-values.ts";
import { followContext } from "./reconnect.ts";
import { createSpinner, type Spinner } from "./spinner.ts";

export interface JobWish {
  name: "pause" | "resume";
  ask(connection: Connection, jobId: string): Promise<{ job?: Job | undefined }>;
  /** Null while the job has not got there; called only for jobs that have not ended. */
  outcome(job: JobView): { type: "done" } | { type: "refused"; why: string } | null;
}

/** A worker that is there needs milliseconds. */
const DEFAULT_WAIT_MS = 60_000;

export function addWishOptions(command: Command): Command {
  return command
    .argument("<job...>", "ids of jobs, or their beginnings")
    .option("--no-wait", "only ask for it")
    .option("--timeout <duration>", "how long to wait for each job; 1m by default")
    .option("-o, --output <format>", "json: an array of the jobs");
}

export async function runWish(given: CommandCall, context: CommandContext, wish: JobWish): Promise<number> {
  const { options, operands } = given;
  checkIds(operands, "job");
  const isJson = jsonOutput(options);
  const timeoutMs = durationOption(options, "timeout", { option: "--timeout" }) ?? DEFAULT_WAIT_MS;
  const connection = await context.connect("running_server");
  const spinner = createSpinner(context, true);
  const change = async (jobId: string): Promise<JobView> => {
    const { job } = await call(`${wish.name} job ${jobId}`, () => wish.ask(connection, jobId));
    if (!job) throw new Error("the server sent no job");
    const asked = jobFromWire(job);
    if (options["wait"] === false) return asked;
    return await waitFor(asked.id, wish, { connection, context, spinner, timeoutMs });
  };
  return await eachId(operands, change, { context, isJson });
}

async function waitFor(
  jobId: string,
  wish: JobWish,
  how: { connection: Connection; context: CommandContext; spinner: Spinner; timeoutMs: number },
): Promise<JobView> {
  const { connection, context, spinner, timeoutMs } = how;
  const over = new AbortController();
  const callOff = context.environment.clock.schedule(timeoutMs, () => over.abort());
  try {
    const follow = followContext(connection, context, { spinner, signal: over.signal });
    for await (const job of watchJob(jobId, follow)) {
      if (isFinal(job.state)) throw refusal(wish, jobId, `it has ended meanwhile and is ${job.state}`);
      const outcome = wish.outcome(job);
      if (outcome?.type === "done") return job;
      if (outcome?.type === "refused") throw refusal(wish, jobId, outcome.why);
      spinner.show(`${wish.name} job ${jobId}: ${job.state}`);
    }
  } finally {
    callOff();
    over.abort();
    spinner.hide();
  }
  throw new AppError(
    "unavailable",
    `${wish.name} job ${jobId}: its worker has not done it within ${formatDurationMs(timeoutMs)}`,
    { details: { hint: `the wish is kept; see what becomes of it with: hodei watch ${jobId}` } },
  );
}

function refusal(wish: JobWish, jobId: string, why: string): AppError {
  return new AppError("failed_precondition", `${wish.name} job ${jobId}: ${why}`);
}
