/** A database cluster on disk: made as a whole or not at all, and refused if another PostgreSQL made it. */

import { spawn } from "node:child_process";
import {
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { AppError, systemErrorCode } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { Account } from "./account.ts";
import type { Binaries } from "./binaries.ts";
import { postgresFailure } from "./failure.ts";
import { PARTIAL } from "./partial.ts";
import { ownMark, SUPERUSER } from "./postmaster.ts";

export interface ClusterPaths {
  /** What the user chose; the rest lies in its `postgres`. */
  directory: string;
  /** `<directory>/postgres`. */
  home: string;
  data: string;
  run: string;
  log: string;
}

/** What every program of PostgreSQL is started with: nothing of our own environment. */
export const PROGRAM_ENVIRONMENT = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };

/**
 * Makes the cluster if there is none. It is made beside its place and then renamed, so a crash or a
 * full disk leaves none; of two servers that make one at once the first to finish wins.
 */
export async function ensureCluster(
  paths: ClusterPaths,
  options: { binaries: Binaries; account: Account | null; random: Random },
): Promise<void> {
  const { binaries, account, random } = options;
  if (existsSync(join(paths.data, "PG_VERSION"))) {
    requireMajor(paths, binaries);
    return;
  }
  const suffix = Buffer.from(random.bytes(4)).toString("hex");
  const partial = join(paths.home, `data${PARTIAL}${ownMark()}-${suffix}`);
  try {
    mkdirSync(partial, { mode: 0o700 });
    if (account) chownSync(partial, account.uid, account.gid);
    await initialize(partial, { directory: paths.directory, binaries, account });
    putInPlace(partial, paths.data);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

function requireMajor(paths: ClusterPaths, binaries: Binaries): void {
  const major = readFileSync(join(paths.data, "PG_VERSION"), "utf8").trim();
  if (major === binaries.major) return;
  throw new AppError(
    "failed_precondition",
    `start the embedded database in ${paths.directory}: it was made by PostgreSQL ${major}, and this Hodei brings PostgreSQL ${binaries.major}; start the Hodei that made it and dump the database with pg_dump, or move ${paths.data} away to begin with an empty one`,
  );
}

/** Without `--no-sync`: syncing the new files costs a tenth of a second, once. */
async function initialize(
  target: string,
  options: { directory: string; binaries: Binaries; account: Account | null },
): Promise<void> {
  const { directory, binaries, account } = options;
  const program = join(binaries.directory, "bin", "initdb");
  const settings = [
    "-D",
    target,
    "-U",
    SUPERUSER,
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--locale=C",
    "--no-instructions",
  ];
  const outcome = await run(program, settings, { account, cwd: dirname(target) });
  if (outcome.exitCode === 0) return;
  throw postgresFailure("make the embedded database", {
    directory,
    output: outcome.output,
    cause: outcome.error,
  });
}

const MAX_OUTPUT_CHARACTERS = 4_096;

interface ProgramOutcome {
  exitCode: number | null;
  /** The last of what it wrote on stderr. */
  output: string;
  error: Error | undefined;
}

function run(
  program: string,
  settings: readonly string[],
  options: { account: Account | null; cwd: string },
): Promise<ProgramOutcome> {
  return new Promise((resolve) => {
    let output = "";
    const child = spawn(program, settings, {
      ...options.account,
      cwd: options.cwd,
      env: PROGRAM_ENVIRONMENT,
      stdio: ["ignore", "ignore", "pipe"],
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-MAX_OUTPUT_CHARACTERS);
    });
    child.once("error", (error) => resolve({ exitCode: null, output: output.trim(), error }));
    child.once("close", (exitCode) => resolve({ exitCode, output: output.trim(), error: undefined }));
  });
}

function putInPlace(partial: string, data: string): void {
  try {
    renameSync(partial, data);
  } catch (error) {
    const isTaken = ["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "");
    if (!isTaken || !existsSync(join(data, "PG_VERSION"))) throw error;
  }
  syncDirectory(dirname(data));
}

function syncDirectory(directory: string): void {
  const handle = openSync(directory, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
