/**
 * What a reader needs of a log, whether it still grows in a file or lies sealed in the blob store.
 *
 * Places are bytes from the beginning of the log, as everywhere. A source keeps nothing for a reader
 * between two calls.
 */

import type { LogRecord, LogStreamName } from "../../core/log-record.ts";
import { streamBit } from "./record-scan.ts";

export interface LogSource {
  readonly attemptId: string;
  /** Bytes that may be read now. */
  length(): number;
  /** Nothing will be added. */
  isFinal(): boolean;
  /** Bytes from `start`, at most `maxBytes`: fewer where something else begins, none at the end. */
  read(start: number, maxBytes: number): Promise<Uint8Array>;
  /** Bytes right before `end`, which is the end of a record; at least one whole record of them. */
  readBefore(end: number): Promise<Uint8Array>;
  /** The first place from `start` on where something may match, without reading it. */
  skipForward(start: number, filter: RecordFilter): Promise<number>;
  /** The last place up to `end` before which something may match, without reading it. */
  skipBack(end: number, filter: RecordFilter): Promise<number>;
  /** Whether a record begins at `offset`, or would if one were added. */
  isBoundary(offset: number): Promise<boolean>;
  /** The last boundary that is not after `end`. */
  boundaryBefore(end: number): Promise<number>;
  /** Resolves when the log is longer than `bytes`, is final, or should be looked at again. */
  grown(bytes: number, signal: AbortSignal | undefined): Promise<void>;
}

/** Which records a reader wants: those of these streams, not before this time. */
export interface RecordFilter {
  /** See `streamBit`. */
  streams: number;
  sinceMs: number;
}

export function matches(filter: RecordFilter, record: LogRecord): boolean {
  if ((filter.streams & streamBit(record.stream)) === 0) return false;
  // Without a beginning everything passes, also a time that is not a number.
  return filter.sinceMs === -Infinity || record.timeMs >= filter.sinceMs;
}

export function streamsFilter(streams: readonly LogStreamName[]): number {
  return streams.reduce((bits, stream) => bits | streamBit(stream), 0);
}
