/**
 * Walks over the records of a log by their headers, without touching payloads.
 *
 * This is for those who need to know where records begin and end, and nothing else: opening a file
 * after a crash, cutting a log into frames.
 */

import {
  LOG_STREAMS,
  MAX_RECORD_DATA_BYTES,
  MalformedLogError,
  RECORD_HEADER_BYTES,
  RECORD_OVERHEAD_BYTES,
  RECORD_TRAILER_BYTES,
  decodeRecord,
  type DecodedRecord,
  type LogStreamName,
} from "../../core/log-record.ts";

export const MAX_RECORD_BYTES = MAX_RECORD_DATA_BYTES + RECORD_OVERHEAD_BYTES;

export interface RecordScan {
  /** The end of the last whole record that was walked over. */
  end: number;
  /** No record can begin at `end`. */
  isMalformed: boolean;
  /** Infinity if there is no record. Clocks jump, so the first record need not be the earliest. */
  earliestMs: number;
  /** -Infinity if there is no record. */
  latestMs: number;
  /** Which streams occur; see `streamBit`. */
  streams: number;
}

export function streamBit(stream: LogStreamName): number {
  return 1 << LOG_STREAMS.indexOf(stream);
}

export const ALL_STREAMS: number = LOG_STREAMS.reduce((bits, stream) => bits | streamBit(stream), 0);

/** Walks whole records from the beginning of `bytes` until at least `enoughBytes` are covered. */
export function scanRecords(bytes: Uint8Array, enoughBytes: number): RecordScan {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const scan: RecordScan = {
    end: 0,
    isMalformed: false,
    earliestMs: Infinity,
    latestMs: -Infinity,
    streams: 0,
  };
  while (scan.end < enoughBytes && scan.end + RECORD_HEADER_BYTES <= bytes.byteLength) {
    const size = view.getUint32(scan.end + 4, true);
    if (!isHeader(view, scan.end)) return { ...scan, isMalformed: true };
    const next = scan.end + size + RECORD_OVERHEAD_BYTES;
    if (next > bytes.byteLength) break;
    if (view.getUint32(next - RECORD_TRAILER_BYTES, true) !== size) return { ...scan, isMalformed: true };
    const timeMs = view.getFloat64(scan.end + 8, true);
    scan.streams |= 1 << (view.getUint8(scan.end) - 1);
    if (timeMs < scan.earliestMs) scan.earliestMs = timeMs;
    if (timeMs > scan.latestMs) scan.latestMs = timeMs;
    scan.end = next;
  }
  return scan;
}

function isHeader(view: DataView, offset: number): boolean {
  const stream = view.getUint8(offset);
  return (
    stream >= 1 &&
    stream <= LOG_STREAMS.length &&
    view.getUint8(offset + 1) === 0 &&
    view.getUint16(offset + 2, true) === 0 &&
    view.getUint32(offset + 4, true) <= MAX_RECORD_DATA_BYTES
  );
}

/**
 * The record that ends at byte `end` of `bytes`, and where it begins. Null if it begins before
 * `bytes` does.
 *
 * @throws MalformedLogError if no record can end there.
 */
export function recordBefore(
  bytes: Uint8Array,
  end: number,
): { start: number; record: DecodedRecord } | null {
  if (end < RECORD_TRAILER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = view.getUint32(end - RECORD_TRAILER_BYTES, true);
  if (size > MAX_RECORD_DATA_BYTES) throw new MalformedLogError(end, `record of ${size} bytes before it`);
  const start = end - size - RECORD_OVERHEAD_BYTES;
  if (start < 0) return null;
  const record = decodeRecord(bytes, start);
  if (record?.nextOffset !== end) throw new MalformedLogError(end, "no record ends here");
  return { start, record };
}
