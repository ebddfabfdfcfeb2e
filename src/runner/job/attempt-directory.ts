/**
 * The private directory of an attempt: workspace, temporary files, and what the job tells Hodei.
 *
 * Most short jobs leave their directory as empty as they found it. It is then kept for the next
 * attempt under another name: on ext4 each new inode is searched for among the recently deleted
 * ones, and making and removing three directories and a script takes longer than to start a shell.
 * Whatever is not exactly as it was made is never used again but removed.
 */

import {
  constants,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  truncateSync,
  unlinkSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../../base/errors.ts";

export interface AttemptPaths {
  root: string;
  workspace: string;
  temporary: string;
  /** The script of a job that is a single one, or of its first step. */
  script: string;
  output: string;
  progress: string;
  summary: string;
}

export function attemptsDirectory(workerDirectory: string): string {
  return join(workerDirectory, "attempts");
}

export function attemptPaths(workerDirectory: string, attemptId: string): AttemptPaths {
  return pathsBelow(join(attemptsDirectory(workerDirectory), attemptId));
}

function pathsBelow(root: string): AttemptPaths {
  return {
    root,
    workspace: join(root, WORKSPACE),
    temporary: join(root, TEMPORARY),
    script: join(root, SCRIPT_FILE),
    output: join(root, OUTPUT_FILE),
    progress: join(root, PROGRESS_FILE),
    summary: join(root, SUMMARY_FILE),
  };
}

const WORKSPACE = "workspace";
const TEMPORARY = "tmp";
const SCRIPT_FILE = "script-1";
export const OUTPUT_FILE = "output";
export const PROGRESS_FILE = "progress";
export const SUMMARY_FILE = "summary";

/** Of every directory and script: the runner's user alone. */
const PRIVATE_MODE = 0o700;
/** Flags for the first write of `script`, which is empty or not there: a truncation costs. */
export const SCRIPT_WRITE_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW;

/** Empty directories that wait for an attempt. */
const MAX_SPARE = 64;

/**
 * Synchronous: an empty directory is made, renamed or removed in the kernel's memory within
 * microseconds, and each round through the thread pool costs several times that. It is what
 * decides how many short jobs a second a worker can run.
 */
export class AttemptDirectories {
  readonly #parent: string;
  readonly #spare: string[] = [];
  #named = 0;

  constructor(workerDirectory: string) {
    this.#parent = attemptsDirectory(workerDirectory);
  }

  /** The files are not made: a job that writes them makes them. */
  make(paths: AttemptPaths): void {
    for (let spare = this.#spare.pop(); spare !== undefined; spare = this.#spare.pop()) {
      if (isRenamed(spare, paths.root)) return;
    }
    mkdirSync(paths.root, { mode: PRIVATE_MODE });
    mkdirSync(paths.workspace, { mode: PRIVATE_MODE });
    mkdirSync(paths.temporary, { mode: PRIVATE_MODE });
  }

  /** Keeps the directory if nothing is in it and its processes were seen to be gone, else removes it. */
  async remove(paths: AttemptPaths, options: { verified: boolean }): Promise<void> {
    try {
      if (options.verified && this.#spare.length < MAX_SPARE && isAsMade(paths)) {
        // No attempt id begins with a dot.
        const spare = join(this.#parent, `.spare-${(this.#named += 1)}`);
        renameSync(paths.root, spare);
        this.#spare.push(spare);
        return;
      }
    } catch {
      // It was never made, or the job has changed it beyond reading.
    }
    await rm(paths.root, { recursive: true, force: true, maxRetries: 3 });
  }

  close(): void {
    for (const spare of this.#spare.splice(0)) removeSpare(pathsBelow(spare));
  }
}

function isRenamed(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch {
    // Somebody has tidied up; another one or a new one will do.
    return false;
  }
}

/** Whether nothing tells this directory from a new one, but for an empty script. */
function isAsMade(paths: AttemptPaths): boolean {
  const names = readdirSync(paths.root);
  const hasScript = names.includes(SCRIPT_FILE);
  if (names.length !== (hasScript ? 3 : 2)) return false;
  const root = lstatSync(paths.root);
  for (const stats of [root, lstatSync(paths.workspace), lstatSync(paths.temporary)]) {
    // On another device something is mounted there.
    if (!stats.isDirectory() || !isPrivate(stats) || stats.dev !== root.dev) return false;
  }
  if (readdirSync(paths.workspace).length > 0 || readdirSync(paths.temporary).length > 0) return false;
  return !hasScript || emptyScript(paths);
}

/**
 * Takes the script away once its processes are gone: it is not for whoever comes next. True if an
 * empty file of our own is left in its place, which saves making one.
 */
export function emptyScript(paths: AttemptPaths): boolean {
  try {
    const stats = lstatSync(paths.script);
    if (stats.isFile() && stats.nlink === 1 && isPrivate(stats)) {
      if (stats.size > 0) truncateSync(paths.script);
      return true;
    }
    unlinkSync(paths.script);
  } catch (error) {
    // Without the script there is nothing to take away; the rest goes with the directory.
    if (systemErrorCode(error) === undefined) throw error;
  }
  return false;
}

const OWN_UID = process.geteuid?.();
const OWN_GID = process.getegid?.();

function isPrivate(stats: { mode: number; uid: number; gid: number }): boolean {
  return stats.uid === OWN_UID && stats.gid === OWN_GID && (stats.mode & 0o7777) === PRIVATE_MODE;
}

function removeSpare(paths: AttemptPaths): void {
  try {
    if (readdirSync(paths.root).includes(SCRIPT_FILE)) unlinkSync(paths.script);
    for (const path of [paths.workspace, paths.temporary, paths.root]) rmdirSync(path);
  } catch {
    // Empty directories are left in the worker's directory, which is removed with the worker.
  }
}
