/** Reads pieces of log from the runner's spool, cut at record borders. */

import { open, readdir, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { AppError, systemErrorCode } from "../base/errors.ts";
import { wholeRecordsLength } from "../core/log-record.ts";
import { spoolDirectory } from "../protocol/spool-layout.ts";

/** Read at once, and handed out in pieces; one buffer of it for each attempt that has log to send. */
const READ_AHEAD_BYTES = 512 * 1024;

interface OpenAttempt {
  /** Nobody wants it any more: a read under way must not open another file. */
  isForgotten: boolean;
  file: FileHandle | null;
  /** Place of the first byte of `file`. */
  segmentStart: number;
  segmentEnd: number | null;
  /** Holds `ahead`; used again for the next read, since fresh memory keeps the collector busy. */
  buffer: Buffer | null;
  ahead: Buffer;
  /** Place of the first byte of `ahead`. */
  aheadStart: number;
}

export class SpoolReader {
  readonly #directory: string;
  readonly #open = new Map<string, OpenAttempt>();

  constructor(workerDirectory: string) {
    this.#directory = workerDirectory;
  }

  /**
   * Whole records from `offset` on, at most `maxBytes`; `logEnd` is how long the log is known to
   * be. The bytes are valid until the next read of the same attempt.
   */
  async read(place: {
    attemptId: string;
    offset: number;
    maxBytes: number;
    logEnd: number;
  }): Promise<Uint8Array> {
    const attempt = this.#attempt(place.attemptId);
    let known = aheadFrom(attempt, place.offset);
    if (known.length < place.maxBytes) {
      await this.#readAhead(attempt, place);
      known = aheadFrom(attempt, place.offset);
    }
    const length = wholeRecordsLength(known, place.maxBytes);
    if (length === 0) {
      throw new AppError(
        "data_loss",
        `read spool of attempt ${place.attemptId}: no record at byte ${place.offset}`,
      );
    }
    return known.subarray(0, length);
  }

  async forget(attemptId: string): Promise<void> {
    const attempt = this.#open.get(attemptId);
    if (!attempt) return;
    this.#open.delete(attemptId);
    attempt.isForgotten = true;
    await attempt.file?.close();
  }

  async close(): Promise<void> {
    for (const attemptId of this.#open.keys()) await this.forget(attemptId);
  }

  #attempt(attemptId: string): OpenAttempt {
    const known = this.#open.get(attemptId);
    if (known) return known;
    const empty = Buffer.alloc(0);
    const attempt: OpenAttempt = {
      isForgotten: false,
      file: null,
      segmentStart: 0,
      segmentEnd: null,
      buffer: null,
      ahead: empty,
      aheadStart: 0,
    };
    this.#open.set(attemptId, attempt);
    return attempt;
  }

  async #readAhead(
    attempt: OpenAttempt,
    place: { attemptId: string; offset: number; logEnd: number },
  ): Promise<void> {
    const { offset, logEnd } = place;
    let got = 0;
    const buffer = bufferFor(attempt, logEnd - offset);
    // Twice, because the runner may have gone on in a new segment since the file was opened.
    for (let isAgain = false; got === 0; isAgain = true) {
      const file = await this.#segment(attempt, place.attemptId, offset);
      const wanted = Math.min(buffer.length, (attempt.segmentEnd ?? logEnd) - offset);
      got = (await file.read(buffer, 0, wanted, offset - attempt.segmentStart)).bytesRead;
      if (got > 0) break;
      if (isAgain || attempt.segmentStart === offset) {
        throw new AppError(
          "data_loss",
          `read spool of attempt ${place.attemptId}: it ends before byte ${offset}`,
        );
      }
      await this.#closeSegment(attempt);
    }
    attempt.ahead = buffer.subarray(0, got);
    attempt.aheadStart = offset;
  }

  async #closeSegment(attempt: OpenAttempt): Promise<void> {
    await attempt.file?.close();
    attempt.file = null;
  }

  async #segment(attempt: OpenAttempt, attemptId: string, offset: number): Promise<FileHandle> {
    const isInside =
      offset >= attempt.segmentStart && (attempt.segmentEnd === null || offset < attempt.segmentEnd);
    if (attempt.file && isInside) return attempt.file;
    await this.#closeSegment(attempt);
    const directory = spoolDirectory(this.#directory, attemptId);
    try {
      const names = (await readdir(directory)).filter((name) => name.endsWith(".seg")).toSorted();
      const index = names.findLastIndex((name) => Number.parseInt(name, 10) <= offset);
      const name = names[index];
      if (name === undefined) {
        throw new AppError(
          "data_loss",
          `read spool of attempt ${attemptId}: byte ${offset} is not there any more`,
        );
      }
      const next = names[index + 1];
      attempt.segmentStart = Number.parseInt(name, 10);
      attempt.segmentEnd = next === undefined ? null : Number.parseInt(next, 10);
      const file = await open(join(directory, name), "r");
      if (attempt.isForgotten) {
        await file.close();
        throw new AppError("not_found", `read spool of attempt ${attemptId}: it was forgotten`);
      }
      attempt.file = file;
      return file;
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") throw error;
      throw new AppError("not_found", `read spool of attempt ${attemptId}: it was removed`, { cause: error });
    }
  }
}

/** A short log is read into memory of its own size: most jobs say little. */
function bufferFor(attempt: OpenAttempt, wantedBytes: number): Buffer {
  if (wantedBytes < READ_AHEAD_BYTES) return Buffer.allocUnsafe(wantedBytes);
  return (attempt.buffer ??= Buffer.allocUnsafeSlow(READ_AHEAD_BYTES));
}

function aheadFrom(attempt: OpenAttempt, offset: number): Buffer {
  const start = offset - attempt.aheadStart;
  if (start < 0 || start >= attempt.ahead.length) return Buffer.alloc(0);
  return attempt.ahead.subarray(start);
}
