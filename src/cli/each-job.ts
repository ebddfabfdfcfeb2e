/** Commands that do one thing to each of many jobs. */

import { AppError } from "../base/errors.ts";
import type { JobView } from "../protocol/convert.ts";
import type { CommandContext } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { colorState } from "./job-text.ts";
import { toJsonText } from "./json-views.ts";
import { reportError } from "./report-error.ts";

/**
 * Goes on after a failure; the exit code is that of the first one. Prints each job's new state,
 * or with `isJson` an array of those that were changed.
 */
export async function eachJob(
  jobIds: readonly string[],
  change: (jobId: string) => Promise<JobView>,
  { context, isJson }: { context: CommandContext; isJson: boolean },
): Promise<number> {
  const { stdout, stderr, colors, environment } = context;
  const changed: JobView[] = [];
  let exitCode: number = EXIT.ok;
  for (const jobId of jobIds) {
    try {
      const job = await change(jobId);
      changed.push(job);
      if (!isJson) await stdout.write(`${job.id}  ${colorState(job.state, colors.stdout)}\n`);
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const report = reportError(error, environment.variables["HODEI_DEBUG"] === "1");
      await stderr.write(report.text);
      if (exitCode === EXIT.ok) exitCode = report.exitCode;
      // Without a server the other jobs would only repeat the message.
      if (exitCode === EXIT.unavailable || exitCode === EXIT.forbidden) break;
    }
  }
  if (isJson) await stdout.write(toJsonText(changed));
  return exitCode;
}
