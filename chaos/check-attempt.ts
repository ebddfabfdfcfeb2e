/** Compares the log of one attempt with the trace that the job left itself. Pure. */

import { Cause, type Attempt } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import type { AttemptLog } from "./cluster-client.ts";
import type { Effect } from "./witness-job.ts";

/** How an attempt ended, as far as its log is concerned. */
type End =
  /** It printed its last line: every line must be there. */
  | "by_itself"
  /** It was killed, but its runner lived: every line must be there that it says it had printed. */
  | "killed"
  /** Its worker was lost: what had not arrived is gone, and the log says so. */
  | "lost";

export interface AttemptFacts {
  name: string;
  attempt: Attempt;
  log: AttemptLog;
  /** Of this attempt only, oldest first. */
  effects: readonly Effect[];
}

/** How the last record of a log says that something is missing. */
const GAP_NOTE = /"reason":"(worker_lost|not_received|disk_full)"/;

/** What is wrong with its log, in words; empty if nothing is. */
export function checkAttempt(facts: AttemptFacts): string[] {
  const { attempt, log, effects } = facts;
  const problems: string[] = [];
  const end = endOf(facts);
  const last = effects.at(-1);
  if (!log.isComplete) problems.push("its log was never completed");
  let missing = 0;
  for (const [letter, stream] of [
    ["o", log.stdout],
    ["e", log.stderr],
  ] as const) {
    const read = readLines(stream, { letter, name: facts.name, attempt: attempt.number });
    if (read.problem !== null) problems.push(read.problem);
    if (read.hasPartialLine && end === "by_itself") problems.push(`the last line of ${letter} is cut off`);
    const printed = (letter === "o" ? last?.out : last?.err) ?? 0;
    if (end === "by_itself" && read.lines !== printed) {
      problems.push(`it printed ${printed} lines to ${letter}, the log has ${read.lines}`);
    }
    missing += Math.max(0, printed - read.lines);
  }
  if (end === "killed" && missing > 0) problems.push(`${missing} lines that it had printed are missing`);
  const hasLines = log.stdout.length + log.stderr.length > 0;
  if (end === "lost" && missing > 0 && hasLines && !GAP_NOTE.test(log.system)) {
    problems.push(`${missing} lines are missing and the log does not say so`);
  }
  return problems;
}

function endOf({ attempt, effects }: AttemptFacts): End {
  if (attempt.cause === Cause.WORKER_LOST || attempt.cause === Cause.SERVER_ERROR) return "lost";
  return effects.at(-1)?.kind === "end" ? "by_itself" : "killed";
}

interface ReadLines {
  /** Whole lines in order from 1. */
  lines: number;
  hasPartialLine: boolean;
  problem: string | null;
}

/** Every line must follow the one before. */
function readLines(stream: Buffer, expected: { letter: string; name: string; attempt: number }): ReadLines {
  const { letter, name, attempt } = expected;
  const text = stream.toString("latin1");
  const all = text.split("\n");
  const partial = all.pop() ?? "";
  let lines = 0;
  for (const line of all) {
    const wanted = `${letter} ${lines + 1} of ${name} attempt ${attempt}`;
    if (line.trimEnd() !== wanted) {
      const problem = `line ${lines + 1} of ${letter} should be "${wanted}" and is "${line.slice(0, 80)}"`;
      return { lines, hasPartialLine: false, problem };
    }
    lines += 1;
  }
  return { lines, hasPartialLine: partial !== "", problem: null };
}
