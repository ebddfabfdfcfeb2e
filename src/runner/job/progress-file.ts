/** What a job wrote to `$HODEI_PROGRESS`: lines such as `42 compiling` or `42%`; the newest counts. */

import type { Progress } from "../../core/job.ts";

const MAX_MESSAGE_LENGTH = 500;
/** Enough for the newest line; the file may be long. */
export const PROGRESS_TAIL_BYTES = 8 * 1024;

/** Null if no line is a progress. A last line without its newline counts too. */
export function parseProgress(text: string): Progress | null {
  for (const line of text.split("\n").toReversed()) {
    const match = /^\s*(\d{1,3}(?:\.\d+)?)\s*%?(?:\s+(.*?))?\s*$/.exec(line);
    if (match === null) continue;
    return {
      percent: Math.min(100, Number(match[1])),
      message: (match[2] ?? "").slice(0, MAX_MESSAGE_LENGTH),
    };
  }
  return null;
}
