/** The environment of a job's processes. */

import { delimiter } from "node:path";
import type { AttemptPaths } from "./attempt-directory.ts";

/**
 * What a job may see of the runner's own environment. Nothing else: the runner inherits from the
 * agent whatever the provider gave it, tokens included.
 */
const INHERITED = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ"] as const;
const DEFAULT_PATH = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(
  delimiter,
);

export type Environment = Record<string, string>;

export function inheritedEnvironment(own: Readonly<Record<string, string | undefined>>): Environment {
  const result: Environment = { PATH: DEFAULT_PATH };
  // A provider adds what the image of a container sets for whatever runs in it.
  const added = (own["HODEI_INHERIT"] ?? "").split(",");
  for (const name of [...INHERITED, ...added]) {
    const value = own[name];
    if (value !== undefined && value !== "") result[name] = value;
  }
  return result;
}

/**
 * Later ones win: inherited, Hodei's, the job's, the step's. Only the attempt id and the workspace
 * cannot be replaced, because the processes of an attempt may be found by them.
 */
export function jobEnvironment(options: {
  inherited: Environment;
  order: {
    attemptId: string;
    jobId: string;
    attemptNumber: number;
    definition: { name: string; env: Environment };
  };
  paths: AttemptPaths;
  step: Environment;
}): Environment {
  const { inherited, order, paths, step } = options;
  return {
    ...inherited,
    TMPDIR: paths.temporary,
    HODEI: "true",
    CI: "true",
    HODEI_JOB_ID: order.jobId,
    HODEI_JOB_NAME: order.definition.name,
    HODEI_ATTEMPT: String(order.attemptNumber),
    HODEI_OUTPUT: paths.output,
    HODEI_PROGRESS: paths.progress,
    HODEI_SUMMARY: paths.summary,
    ...order.definition.env,
    ...step,
    HODEI_WORKSPACE: paths.workspace,
    HODEI_ATTEMPT_ID: order.attemptId,
  };
}
