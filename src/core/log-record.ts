/**
 * The format of a log, from the runner's spool to the reader.
 *
 * A log is a sequence of records and nothing else. A place in a log is the number of bytes before
 * it, so that "what do you have?" and "send from there" are one number, and a repeated or
 * overlapping block can be recognised without looking inside.
 *
 *     byte 0      1        2        4              8            16          16+n       20+n
 *     | stream u8 | 0 u8   | 0 u16  | length n u32 | time f64   | n bytes   | n u32    |
 *
 * All numbers are little-endian. The time is milliseconds since the Unix epoch. The length stands
 * at both ends, so that a log can be walked backwards for its last lines.
 */

/** Stored as numbers, so append only. `gap` says that output is missing, see log-gap.ts. */
export const LOG_STREAMS = ["stdout", "stderr", "system", "gap"] as const;
export type LogStreamName = (typeof LOG_STREAMS)[number];

export const RECORD_HEADER_BYTES = 16;
export const RECORD_TRAILER_BYTES = 4;
export const RECORD_OVERHEAD_BYTES = RECORD_HEADER_BYTES + RECORD_TRAILER_BYTES;
/** The longest payload of a record: one read of a pipe. */
export const MAX_RECORD_DATA_BYTES = 64 * 1024;

export interface LogRecord {
  stream: LogStreamName;
  timeMs: number;
  data: Uint8Array;
}

/** A record and where the one after it begins. */
export interface DecodedRecord extends LogRecord {
  nextOffset: number;
}

export class MalformedLogError extends Error {
  constructor(offset: number, problem: string) {
    super(`log is malformed at byte ${offset}: ${problem}`);
    this.name = "MalformedLogError";
  }
}

/** The bytes of one record. `data` must not be longer than `MAX_RECORD_DATA_BYTES`. */
export function encodeRecord(record: LogRecord): Uint8Array {
  const size = record.data.byteLength;
  const bytes = new Uint8Array(size + RECORD_OVERHEAD_BYTES);
  const view = new DataView(bytes.buffer);
  writeRecordFrame(view, { stream: record.stream, timeMs: record.timeMs, size });
  bytes.set(record.data, RECORD_HEADER_BYTES);
  return bytes;
}

/** Writes header and trailer around a payload of `size` bytes that stands (or will stand) between. */
export function writeRecordFrame(
  view: DataView,
  frame: { stream: LogStreamName; timeMs: number; size: number },
): void {
  view.setUint8(0, LOG_STREAMS.indexOf(frame.stream) + 1);
  view.setUint8(1, 0);
  view.setUint16(2, 0, true);
  view.setUint32(4, frame.size, true);
  view.setFloat64(8, frame.timeMs, true);
  view.setUint32(RECORD_HEADER_BYTES + frame.size, frame.size, true);
}

/**
 * Reads the record at `offset` of `bytes`. Null if it is not there as a whole yet.
 *
 * @throws MalformedLogError if no record can begin with these bytes.
 */
export function decodeRecord(bytes: Uint8Array, offset: number): DecodedRecord | null {
  if (offset + RECORD_HEADER_BYTES > bytes.byteLength) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stream = LOG_STREAMS[view.getUint8(offset) - 1];
  const size = view.getUint32(offset + 4, true);
  if (stream === undefined) throw new MalformedLogError(offset, "unknown stream");
  if (view.getUint8(offset + 1) !== 0 || view.getUint16(offset + 2, true) !== 0) {
    throw new MalformedLogError(offset, "reserved bytes are not zero");
  }
  if (size > MAX_RECORD_DATA_BYTES) throw new MalformedLogError(offset, `record of ${size} bytes`);
  const nextOffset = offset + size + RECORD_OVERHEAD_BYTES;
  if (nextOffset > bytes.byteLength) return null;
  if (view.getUint32(nextOffset - RECORD_TRAILER_BYTES, true) !== size) {
    throw new MalformedLogError(offset, "lengths at both ends differ");
  }
  const dataStart = offset + RECORD_HEADER_BYTES;
  return {
    stream,
    timeMs: view.getFloat64(offset + 8, true),
    data: bytes.subarray(dataStart, dataStart + size),
    nextOffset,
  };
}

/** All whole records in `bytes` from `offset` on. */
export function* decodeRecords(bytes: Uint8Array, offset = 0): Generator<DecodedRecord> {
  for (;;) {
    const record = decodeRecord(bytes, offset);
    if (record === null) return;
    yield record;
    offset = record.nextOffset;
  }
}

/**
 * The end of the last whole record within the first `limit` bytes, without touching payloads: where
 * to cut a block. 0 if not even one record fits.
 */
export function wholeRecordsLength(bytes: Uint8Array, limit: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = Math.min(limit, bytes.byteLength);
  let offset = 0;
  while (offset + RECORD_HEADER_BYTES <= end) {
    const next = offset + view.getUint32(offset + 4, true) + RECORD_OVERHEAD_BYTES;
    if (next > end) break;
    offset = next;
  }
  return offset;
}
