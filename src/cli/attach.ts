/**
 * Stays with a job until it ends: prints its log as it comes, says why it waits, and does what is
 * wanted when somebody interrupts.
 */

import { isFinal } from "../core/job.ts";
import type { JobView } from "../protocol/convert.ts";
import type { CommandContext } from "./command.ts";
import type { Connection } from "./connection.ts";
import { followLog, watchJob } from "./follow.ts";
import { Interruptions } from "./interruptions.ts";
import { createTextPrinter, piecesFromWire } from "./log-printer.ts";
import { BrokenPipe } from "./output.ts";
import { followContext, type FollowContext } from "./reconnect.ts";
import type { Spinner } from "./spinner.ts";

export interface AttachOptions {
  jobId: string;
  connection: Connection;
  context: CommandContext;
  /** Is hidden at the end. */
  spinner: Spinner;
  /** Only what the job prints. */
  isQuiet: boolean;
  timestamps: boolean;
  /** Keeps standard output free for something else. */
  logToStderr: boolean;
}

export type AttachEnd = { type: "ended"; job: JobView } | { type: "left"; exitCode: number };

/** The log of a job that has ended should be complete at once; a log that never ends is not waited for. */
const LOG_END_TIMEOUT_MS = 30_000;

export async function attachToJob(options: AttachOptions): Promise<AttachEnd> {
  const { jobId, connection, context, spinner } = options;
  const abort = new AbortController();
  const { isQuiet } = options;
  const follow = followContext(connection, context, { isQuiet, spinner, signal: abort.signal });
  const interruptions = new Interruptions({ jobId, follow, spinner });
  try {
    const log = printLog(options, follow, spinner);
    const watch = watchToEnd(options, follow, spinner);
    // A failure of either is seen in the race below; this keeps it from being called unhandled.
    log.catch(() => {});
    watch.catch(() => {});
    const first = await Promise.race([interruptions.left, watch, log.then(() => watch)]);
    if ("exitCode" in first && "type" in first) return first;
    const end = await Promise.race([interruptions.left, finishLog(log, { options, follow, job: first })]);
    return end;
  } finally {
    interruptions.stop();
    spinner.hide();
    abort.abort();
  }
}

async function finishLog(
  log: Promise<void>,
  ended: { options: AttachOptions; follow: FollowContext; job: JobView },
): Promise<AttachEnd> {
  const { options, follow, job } = ended;
  const { environment, stderr, colors } = options.context;
  const abort = new AbortController();
  const late = async (): Promise<"late"> => {
    do await environment.clock.sleep(LOG_END_TIMEOUT_MS, abort.signal);
    // How long a lost server is waited for is another matter.
    while (follow.notice.isLost && !abort.signal.aborted);
    return "late";
  };
  try {
    const outcome = await Promise.race([log.then(() => "complete" as const), late()]);
    if (outcome === "late") {
      const text = `the end of the log has not come; see hodei logs ${options.jobId}\n`;
      await stderr.write(colors.stderr.yellow(text));
    }
  } finally {
    abort.abort();
  }
  return { type: "ended", job };
}

async function watchToEnd(options: AttachOptions, follow: FollowContext, spinner: Spinner): Promise<JobView> {
  let last: JobView | null = null;
  for await (const job of watchJob(options.jobId, follow)) {
    await showChange(job, last, options);
    last = job;
    if (isFinal(job.state)) return job;
    if (job.state === "running") spinner.hide();
    else spinner.show(waitText(job));
  }
  // Only an abort ends the stream early, and then nobody waits for this promise any more.
  return await new Promise<never>(() => {});
}

function waitText(job: JobView): string {
  const word = job.state === "pending" ? "waiting" : job.state;
  return job.message === "" ? word : `${word}: ${job.message}`;
}

/** What the log does not tell: a retry, a worker that is gone. */
async function showChange(job: JobView, last: JobView | null, options: AttachOptions): Promise<void> {
  if (options.isQuiet || last === null || last.state === job.state) return;
  const { stderr, colors } = options.context;
  const isRetry = job.state === "pending" && job.attemptCount > 0;
  const isNews =
    isRetry || job.state === "unreachable" || (last.state === "unreachable" && job.state === "running");
  if (!isNews || stderr.isBroken) return;
  const text = isRetry ? job.message : job.state === "running" ? "the worker is back" : job.message;
  await stderr.write(`${colors.stderr.yellow(`hodei: ${text}`)}\n`);
}

async function printLog(options: AttachOptions, follow: FollowContext, spinner: Spinner): Promise<void> {
  const { stdout, stderr, colors } = options.context;
  const toStderr = { output: stderr, colors: colors.stderr };
  const printer = createTextPrinter({
    targets: {
      stdout: options.logToStderr ? toStderr : { output: stdout, colors: colors.stdout },
      stderr: toStderr,
      system: options.isQuiet ? null : toStderr,
      gap: toStderr,
    },
    timestamps: options.timestamps,
  });
  const request = {
    jobId: options.jobId,
    attempt: 0,
    offset: 0n,
    streams: [],
    sinceMs: null,
    onlyAttempt: false,
  };
  let isBroken = false;
  for await (const response of followLog(request, follow)) {
    if (response.entries.length === 0 || isBroken) continue;
    spinner.hide();
    try {
      await printer.print(piecesFromWire(response.entries), response.attempt);
    } catch (error) {
      // The job goes on without a reader; its exit code still counts.
      if (!(error instanceof BrokenPipe)) throw error;
      isBroken = true;
    }
  }
}
