/** Commands that do one thing to each of many jobs or workers. */

import { AppError } from "../base/errors.ts";
import type { CommandContext } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { colorState } from "./job-text.ts";
import { toJsonText } from "./json-views.ts";
import { reportError } from "./report-error.ts";

/**
 * Goes on after a failure; the exit code is that of the first one. Prints the new state of each,
 * or with `isJson` an array of those that were changed.
 */
export async function eachId<View extends { id: string; state: string }>(
  ids: readonly string[],
  change: (id: string) => Promise<View>,
  { context, isJson }: { context: CommandContext; isJson: boolean },
): Promise<number> {
  const { stdout, stderr, colors, environment } = context;
  const changed: View[] = [];
  let exitCode: number = EXIT.ok;
  for (const id of ids) {
    try {
      const view = await change(id);
      changed.push(view);
      if (!isJson) await stdout.write(`${view.id}  ${colorState(view.state, colors.stdout)}\n`);
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const report = reportError(error, environment.variables["HODEI_DEBUG"] === "1");
      await stderr.write(report.text);
      if (exitCode === EXIT.ok) exitCode = report.exitCode;
      // Without a server the others would only repeat the message.
      if (exitCode === EXIT.unavailable || exitCode === EXIT.forbidden) break;
    }
  }
  if (isJson) await stdout.write(toJsonText(changed));
  return exitCode;
}
