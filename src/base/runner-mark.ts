/**
 * What a runner leaves in the worker's directory while it may have processes of jobs: who it is and
 * where they are. It is written before the first job and removed when nothing is left, so whoever
 * finds it beside a dead runner knows that processes may still run.
 */

import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errorMessage, systemErrorCode } from "./errors.ts";
import type { ProcessIdentity } from "./process-identity.ts";

export interface RunnerMark {
  runner: ProcessIdentity;
  /** The directories of cgroups that it may have made. */
  cgroups: string[];
}

/** Null if no runner left one. */
export async function readRunnerMark(workerDirectory: string): Promise<RunnerMark | null> {
  const path = markPath(workerDirectory);
  try {
    return JSON.parse(await readFile(path, "utf8")) as RunnerMark;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw new AppError("internal", `read the runner's mark ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/** As a whole or not at all. */
export async function writeRunnerMark(workerDirectory: string, mark: RunnerMark): Promise<void> {
  const path = markPath(workerDirectory);
  await writeFile(`${path}.new`, JSON.stringify(mark), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

export async function removeRunnerMark(workerDirectory: string): Promise<void> {
  await rm(markPath(workerDirectory), { force: true });
}

function markPath(workerDirectory: string): string {
  return join(workerDirectory, "runner-mark.json");
}
