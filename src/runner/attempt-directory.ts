/** The private directory of an attempt: workspace, temporary files, and what the job tells Hodei. */

import { mkdirSync, rmdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";

export interface AttemptPaths {
  root: string;
  workspace: string;
  temporary: string;
  output: string;
  progress: string;
  summary: string;
}

export function attemptsDirectory(workerDirectory: string): string {
  return join(workerDirectory, "attempts");
}

export function attemptPaths(workerDirectory: string, attemptId: string): AttemptPaths {
  const root = join(attemptsDirectory(workerDirectory), attemptId);
  return {
    root,
    workspace: join(root, "workspace"),
    temporary: join(root, "tmp"),
    output: join(root, OUTPUT_FILE),
    progress: join(root, PROGRESS_FILE),
    summary: join(root, SUMMARY_FILE),
  };
}

export const OUTPUT_FILE = "output";
export const PROGRESS_FILE = "progress";
export const SUMMARY_FILE = "summary";

/**
 * Synchronous, as are the first tries of the removal: an empty directory is made or removed in the
 * kernel's memory within microseconds, and each round through the thread pool costs several times
 * that. It is what decides how many short jobs a second a worker can run.
 *
 * The files are not made: a job that writes them makes them.
 */
export function makeAttemptDirectory(paths: AttemptPaths): void {
  mkdirSync(paths.root, { mode: 0o700 });
  mkdirSync(paths.workspace, { mode: 0o700 });
  mkdirSync(paths.temporary, { mode: 0o700 });
}

/** Most jobs leave nothing behind, so three cheap calls are tried before the search for more. */
export async function removeAttemptDirectory(paths: AttemptPaths): Promise<void> {
  try {
    rmdirSync(paths.workspace);
    rmdirSync(paths.temporary);
    rmdirSync(paths.root);
  } catch {
    // Something is in it, or it was never made.
    await rm(paths.root, { recursive: true, force: true, maxRetries: 3 });
  }
}
