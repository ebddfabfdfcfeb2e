/** What is wrong with the definition of a job beyond what the constraints of the proto files can say. */

import { AppError } from "../../base/errors.ts";
import type { JobDefinition } from "../../core/job.ts";
import { preferenceProblem, requirementProblem, tolerationProblem } from "../../core/labels.ts";

/** More of them would help nobody: they travel in a header. */
const MAX_PROBLEMS = 10;

/** @throws AppError `invalid_argument`, which names each field below `path`. */
export function checkDefinition(definition: JobDefinition, path = "definition"): void {
  const { selectorExpressions, tolerations, preferences } = definition;
  // Most jobs have none of them, and batches are large.
  if (selectorExpressions.length + tolerations.length + preferences.length === 0) return;
  refuseProblems([
    ...problemsOf(selectorExpressions, `${path}.selector_expressions`, requirementProblem),
    ...problemsOf(tolerations, `${path}.tolerations`, tolerationProblem),
    ...problemsOf(preferences, `${path}.preferences`, preferenceProblem),
  ]);
}

/** @throws AppError `invalid_argument` if there are any; each is a path and what is wrong there. */
export function refuseProblems(problems: readonly string[]): void {
  if (problems.length === 0) return;
  const shown = problems.slice(0, MAX_PROBLEMS);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  throw new AppError("invalid_argument", shown.join("; "));
}

function problemsOf<T>(values: readonly T[], path: string, problemOf: (value: T) => string | null): string[] {
  return values.flatMap((value, index) => {
    const problem = problemOf(value);
    return problem === null ? [] : [`${path}[${index}]: ${problem}`];
  });
}
