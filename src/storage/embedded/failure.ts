/** Failures of the embedded database, told so that a person knows what to do. */

import { closeSync, fstatSync, openSync, readSync, statfsSync } from "node:fs";
import { AppError, errorMessage, systemErrorCode } from "../../base/errors.ts";

const TAIL_BYTES = 4_096;
const TAIL_LINES = 12;

/** The last lines that PostgreSQL wrote from byte `fromOffset` of its log on; empty if it cannot be read. */
export function logTail(path: string, fromOffset = 0): string {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    // Without a log there is nothing to add to the failure that is being told.
    return "";
  }
  try {
    const { size } = fstatSync(file);
    const start = Math.max(fromOffset, size - TAIL_BYTES, 0);
    const bytes = Buffer.alloc(Math.max(0, size - start));
    readSync(file, bytes, 0, bytes.byteLength, start);
    return bytes.toString("utf8").trim().split("\n").slice(-TAIL_LINES).join("\n");
  } finally {
    closeSync(file);
  }
}

/** `output` is what PostgreSQL or initdb wrote, `directory` the one that the user chose. */
export function postgresFailure(
  what: string,
  options: { directory: string; output: string; cause?: unknown },
): AppError {
  const { directory, output, cause } = options;
  const attempt = `${what} in ${directory}`;
  const lines = output === "" ? "" : `\n${output}`;
  if (
    /no space left on device|disk quota exceeded/i.test(output) ||
    (output === "" && isDiskFull(directory))
  ) {
    return new AppError(
      "resource_exhausted",
      `${attempt}: the disk is full (No space left on device); free some space there or choose another directory with --data-dir${lines}`,
      { cause },
    );
  }
  if (/read-only file system/i.test(output)) {
    return new AppError("failed_precondition", `${attempt}: the file system is read-only${lines}`, { cause });
  }
  const said =
    output === ""
      ? ` ${cause === undefined ? "it gave no reason" : errorMessage(cause)}`
      : ` PostgreSQL says:${lines}`;
  return new AppError("unavailable", `${attempt}:${said}`, { cause });
}

const FULL_BELOW_BYTES = 64 * 1024;

/** On a full disk PostgreSQL cannot even write to its log that the disk is full. */
function isDiskFull(directory: string): boolean {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize < FULL_BELOW_BYTES;
}

/** For failures of our own file operations. */
export function fileFailure(what: string, directory: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  const attempt = `${what} in ${directory}`;
  switch (systemErrorCode(error)) {
    case "ENOSPC":
    case "EDQUOT":
      return new AppError(
        "resource_exhausted",
        `${attempt}: the disk is full (No space left on device); free some space there or choose another directory with --data-dir`,
        { cause: error },
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new AppError(
        "failed_precondition",
        `${attempt}: the directory is not writable (${errorMessage(error)}); make it writable or choose another one with --data-dir or HODEI_DATA_DIR`,
        { cause: error },
      );
    case "ENOTDIR":
    case "EEXIST":
      return new AppError(
        "failed_precondition",
        `${attempt}: a file is in the way (${errorMessage(error)})`,
        { cause: error },
      );
    default:
      return new AppError("unavailable", `${attempt}: ${errorMessage(error)}`, { cause: error });
  }
}
