/**
 * The raw log of one attempt: a file that only grows, and what is on its way into it.
 *
 *     0 ........ durable ........ written ........ accepted
 *       readable   fdatasync soon    in memory
 *
 * One writev at a time takes everything that waits; the sync queue then makes it durable together
 * with whatever was written until its turn came. Only durable bytes are acknowledged and read.
 *
 * If writing or syncing fails, everything that is not durable is forgotten and cut off the file,
 * its callers are told, and the log is as if the bytes had never come: the sender has them still.
 */

import { dirname } from "node:path";
import { AppError, errorMessage, systemErrorCode } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import type { SealedLog } from "../../../storage/store.ts";
import type { DiskHealth } from "./disk-health.ts";
import { syncDirectory, syncFile, truncateFile, writeFully } from "./file-calls.ts";
import type { OpenFiles } from "./open-files.ts";
import type { PendingBudget } from "./pending-budget.ts";
import type { Syncable, SyncQueue } from "./sync-queue.ts";

/** Bytes of one log that may be accepted and not yet durable, give or take one block. */
export const MAX_PENDING_LOG_BYTES = 4 * 1024 * 1024;
/** Bytes in one append: well above a block of the worker link. */
export const MAX_APPEND_BYTES = 1024 * 1024;
/** Pieces in one writev; the system allows 1024. */
const MAX_WRITE_PIECES = 512;
/** Bytes in one writev, so that syncing can go on beside the next one. */
const MAX_WRITE_BYTES = 1024 * 1024;

/** Told what becomes of the bytes that were accepted. Must not throw. */
export interface AppendListener {
  /** The log is on disk up to here. Cumulative; not more often than it is synced. */
  onDurable(length: number): void;
  /** What was accepted beyond `length` is lost and must be sent again. */
  onFailure(error: AppError, length: number): void;
}

export type AppendOutcome =
  | { ok: true }
  /**
   * `length` is what has been accepted.
   * `gap`: bytes before these are missing; send from `length`.
   * `full`: too much is not yet on disk; the same call will do after `room`.
   * `ended`: the log is complete without these bytes.
   */
  | { ok: false; refusal: "gap" | "ended"; length: number }
  | { ok: false; refusal: "full"; length: number };

export interface AttemptLogParts {
  files: OpenFiles;
  syncs: SyncQueue;
  budget: PendingBudget;
  health: DiskHealth;
  log: Logger;
}

export class AttemptLog implements Syncable {
  readonly attemptId: string;
  readonly path: string;
  readonly listeners = new Set<AppendListener>();
  sealed: SealedLog | null = null;
  /** A place that is known to be the end of a record, for finding later ones without starting over. */
  knownBoundary = 0;
  readonly #parts: AttemptLogParts;
  readonly #waiters: { length: number; resolve: () => void; reject: (error: AppError) => void }[] = [];
  readonly #onChange = new Set<() => void>();
  #queue: Uint8Array[] = [];
  #accepted: number;
  #written: number;
  #durable: number;
  #held: { fd: Promise<number>; release: () => void } | null = null;
  #isWriting = false;
  #isSyncing = false;
  #isEnded = false;
  /** The name of the file is not known to be on disk. */
  #isNew: boolean;
  #failure: AppError | null = null;

  constructor(options: { attemptId: string; path: string; length: number; parts: AttemptLogParts }) {
    this.attemptId = options.attemptId;
    this.path = options.path;
    this.#parts = options.parts;
    this.#accepted = this.#written = this.#durable = options.length;
    this.#isNew = options.length === 0;
  }

  get durable(): number {
    return this.#durable;
  }

  get accepted(): number {
    return this.#accepted;
  }

  get isFinal(): boolean {
    return this.#isEnded || this.sealed !== null;
  }

  /** Nothing would be lost if this object were made anew from what is on disk. */
  get isIdle(): boolean {
    return this.listeners.size === 0 && this.#accepted === this.#durable && !this.#isBusy;
  }

