/**
 * Moves the log of an ended attempt into the blob store.
 *
 * In this order: compress and put the blob, store its place, remove the file. Whatever happens in
 * between, the next try finds either a whole file or the place of a whole blob, and begins or goes
 * on there. Appends to other logs go on meanwhile.
 */

import { rm } from "node:fs/promises";
import type { Clock } from "../../../base/clock.ts";
import { AppError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { gapRecord, type LogGap } from "../../../core/log-gap.ts";
import { MalformedLogError, encodeRecord, type LogRecord } from "../../../core/log-record.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { SealedLog, Store } from "../../../storage/store.ts";
import { Gate } from "../gate.ts";
import type { AttemptLog } from "../raw/attempt-log.ts";
import { sealedLogKey } from "../raw/attempt-path.ts";
import type { OpenFiles } from "../raw/open-files.ts";
import { RawSource } from "../raw/raw-source.ts";
import { recordBefore } from "../record-scan.ts";
import { sealChunks } from "./seal-chunks.ts";

/** Small logs mostly wait for the disk, so some may do so side by side. */
const MAX_PARALLEL_SEALS = 8;
/** Over all logs: leaves two of the four threads of Node's pool. */
const MAX_PARALLEL_COMPRESSIONS = 2;

export interface SealerParts {
  store: Pick<Store, "setSealedLog">;
  blobs: BlobStore;
  files: OpenFiles;
  clock: Clock;
  log: Logger;
  /** Ends seals between two frames; they are begun again after the next start. */
  signal: AbortSignal;
}

export class Sealer {
  readonly #parts: SealerParts;
  readonly #sealing = new Gate(MAX_PARALLEL_SEALS);
  readonly #compressing = new Gate(MAX_PARALLEL_COMPRESSIONS);

  constructor(parts: SealerParts) {
    this.#parts = parts;
  }

  /**
   * Ends and seals a log. `gap` becomes its last record, for people to see what is missing.
   * Rejects, with the log unsealed and whole, if disk, blob store or database fail.
   */
  async seal(attempt: AttemptLog, gap: LogGap | null): Promise<SealedLog> {
    if (attempt.sealed) return attempt.sealed;
    if (gap !== null && !attempt.isFinal) await this.#addGap(attempt, gap);
    while (attempt.accepted > attempt.durable) await attempt.settled();
    attempt.end();
    const sealed = await this.#sealing.run(() => this.#put(attempt));
    await this.#parts.store.setSealedLog(sealed);
    const hadFile = attempt.durable > 0;
    attempt.markSealed(sealed);
    if (hadFile) await rm(attempt.path, { force: true });
    return sealed;
  }

  async #put(attempt: AttemptLog): Promise<SealedLog> {
    const { attemptId, durable: length } = attempt;
    const empty: SealedLog = { attemptId, logBytes: 0, blobKey: null, digest: null };
    if (length === 0) return empty;
    const blobKey = sealedLogKey(attemptId);
    let logBytes = 0;
    const { sha256 } = await this.#parts.blobs.put(
      blobKey,
      sealChunks({
        attemptId,
        length,
        read: (start, bytes) => this.#read(attempt, start, bytes),
        compressing: this.#compressing,
        signal: this.#parts.signal,
        onLength: (whole) => (logBytes = whole),
      }),
    );
    if (logBytes < length) {
      const fields = { attemptId, length, logBytes };
      this.#parts.log.warn(fields, "sealed a log without its last record, which is not whole");
    }
    if (logBytes > 0) return { attemptId, logBytes, blobKey, digest: sha256 };
    await this.#parts.blobs.remove(blobKey);
    return empty;
  }

  async #read(attempt: AttemptLog, start: number, bytes: number): Promise<Uint8Array> {
    const read = await new RawSource(attempt, this.#parts.files).read(start, bytes);
    if (read) return read;
    throw new AppError("internal", `seal log of attempt ${attempt.attemptId}: it is being sealed already`);
  }

  async #addGap(attempt: AttemptLog, gap: LogGap): Promise<void> {
    while (attempt.accepted > attempt.durable) await attempt.settled();
    const raw = new RawSource(attempt, this.#parts.files);
    const record = gapRecord(gap, this.#parts.clock.nowMs());
    try {
      const boundary = (await raw.boundaryBefore(attempt.durable)) ?? attempt.durable;
      if (boundary < attempt.durable) await attempt.cutBack(boundary);
      if (await endsWith(raw, { boundary, record })) return;
    } catch (error) {
      if (!(error instanceof MalformedLogError)) throw error;
      // Nobody can read to the end of it, so a gap there would help nobody.
      this.#parts.log.error({ err: error, attemptId: attempt.attemptId }, "log is malformed");
      return;
    }
    attempt.accept(attempt.accepted, encodeRecord(record));
    await attempt.settled();
  }
}

/** Whether an earlier try has added the record and failed afterwards. */
async function endsWith(raw: RawSource, look: { boundary: number; record: LogRecord }): Promise<boolean> {
  if (look.boundary === 0) return false;
  const bytes = await raw.readBefore(look.boundary);
  const last = bytes && recordBefore(bytes, bytes.byteLength);
  if (!last) return false;
  const { stream, data } = last.record;
  return stream === look.record.stream && Buffer.compare(data, look.record.data) === 0;
}
