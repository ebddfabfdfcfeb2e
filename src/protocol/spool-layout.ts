/**
 * Where the runner leaves log bytes for the agent.
 *
 * Below the worker's directory, `spool/<attempt id>/` holds segments named `<first byte, 15
 * digits>.seg`, each a run of whole log records (see core/log-record.ts). Only the last one grows;
 * one whose bytes are all acknowledged is removed. A reader that knows `logEnd` may read any byte
 * below it that is not removed.
 */

import { join } from "node:path";

/** A segment is closed when it has at least this many bytes. */
export const SEGMENT_BYTES = 8 * 1024 * 1024;

export function spoolDirectory(workerDirectory: string, attemptId: string): string {
  return join(workerDirectory, "spool", attemptId);
}

export function segmentName(firstByte: number): string {
  return `${String(firstByte).padStart(15, "0")}.seg`;
}

export function runnerSocketPath(workerDirectory: string): string {
  return join(workerDirectory, "runner.sock");
}