  get #isBusy(): boolean {
    return this.#isWriting || this.#isSyncing || this.#failure !== null;
  }

  /** Takes bytes in; `data` must not be changed afterwards. Bytes that are known are skipped. */
  accept(offset: number, data: Uint8Array): AppendOutcome {
    this.#check(offset, data);
    const end = offset + data.byteLength;
    const length = this.#accepted;
    if (end <= length) return { ok: true };
    if (this.isFinal) return { ok: false, refusal: "ended", length };
    if (this.#isFull) return { ok: false, refusal: "full", length };
    if (offset > length) return { ok: false, refusal: "gap", length };
    this.#queue.push(offset === length ? data : data.subarray(length - offset));
    this.#parts.budget.add(end - length);
    this.#accepted = end;
    if (!this.#isWriting) void this.#writeQueue();
    return { ok: true };
  }

  #check(offset: number, data: Uint8Array): void {
    const isPlace = Number.isSafeInteger(offset) && offset >= 0;
    if (isPlace && data.byteLength <= MAX_APPEND_BYTES) return;
    const what = `${data.byteLength} bytes at ${offset}`;
    throw new AppError(
      "invalid_argument",
      `append ${what} to log of attempt ${this.attemptId}: not possible`,
    );
  }

  get #isFull(): boolean {
    const pendingBytes = this.#accepted - this.#durable;
    return this.#failure !== null || pendingBytes >= MAX_PENDING_LOG_BYTES || this.#parts.budget.isFull;
  }

  /** Resolves when `accept` may take bytes again. */
  async room(): Promise<void> {
    while (this.#isFull && !this.isFinal) {
      const forget: (() => void)[] = [];
      await new Promise<void>((resolve) => {
        forget.push(this.onceChanged(resolve), this.#parts.budget.onceFree(resolve));
      });
      for (const run of forget) run();
    }
  }

  /** Resolves when everything accepted so far is on disk; rejects if it could not be put there. */
  settled(): Promise<void> {
    if (this.#durable >= this.#accepted) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ length: this.#accepted, resolve, reject });
    });
  }

  /** Takes the beginning of a record off the end. Only while nothing is on its way. */
  async cutBack(length: number): Promise<void> {
    await this.#parts.files.use(this.path, async (fd) => {
      await truncateFile(fd, length);
      await syncFile(fd);
    });
    this.#accepted = this.#written = this.#durable = length;
  }

  /** Accepts nothing from now on. */
  end(): void {
    this.#isEnded = true;
    this.changed();
  }

  /** The log is in the blob store; the file is of no more use. */
  markSealed(sealed: SealedLog): void {
    this.sealed = sealed;
    this.#accepted = this.#written = this.#durable = sealed.logBytes;
    this.#parts.files.drop(this.path);
    this.changed();
  }

  /** Calls `run` once, at the next change of anything that can be seen from outside. */
  onceChanged(run: () => void): () => void {
    this.#onChange.add(run);
    return () => this.#onChange.delete(run);
  }

  changed(): void {
    if (this.#onChange.size === 0) return;
    const woken = [...this.#onChange];
    this.#onChange.clear();
    for (const run of woken) run();
  }

  async #writeQueue(): Promise<void> {
    this.#isWriting = true;
    try {
      this.#held ??= this.#parts.files.hold(this.path, { create: true });
      const fd = await this.#held.fd;
      while (this.#queue.length > 0 && this.#failure === null) {
        const { pieces, bytes } = this.#takePieces();
        await writeFully(fd, pieces, this.#written);
        this.#written += bytes;
        this.#parts.syncs.add(this);
      }
    } catch (error) {
      this.#fail("write", error);
    }
    this.#isWriting = false;
    await this.#afterWork();
  }

  #takePieces(): { pieces: Uint8Array[]; bytes: number } {
    let bytes = 0;
    let count = 0;
    for (const piece of this.#queue) {
      if (count > 0 && (count === MAX_WRITE_PIECES || bytes + piece.byteLength > MAX_WRITE_BYTES)) break;
      bytes += piece.byteLength;
      count += 1;
    }
    return { pieces: this.#queue.splice(0, count), bytes };
  }

  /** Called by the sync queue, never twice at the same time. */
  async sync(): Promise<void> {
    const target = this.#written;
    if (target <= this.#durable || this.#failure !== null || this.#held === null) return;
    this.#isSyncing = true;
    let isSynced = false;
    try {
      const synced = syncFile(await this.#held.fd);
      await Promise.all(this.#isNew ? [synced, syncDirectory(dirname(this.path))] : [synced]);
      this.#isNew = false;
      isSynced = true;
    } catch (error) {
      this.#fail("sync", error);
    }
    // A listener that throws is a bug and must not pass for a disk that fails.
    if (isSynced) {
      this.#parts.health.took();
      this.#advance(target);
    }
    this.#isSyncing = false;
    await this.#afterWork();
  }

  #advance(durable: number): void {
    const bytes = durable - this.#durable;
    this.#durable = durable;
    while (this.#waiters[0] && this.#waiters[0].length <= durable) this.#waiters.shift()?.resolve();
    for (const listener of this.listeners) listener.onDurable(durable);
    this.changed();
    this.#parts.budget.free(bytes);
  }

  #fail(verb: string, cause: unknown): void {
    if (this.#failure !== null) return;
    const code = NO_ROOM.has(systemErrorCode(cause) ?? "") ? "resource_exhausted" : "unavailable";
    const message = `${verb} log of attempt ${this.attemptId}: ${errorMessage(cause)}`;
    this.#failure = new AppError(code, message, { cause });
    this.#parts.health.refused(this.#failure);
    this.#queue = [];
  }

  async #afterWork(): Promise<void> {
    if (this.#isWriting || this.#isSyncing) return;
    if (this.#failure !== null) await this.#forgetPending(this.#failure);
    if (this.#accepted === this.#durable && !this.#isBusy) {
      this.#held?.release();
      this.#held = null;
    }
  }

  /** Cuts the file back to what was acknowledged, so that the next bytes go to the right place. */
  async #forgetPending(failure: AppError): Promise<void> {
    const { log, budget, files } = this.#parts;
    // Nothing was written to a file that could not be opened.
    const fd = await this.#held?.fd.catch(() => null);
    try {
      if (typeof fd === "number") await truncateFile(fd, this.#durable);
    } catch (error) {
      // What stands there too much is overwritten by the bytes that come again: places are absolute.
      log.error({ err: error, attemptId: this.attemptId }, "cutting back a log failed");
    }
    this.#held?.release();
    this.#held = null;
    files.drop(this.path);
    const lostBytes = this.#accepted - this.#durable;
    this.#accepted = this.#written = this.#durable;
    this.#failure = null;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(failure);
    for (const listener of this.listeners) listener.onFailure(failure, this.#durable);
    this.changed();
    budget.free(lostBytes);
  }
}

/** EFBIG comes from a limit on file sizes, which is as good as a full disk. */
const NO_ROOM: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
