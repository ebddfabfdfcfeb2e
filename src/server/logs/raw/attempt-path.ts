/**
 * Where the raw log of an attempt lies: `<directory>/<two hex digits>/<attempt id>.log`.
 *
 * The digits are the last two of the id. Ids begin with the time, so their beginnings would put all
 * logs of an hour into one directory.
 */

import { join } from "node:path";
import { AppError } from "../../../base/errors.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const RAW_LOG_NAME = /^([0-9a-f-]{36})\.log$/;

/** All names of directories that `attemptLogPath` can give. */
export const SHARDS: ReadonlySet<string> = new Set(
  Array.from({ length: 256 }, (_, index) => index.toString(16).padStart(2, "0")),
);

/** @throws AppError `invalid_argument` unless the id is a UUID in lower case: it becomes a file name. */
export function attemptLogPath(directory: string, attemptId: string): string {
  checkAttemptId(attemptId);
  return join(directory, attemptId.slice(-2), `${attemptId}.log`);
}

/** The key under which the sealed log of an attempt is put into the blob store. */
export function sealedLogKey(attemptId: string): string {
  checkAttemptId(attemptId);
  return `logs/${attemptId.slice(-2)}/${attemptId}.log.gz`;
}

/** The attempt that a file belongs to, or null if it is not a raw log. */
export function attemptOfFileName(name: string): string | null {
  const attemptId = RAW_LOG_NAME.exec(name)?.[1];
  return attemptId !== undefined && UUID.test(attemptId) ? attemptId : null;
}

function checkAttemptId(attemptId: string): void {
  if (UUID.test(attemptId)) return;
  throw new AppError("invalid_argument", `find the log of attempt ${JSON.stringify(attemptId)}: not a UUID`);
}
