/**
 * Finds out what a raw log holds when it is first looked at after a start.
 *
 * A crash may leave the end of a file torn: a record that is not whole, or a stretch that the file
 * system had given to the file but not filled. That is cut off. None of it was acknowledged, except
 * perhaps the first part of a record whose second part was still on its way; the worker has the
 * whole of it, since it keeps its segments until their last byte is acknowledged.
 */

import { dirname } from "node:path";
import { systemErrorCode } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { scanRecords } from "../record-scan.ts";
import { MAX_APPEND_BYTES, MAX_PENDING_LOG_BYTES } from "./attempt-log.ts";
import { fileBytes, readFully, syncDirectory, syncFile, truncateFile } from "./file-calls.ts";
import type { OpenFiles } from "./open-files.ts";

const SCAN_BYTES = 1024 * 1024;
/** A crash cannot tear more than what may be written and not synced. */
const MAX_TORN_BYTES = MAX_PENDING_LOG_BYTES + MAX_APPEND_BYTES;

export interface RecoveredLog {
  /** Bytes that are on disk for certain. */
  length: number;
  /** The end of the last record that is good. */
  boundary: number;
}

/** The log is empty if there is no file. */
export async function recoverRawLog(
  path: string,
  options: { attemptId: string; files: OpenFiles; log: Logger },
): Promise<RecoveredLog> {
  try {
    return await options.files.use(path, (fd) => recover(fd, path, options));
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return { length: 0, boundary: 0 };
    throw error;
  }
}

async function recover(
  fd: number,
  path: string,
  options: { attemptId: string; log: Logger },
): Promise<RecoveredLog> {
  const size = await fileBytes(fd);
  const boundary = await lastBoundary(fd, size);
  const tornBytes = size - boundary;
  const fields = { attemptId: options.attemptId, length: boundary, tornBytes };
  if (tornBytes > MAX_TORN_BYTES) {
    // No crash did this, so cutting would remove what was acknowledged. Readers are told the place.
    options.log.error(fields, "log is malformed");
    return { length: size, boundary };
  }
  if (tornBytes > 0) {
    options.log.warn(fields, "cutting the torn end of a log");
    await truncateFile(fd, boundary);
  }
  // The server that wrote this may have been killed before it synced.
  await Promise.all([syncFile(fd), syncDirectory(dirname(path))]);
  return { length: boundary, boundary };
}

async function lastBoundary(fd: number, size: number): Promise<number> {
  let place = 0;
  for (;;) {
    const bytes = await readFully(fd, place, Math.min(SCAN_BYTES, size - place));
    const scan = scanRecords(bytes, bytes.byteLength);
    place += scan.end;
    if (scan.isMalformed || scan.end === 0) return place;
  }
}
