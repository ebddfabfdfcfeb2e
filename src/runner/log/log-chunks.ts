/**
 * Chunks of output as log records, ready to be written.
 *
 * A chunk is copied once, out of the buffer that all pipes are read into. Big records live in
 * buffers that are used again, because a job that prints a gigabyte would else leave a gigabyte of
 * garbage outside of the JavaScript heap, where the collector sees it late.
 */

import {
  MAX_RECORD_DATA_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_OVERHEAD_BYTES,
  writeRecordFrame,
  type LogStreamName,
} from "../../core/log-record.ts";

/** Records up to this size are cut from Node's own pool for small buffers. */
const SMALL_BYTES = 4_096;
/** Big buffers that are kept for the next use: 4 MiB. */
const MAX_KEPT = 64;

const kept: Buffer[] = [];

/** One record. `release` when its bytes have been written. */
export interface LogChunk {
  bytes: Buffer;
  big: Buffer | null;
}

/** @param data at most `MAX_RECORD_DATA_BYTES` */
export function frameChunk(stream: LogStreamName, timeMs: number, data: Uint8Array): LogChunk {
  const size = data.byteLength;
  const length = size + RECORD_OVERHEAD_BYTES;
  const big = length > SMALL_BYTES ? (kept.pop() ?? newBuffer()) : null;
  const bytes = big === null ? Buffer.allocUnsafe(length) : big.subarray(0, length);
  writeRecordFrame(new DataView(bytes.buffer, bytes.byteOffset, length), { stream, timeMs, size });
  bytes.set(data, RECORD_HEADER_BYTES);
  return { bytes, big };
}

export function releaseChunk(chunk: LogChunk): void {
  if (chunk.big !== null && kept.length < MAX_KEPT) kept.push(chunk.big);
}

function newBuffer(): Buffer {
  return Buffer.allocUnsafeSlow(MAX_RECORD_DATA_BYTES + RECORD_OVERHEAD_BYTES);
}
