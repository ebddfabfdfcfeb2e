/**
 * Gives the records of a log to one reader, as fast as it takes them.
 *
 * A reader is a place and a filter. Nothing is read before the batch before has been taken, and
 * between two batches nothing is kept but the one in the reader's hands, so a slow reader costs
 * nobody anything.
 */

import { AppError } from "../../base/errors.ts";
import {
  LOG_STREAMS,
  MalformedLogError,
  decodeRecord,
  type LogRecord,
  type LogStreamName,
} from "../../core/log-record.ts";
import { matches, streamsFilter, type LogSource, type RecordFilter } from "./log-source.ts";
import { MAX_RECORD_BYTES } from "./record-scan.ts";
import { tailStart } from "./tail-start.ts";

/** Bytes of log in one batch: more than the longest record. */
export const MAX_BATCH_BYTES = 256 * 1024;

export interface ReadOptions {
  /** Where to begin: 0, or the `nextOffset` of a batch. */
  offset: number;
  /** Goes on until the log is complete. Otherwise reads what there is at the time of the call. */
  follow: boolean;
  /**
   * Whether the attempt has ended and nothing more of its log is awaited. Asked before each batch,
   * and again after `wake` of the store. A log that is finished or sealed is known to be complete.
   */
  isEnded: () => boolean;
  /** Only these; all if missing or empty. */
  streams?: readonly LogStreamName[];
  /** Only records of this time or later. */
  sinceMs?: number;
  /** Begins so that at least this many lines at the end are given; all if missing or 0. */
  tailLines?: number;
  /** Ends the iteration, without an error. */
  signal?: AbortSignal;
}

export interface LogBatch {
  records: LogRecord[];
  /** The place after these records: go on from here. */
  nextOffset: number;
  /** The log ends here. Only on the last batch, which may be empty. */
  complete: boolean;
}

export async function* readLog(source: LogSource, options: ReadOptions): AsyncGenerator<LogBatch> {
  const filter = filterOf(options);
  // Without `follow`, what is added while a slow reader reads is not for it.
  const limit = options.follow ? Infinity : source.length();
  let offset = await startOffset(source, options, filter);
  while (!options.signal?.aborted) {
    // Asked before the length: what was added before the end is then not overlooked.
    const isFinal = source.isFinal() || options.isEnded();
    const length = source.length();
    const end = Math.min(length, limit);
    const batch = await nextBatch(source, { offset, end, filter });
    const advanced = batch.nextOffset > offset;
    offset = Math.max(offset, batch.nextOffset);
    const complete = isFinal && (offset >= length || (!advanced && offset < end));
    if (batch.records.length > 0 || complete) yield { records: batch.records, nextOffset: offset, complete };
    if (complete) return;
    if (advanced) continue;
    if (!options.follow) {
      yield { records: [], nextOffset: offset, complete: false };
      return;
    }
    await source.grown(length, options.signal);
  }
}

function filterOf(options: ReadOptions): RecordFilter {
  const streams = options.streams?.length ? options.streams : LOG_STREAMS;
  return { streams: streamsFilter(streams), sinceMs: options.sinceMs ?? -Infinity };
}

async function startOffset(source: LogSource, options: ReadOptions, filter: RecordFilter): Promise<number> {
  const { offset, tailLines } = options;
  if (!Number.isSafeInteger(offset) || offset < 0) throw refuse(source, offset, "not a place in a log");
  const length = source.length();
  if (offset > length) throw refuse(source, offset, `the log ends at byte ${length}`);
  if (!(await source.isBoundary(offset))) {
    throw refuse(source, offset, "not the beginning of a record");
  }
  if (!tailLines) return offset;
  return Math.max(offset, await tailStart(source, filter, tailLines));
}

function refuse(source: LogSource, offset: number, problem: string): AppError {
  return new AppError("invalid_argument", `read log of attempt ${source.attemptId} at ${offset}: ${problem}`);
}

async function nextBatch(
  source: LogSource,
  place: { offset: number; end: number; filter: RecordFilter },
): Promise<{ records: LogRecord[]; nextOffset: number }> {
  const offset = await source.skipForward(place.offset, place.filter);
  // Frames end where records do, so a skip never lands behind an end that is a record's.
  if (offset >= place.end) return { records: [], nextOffset: offset };
  const bytes = await source.read(offset, Math.min(MAX_BATCH_BYTES, place.end - offset));
  const batch = collect(bytes, place.filter, (at, error) => dataLoss(source, offset + at, error));
  if (batch.bytes === 0 && bytes.byteLength >= MAX_RECORD_BYTES) throw dataLoss(source, offset);
  return { records: batch.records, nextOffset: offset + batch.bytes };
}

/** The records among the whole ones that match, and how many bytes were gone through. */
function collect(
  bytes: Uint8Array,
  filter: RecordFilter,
  toError: (at: number, error: unknown) => AppError,
): { records: LogRecord[]; bytes: number } {
  const records: LogRecord[] = [];
  let at = 0;
  for (;;) {
    let record;
    try {
      record = decodeRecord(bytes, at);
    } catch (error) {
      // What is before the damage is still given; the next batch begins at it and fails.
      if (at > 0) return { records, bytes: at };
      throw error instanceof MalformedLogError ? toError(at, error) : error;
    }
    if (record === null) return { records, bytes: at };
    const { stream, timeMs, data, nextOffset } = record;
    if (matches(filter, record)) records.push({ stream, timeMs, data });
    at = nextOffset;
  }
}

function dataLoss(source: LogSource, offset: number, cause?: unknown): AppError {
  return new AppError(
    "data_loss",
    `read log of attempt ${source.attemptId}: it is malformed at byte ${offset}`,
    { cause },
  );
}
