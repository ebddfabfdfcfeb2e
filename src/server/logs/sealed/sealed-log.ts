/**
 * Reads a sealed log from the blob store, frame by frame.
 *
 * A log costs its index while it is kept, and frames live in a small cache that all readers share,
 * so that a reader who takes a frame in several batches, or a hundred readers at the same place,
 * decompress it once.
 */

import { gunzip } from "node:zlib";
import { AppError } from "../../../base/errors.ts";
import { MalformedLogError } from "../../../core/log-record.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { SealedLog as SealedPlace } from "../../../storage/store.ts";
import type { Gate } from "../gate.ts";
import type { RecordFilter } from "../log-source.ts";
import { scanRecords } from "../record-scan.ts";
import type { RecentResults } from "./recent-results.ts";
import {
  FOOTER_BYTES,
  INDEX_ENTRY_BYTES,
  decodeFooter,
  decodeIndex,
  frameAt,
  type Frame,
} from "./sealed-index.ts";

export interface SealedLogParts {
  blobs: BlobStore;
  /** Decompressed frames by `<blob key>:<number>`. */
  frames: RecentResults<Buffer>;
  decompressing: Gate;
}

/** Read together with the footer, so that the index of all but huge logs takes one read. */
const FIRST_READ_BYTES = 16 * 1024;

/** @throws AppError `data_loss` if the blob is missing or damaged. */
export async function openSealedLog(place: SealedPlace, parts: SealedLogParts): Promise<SealedLog> {
  const { attemptId, blobKey: key } = place;
  if (key === null) return new SealedLog({ attemptId, key: "", frames: [], parts });
  const blobBytes = await parts.blobs.size(key);
  if (blobBytes === null) throw damaged(attemptId, "it is not in the blob store");
  const tailStart = Math.max(0, blobBytes - FIRST_READ_BYTES);
  const tail = await parts.blobs.read(key, { start: tailStart, end: blobBytes });
  const footer = decodeFooter(tail.subarray(-FOOTER_BYTES), blobBytes);
  if (footer === null) throw damaged(attemptId, "its footer is not readable");
  const indexEnd = footer.indexStart + footer.frameCount * INDEX_ENTRY_BYTES;
  const index =
    footer.indexStart >= tailStart
      ? tail.subarray(footer.indexStart - tailStart, indexEnd - tailStart)
      : await parts.blobs.read(key, { start: footer.indexStart, end: indexEnd });
  const frames = decodeIndex(index, footer);
  if (frames === null) throw damaged(attemptId, "its index is not readable");
  return new SealedLog({ attemptId, key, frames, parts });
}

export class SealedLog {
  readonly length: number;
  readonly #attemptId: string;
  readonly #key: string;
  readonly #frames: readonly Frame[];
  readonly #parts: SealedLogParts;

  constructor(options: { attemptId: string; key: string; frames: readonly Frame[]; parts: SealedLogParts }) {
    this.#attemptId = options.attemptId;
    this.#key = options.key;
    this.#frames = options.frames;
    this.#parts = options.parts;
    const last = options.frames.at(-1);
    this.length = last ? last.logStart + last.logBytes : 0;
  }

  /** A copy, so that a slow reader holds its batch and not the frame. */
  async read(start: number, maxBytes: number): Promise<Uint8Array> {
    if (start >= this.length) return new Uint8Array(0);
    const { frame, bytes } = await this.#frameWith(start);
    const from = start - frame.logStart;
    return new Uint8Array(bytes.subarray(from, from + maxBytes));
  }

  async readBefore(end: number): Promise<Uint8Array> {
    const { frame, bytes } = await this.#frameWith(end - 1);
    return bytes.subarray(0, end - frame.logStart);
  }

  skipForward(start: number, filter: RecordFilter): number {
    while (start < this.length) {
      const frame = this.#frames[frameAt(this.#frames, start)];
      if (!frame || mayMatch(frame, filter)) return start;
      start = frame.logStart + frame.logBytes;
    }
    return start;
  }

  skipBack(end: number, filter: RecordFilter): number {
    while (end > 0) {
      const frame = this.#frames[frameAt(this.#frames, end - 1)];
      if (!frame || mayMatch(frame, filter)) return end;
      end = frame.logStart;
    }
    return end;
  }

  async isBoundary(offset: number): Promise<boolean> {
    if (offset === 0 || offset === this.length) return true;
    const { frame, bytes } = await this.#frameWith(offset);
    const place = offset - frame.logStart;
    const scan = scanRecords(bytes, place);
    return scan.isMalformed || scan.end === place;
  }

  async #frameWith(offset: number): Promise<{ frame: Frame; bytes: Buffer }> {
    const number = frameAt(this.#frames, offset);
    const frame = this.#frames[number];
    if (!frame) throw new MalformedLogError(offset, "no frame");
    const bytes = await this.#parts.frames.get(`${this.#key}:${number}`, () => this.#decompress(frame));
    return { frame, bytes };
  }

  #decompress(frame: Frame): Promise<Buffer> {
    const { blobs, decompressing } = this.#parts;
    return decompressing.run(async () => {
      const end = frame.blobStart + frame.blobBytes;
      const compressed = await blobs.read(this.#key, { start: frame.blobStart, end });
      return expand(compressed, frame, this.#attemptId);
    });
  }
}

function expand(compressed: Uint8Array, frame: Frame, attemptId: string): Promise<Buffer> {
  const options = { chunkSize: frame.logBytes + 64, maxOutputLength: frame.logBytes + 64 };
  return new Promise((resolve, reject) => {
    gunzip(compressed, options, (error, bytes) => {
      if (!error && bytes.byteLength === frame.logBytes) resolve(bytes);
      else reject(damaged(attemptId, `its frame at byte ${frame.logStart} is not readable`, error));
    });
  });
}

function mayMatch(frame: Frame, filter: RecordFilter): boolean {
  return (frame.streams & filter.streams) !== 0 && !(frame.latestMs < filter.sinceMs);
}

function damaged(attemptId: string, problem: string, cause?: unknown): AppError {
  return new AppError("data_loss", `read sealed log of attempt ${attemptId}: ${problem}`, { cause });
}
