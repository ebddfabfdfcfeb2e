/** What is wrong with a file, where, and what to do about it. */

export interface Problem {
  /** Such as `steps[2].timeout`; empty for the file as a whole. */
  path: string;
  /** From 1; null if the problem has no place in the file. */
  line: number | null;
  column: number | null;
  message: string;
  /** What to do; empty if the message says it all. */
  hint: string;
}

/** More problems than this are not listed: the first ones are what helps. */
export const MAX_PROBLEMS = 100;

export type ValuePath = readonly (string | number)[];

/** `["steps", 2, "run"]` as `steps[2].run`. */
export function formatPath(path: ValuePath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else if (/^[\w$-]+$/.test(part)) text += text === "" ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}

/** One line for people: `job.yaml:3:5: steps[0].run: expected …; did you mean …?`. */
export function formatProblem(problem: Problem, fileName: string): string {
  const place = problem.line === null ? fileName : `${fileName}:${problem.line}:${problem.column ?? 1}`;
  const path = problem.path === "" ? "" : ` ${problem.path}:`;
  const hint = problem.hint === "" ? "" : `; ${problem.hint}`;
  return `${place}:${path} ${problem.message}${hint}`;
}
