/**
 * Reads the log of an attempt while it lies in its file.
 *
 * The file is held only during a call, so an idle reader costs no descriptor. Once the log is
 * sealed the file is gone, and every call answers null: go on in the sealed log at the same place.
 */

import { AppError, errorMessage, systemErrorCode } from "../../../base/errors.ts";
import {
  MAX_RECORD_DATA_BYTES,
  MalformedLogError,
  RECORD_OVERHEAD_BYTES,
  RECORD_TRAILER_BYTES,
} from "../../../core/log-record.ts";
import { MAX_RECORD_BYTES, recordBefore, scanRecords } from "../record-scan.ts";
import type { AttemptLog } from "./attempt-log.ts";
import { readFully } from "./file-calls.ts";
import type { OpenFiles } from "./open-files.ts";

const BACKWARD_BYTES = 256 * 1024;
const SCAN_BYTES = 1024 * 1024;

export class RawSource {
  readonly #attempt: AttemptLog;
  readonly #files: OpenFiles;

  constructor(attempt: AttemptLog, files: OpenFiles) {
    this.#attempt = attempt;
    this.#files = files;
  }

  async read(start: number, maxBytes: number): Promise<Uint8Array | null> {
    const bytes = Math.min(maxBytes, this.#attempt.durable - start);
    if (this.#attempt.sealed) return null;
    if (bytes <= 0) return new Uint8Array(0);
    let read: Buffer;
    try {
      read = await this.#files.use(this.#attempt.path, (fd) => readFully(fd, start, bytes));
    } catch (error) {
      // The file may have been removed because the log was sealed in between.
      if (this.#isSealedByNow()) return null;
      throw this.#failure(systemErrorCode(error) === "ENOENT" ? "data_loss" : "unavailable", error);
    }
    if (read.byteLength === bytes) return read;
    throw this.#failure("data_loss", `its file ends at byte ${start + read.byteLength}`);
  }

  #failure(code: "data_loss" | "unavailable", cause: unknown): AppError {
    const message = `read log of attempt ${this.#attempt.attemptId}: ${errorMessage(cause)}`;
    return new AppError(code, message, { cause });
  }

  readBefore(end: number): Promise<Uint8Array | null> {
    const start = Math.max(0, end - BACKWARD_BYTES);
    return this.read(start, end - start);
  }

  /**
   * Looks at the record before `offset` only: a walk from the beginning would be exact, and would
   * read the whole log. Someone who makes a job write what looks like a record into its own output,
   * and asks for the place right behind it, reads their own invention.
   */
  async isBoundary(offset: number): Promise<boolean | null> {
    if (offset === 0 || offset === this.#attempt.knownBoundary) return true;
    if (offset < RECORD_OVERHEAD_BYTES) return false;
    const start = Math.max(0, offset - MAX_RECORD_BYTES);
    const bytes = await this.#trailerAndRecord(start, offset);
    if (bytes === null) return null;
    return endsWithRecord(bytes);
  }

  /** The trailer first: a record is much shorter than it may be. */
  async #trailerAndRecord(start: number, end: number): Promise<Uint8Array | null> {
    const trailer = await this.read(end - RECORD_TRAILER_BYTES, RECORD_TRAILER_BYTES);
    if (trailer === null || trailer.byteLength < RECORD_TRAILER_BYTES) return trailer;
    const size = new DataView(trailer.buffer, trailer.byteOffset).getUint32(0, true);
    if (size > MAX_RECORD_DATA_BYTES) return trailer;
    const recordStart = Math.max(start, end - size - RECORD_OVERHEAD_BYTES);
    return this.read(recordStart, end - recordStart);
  }

  /** Blocks end where they like, so the end of a log that grows may be inside a record. */
  async boundaryBefore(end: number): Promise<number | null> {
    const isBoundary = await this.isBoundary(end);
    if (isBoundary !== false) return isBoundary === null ? null : end;
    const known = this.#attempt.knownBoundary;
    let place = known <= end ? known : 0;
    for (;;) {
      const bytes = await this.read(place, Math.min(SCAN_BYTES, end - place));
      if (bytes === null) return null;
      const scan = scanRecords(bytes, bytes.byteLength);
      if (scan.isMalformed) throw new MalformedLogError(place + scan.end, "no record begins here");
      place += scan.end;
      this.#attempt.knownBoundary = Math.max(this.#attempt.knownBoundary, place);
      if (scan.end === 0) return place;
    }
  }

  #isSealedByNow(): boolean {
    return this.#attempt.sealed !== null;
  }
}

function endsWithRecord(bytes: Uint8Array): boolean {
  try {
    return recordBefore(bytes, bytes.byteLength) !== null;
  } catch (error) {
    if (error instanceof MalformedLogError) return false;
    throw error;
  }
}
