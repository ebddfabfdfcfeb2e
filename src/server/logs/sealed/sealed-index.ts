/**
 * The end of a sealed log: the index of its frames, and the footer that leads to it.
 *
 * The format is described in docs/log-format.md. All numbers are little-endian.
 *
 *     index entry  | log start u64 | blob start u64 | log bytes u32 | blob bytes u32 |
 *                  | earliest f64 | latest f64 | streams u32 | 0 u32 |
 *     footer       | log bytes u64 | index start u64 | frames u32 | CRC-32 of the index u32 | magic |
 */

import { crc32 } from "node:zlib";

/** A run of whole records that is compressed by itself. */
export interface Frame {
  logStart: number;
  blobStart: number;
  logBytes: number;
  blobBytes: number;
  earliestMs: number;
  latestMs: number;
  /** Which streams occur; see `streamBit`. */
  streams: number;
}

export interface Footer {
  logBytes: number;
  indexStart: number;
  frameCount: number;
  indexCrc: number;
}

export const INDEX_ENTRY_BYTES = 48;
export const FOOTER_BYTES = 32;
const MAGIC = Buffer.from("hodeilg1", "latin1");

export function encodeIndex(frames: readonly Frame[]): Buffer {
  const index = Buffer.alloc(frames.length * INDEX_ENTRY_BYTES);
  frames.forEach((frame, number) => {
    const at = number * INDEX_ENTRY_BYTES;
    index.writeBigUInt64LE(BigInt(frame.logStart), at);
    index.writeBigUInt64LE(BigInt(frame.blobStart), at + 8);
    index.writeUInt32LE(frame.logBytes, at + 16);
    index.writeUInt32LE(frame.blobBytes, at + 20);
    index.writeDoubleLE(frame.earliestMs, at + 24);
    index.writeDoubleLE(frame.latestMs, at + 32);
    index.writeUInt32LE(frame.streams, at + 40);
  });
  return index;
}

export function encodeFooter(index: Buffer, place: { logBytes: number; indexStart: number }): Buffer {
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.writeBigUInt64LE(BigInt(place.logBytes), 0);
  footer.writeBigUInt64LE(BigInt(place.indexStart), 8);
  footer.writeUInt32LE(index.byteLength / INDEX_ENTRY_BYTES, 16);
  footer.writeUInt32LE(crc32(index), 20);
  MAGIC.copy(footer, 24);
  return footer;
}

/** Null if these are not the last bytes of a sealed log of `blobBytes`. */
export function decodeFooter(bytes: Uint8Array, blobBytes: number): Footer | null {
  const footer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (footer.byteLength !== FOOTER_BYTES || !footer.subarray(24).equals(MAGIC)) return null;
  const decoded: Footer = {
    logBytes: Number(footer.readBigUInt64LE(0)),
    indexStart: Number(footer.readBigUInt64LE(8)),
    frameCount: footer.readUInt32LE(16),
    indexCrc: footer.readUInt32LE(20),
  };
  const end = decoded.indexStart + decoded.frameCount * INDEX_ENTRY_BYTES + FOOTER_BYTES;
  return end === blobBytes ? decoded : null;
}

/** Null if the index is damaged: not the one of this footer, or frames that leave gaps. */
export function decodeIndex(bytes: Uint8Array, footer: Footer): Frame[] | null {
  const index = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (index.byteLength !== footer.frameCount * INDEX_ENTRY_BYTES) return null;
  if (crc32(index) !== footer.indexCrc) return null;
  const frames: Frame[] = [];
  let logEnd = 0;
  let blobEnd = 0;
  for (let at = 0; at < index.byteLength; at += INDEX_ENTRY_BYTES) {
    const frame = decodeFrame(index, at);
    if (frame.logStart !== logEnd || frame.blobStart !== blobEnd || frame.logBytes === 0) return null;
    logEnd += frame.logBytes;
    blobEnd += frame.blobBytes;
    frames.push(frame);
  }
  return logEnd === footer.logBytes && blobEnd === footer.indexStart ? frames : null;
}

function decodeFrame(index: Buffer, at: number): Frame {
  return {
    logStart: Number(index.readBigUInt64LE(at)),
    blobStart: Number(index.readBigUInt64LE(at + 8)),
    logBytes: index.readUInt32LE(at + 16),
    blobBytes: index.readUInt32LE(at + 20),
    earliestMs: index.readDoubleLE(at + 24),
    latestMs: index.readDoubleLE(at + 32),
    streams: index.readUInt32LE(at + 40),
  };
}

/** The number of the frame that holds byte `offset`, which must be in the log. */
export function frameAt(frames: readonly Frame[], offset: number): number {
  let low = 0;
  let high = frames.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((frames[middle]?.logStart ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
