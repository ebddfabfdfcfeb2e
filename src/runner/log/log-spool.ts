/**
 * The log of one attempt on the disk of the worker, see protocol/spool-layout.ts.
 *
 * Records that arrive while a write is under way go out together with the next one. `isFull` asks
 * the reader of the pipes to stop: when too much waits for the disk, or when the server has not
 * acknowledged so much that the disk would fill. A disk that refuses is tried again until it takes
 * the bytes; only a log that is closed, and whose attempt is to end, is given up after a while, and
 * a gap in it says how much.
 */

import { mkdir, open, rm, truncate, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { gapRecord } from "../../core/log-gap.ts";
import { encodeRecord, RECORD_OVERHEAD_BYTES } from "../../core/log-record.ts";
import { SEGMENT_BYTES, segmentName } from "../../protocol/spool-layout.ts";
import { releaseChunk, type LogChunk } from "./log-chunks.ts";

/** Bytes that may wait for the disk before the pipes are not read any more. */
const MAX_QUEUED_BYTES = 1024 * 1024;
/** Buffers in one writev; the kernel takes 1024 (IOV_MAX). */
const MAX_WRITE_CHUNKS = 512;
const RETRY_WRITE_MS = 500;
/**
 * How long a disk refuses log before the job gets room that was kept for such waits. A job may have
 * filled the disk with files that it keeps; its log, which it waits for, goes through that room then.
 * What filled it has mostly failed by this time, and does not fill the room, too.
 */
const MAKE_ROOM_AFTER_MS = 5_000;
/** How long an attempt that is to end waits for a disk that refuses. */
const CLOSE_PATIENCE_MS = 15_000;

export interface LogSpoolOptions {
  directory: string;
  /** Unacknowledged bytes on disk. */
  limitBytes: number;
  clock: Clock;
  log: Logger;
  /** Called after each write; the bytes below the log's end can be read. */
  onGrow: () => void;
  /** Called when the pipes may be read again after `isFull`. */
  onRoom: () => void;
  /** Gives up room that was kept for logs that wait, or, with true, for the end of a log. */
  makeRoom: (isEnd: boolean) => Promise<void>;
}

export class LogSpool {
  readonly #options: LogSpoolOptions;
  #queue: LogChunk[] = [];
  #queuedBytes = 0;
  #end = 0;
  #acked = 0;
  #full = false;
  #file: FileHandle | null = null;
  /** Of the segment that grows. */
  #segmentStart = 0;
  /** Segments that do not grow any more, oldest first. */
  readonly #closed: { start: number; end: number }[] = [];
  #writing: Promise<void> | null = null;
  #isRefused = false;
  #isClosing = false;
  #isHurried = false;
  /** When a failing write is given up. */
  #giveUpAtMs = Number.POSITIVE_INFINITY;
  #lostBytes = 0;
  #made = false;

  constructor(options: LogSpoolOptions) {
    this.#options = options;
  }

  /** Bytes on disk. */
  get end(): number {
    return this.#end;
  }

  get isFull(): boolean {
    return this.#full;
  }

  append(chunk: LogChunk): void {
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.bytes.byteLength;
    this.#full ||= this.#queuedBytes > MAX_QUEUED_BYTES || this.#unacknowledged() > this.#options.limitBytes;
    this.#writing ??= this.#writeQueue();
  }

  acknowledge(bytes: number): void {
    this.#acked = Math.max(this.#acked, Math.min(bytes, this.#end));
    this.#removeAcknowledged();
    this.#signalRoom();
  }

  /** The attempt is to end: a disk that refuses the rest of its log is not waited for much longer. */
  hurry(): void {
    this.#isHurried = true;
    if (this.#isClosing) this.#limitPatience();
  }

  /** Resolves with the bytes that the disk did not take: 0 unless `hurry` was called. */
  async close(): Promise<number> {
    this.#isClosing = true;
    if (this.#isHurried) this.#limitPatience();
    while (this.#writing) await this.#writing;
    if (this.#lostBytes > 0) await this.#writeGap();
    await this.#closeSegment();
    this.#removeAcknowledged();
    return this.#lostBytes;
  }

  #limitPatience(): void {
    const giveUpAtMs = this.#options.clock.monotonicMs() + CLOSE_PATIENCE_MS;
    this.#giveUpAtMs = Math.min(this.#giveUpAtMs, giveUpAtMs);
  }

  /** Removes all files. Only after `close`. */
  async remove(): Promise<void> {
    if (this.#made) await rm(this.#options.directory, { recursive: true, force: true });
  }

  async #writeQueue(): Promise<void> {
    // Lets chunks of the same turn, such as those of the other pipe, join the first write.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const group = this.#queue.slice(0, MAX_WRITE_CHUNKS);
      if (!(await this.#writeGroup(group))) break;
      this.#queue.splice(0, group.length);
      const bytes = group.reduce((sum, chunk) => sum + chunk.bytes.byteLength, 0);
      group.forEach(releaseChunk);
      this.#queuedBytes -= bytes;
      this.#end += bytes;
      if (this.#end - this.#segmentStart >= SEGMENT_BYTES) await this.#closeSegment();
      this.#options.onGrow();
      this.#signalRoom();
    }
    this.#writing = null;
  }

  /** False if the disk refused until the patience at the close was over. */
  async #writeGroup(group: readonly LogChunk[]): Promise<boolean> {
    const { clock, makeRoom } = this.#options;
    const makeRoomAtMs = clock.monotonicMs() + MAKE_ROOM_AFTER_MS;
    while (!(await this.#tryWrite(group))) {
      if (this.#isClosing || clock.monotonicMs() >= makeRoomAtMs) {
        await makeRoom(this.#isClosing);
        if (await this.#tryWrite(group)) return true;
      }
      if (clock.monotonicMs() >= this.#giveUpAtMs) {
        this.#giveUp();
        return false;
      }
      await clock.sleep(RETRY_WRITE_MS);
    }
    return true;
  }

  async #tryWrite(group: readonly LogChunk[]): Promise<boolean> {
    try {
      this.#file ??= await this.#openSegment();
      await writeAll(this.#file, group, this.#end - this.#segmentStart);
      this.#noteRefusal(null);
      return true;
    } catch (error) {
      this.#noteRefusal(error);
      await this.#cutSegment();
      return false;
    }
  }

  /** Said once for each change, not for each try. */
  #noteRefusal(error: unknown): void {
    const isRefused = error !== null;
    if (isRefused === this.#isRefused) return;
    this.#isRefused = isRefused;
    const { log, directory } = this.#options;
    if (isRefused) log.warn({ err: error, directory }, "the disk refuses log, its job waits");
    else log.info({ directory }, "the disk takes log again");
  }

  #giveUp(): void {
    for (const chunk of this.#queue.splice(0)) {
      this.#lostBytes += chunk.bytes.byteLength - RECORD_OVERHEAD_BYTES;
      releaseChunk(chunk);
    }
    this.#queuedBytes = 0;
  }

  /** So short that the last block of the file mostly has room for it; else only the result says so. */
  async #writeGap(): Promise<void> {
    const gap = { reason: "disk_full", bytes: this.#lostBytes, limitBytes: null } as const;
    const bytes = Buffer.from(encodeRecord(gapRecord(gap, this.#options.clock.nowMs())));
    if (!(await this.#tryWrite([{ bytes, big: null }]))) return;
    this.#end += bytes.byteLength;
    this.#options.onGrow();
  }

  /** Truncates: bytes of a write that failed half way are written again from their place. */
  async #openSegment(): Promise<FileHandle> {
    const { directory } = this.#options;
    if (!this.#made) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      this.#made = true;
    }
    this.#segmentStart = this.#end;
    return await open(join(directory, segmentName(this.#end)), "w", 0o600);
  }

  async #closeSegment(): Promise<void> {
    if (this.#file === null) return;
    const file = this.#file;
    this.#file = null;
    // An empty one is opened again by its name.
    if (this.#end > this.#segmentStart) this.#closed.push({ start: this.#segmentStart, end: this.#end });
    this.#segmentStart = this.#end;
    try {
      await file.close();
    } catch (error) {
      // Its bytes were taken by the system, which is all that a spool needs.
      this.#options.log.warn(
        { err: error, directory: this.#options.directory },
        "closing a log segment failed",
      );
    }
    this.#removeAcknowledged();
  }

  /**
   * Takes what a write that failed has left off the end, so that a gap may stand there. If all the rest
   * is acknowledged, the segment ends: its removal may be what makes room for the next one.
   */
  async #cutSegment(): Promise<void> {
    if (this.#file === null) return;
    try {
      await this.#file.truncate(this.#end - this.#segmentStart);
    } catch (error) {
      // What stands there too much is written over, or nobody reads it.
      this.#options.log.debug(
        { err: error, directory: this.#options.directory },
        "cutting a log segment failed",
      );
    }
    if (this.#acked >= this.#end) await this.#closeSegment();
  }

  #removeAcknowledged(): void {
    for (let first = this.#closed[0]; first && first.end <= this.#acked; first = this.#closed[0]) {
      this.#closed.shift();
      const path = join(this.#options.directory, segmentName(first.start));
      removeSegment(path).catch((error: unknown) => {
        // `remove` takes what is left; until then it only costs room.
        this.#options.log.debug({ err: error, path }, "removal of a log segment failed");
      });
    }
  }

  #unacknowledged(): number {
    return this.#end + this.#queuedBytes - this.#acked;
  }

  #signalRoom(): void {
    if (!this.#full || this.#queuedBytes > MAX_QUEUED_BYTES / 2) return;
    if (this.#unacknowledged() > this.#options.limitBytes) return;
    this.#full = false;
    this.#options.onRoom();
  }
}

/** Emptied first: the agent may still have it open, and would keep its blocks. */
async function removeSegment(path: string): Promise<void> {
  await truncate(path);
  await unlink(path);
}

async function writeAll(file: FileHandle, group: readonly LogChunk[], position: number): Promise<void> {
  let buffers: Buffer[] = group.map(({ bytes }) => bytes);
  let place = position;
  while (buffers.length > 0) {
    const { bytesWritten } = await file.writev(buffers, place);
    place += bytesWritten;
    buffers = dropBytes(buffers, bytesWritten);
  }
}

function dropBytes(buffers: readonly Buffer[], count: number): Buffer[] {
  let left = count;
  let index = 0;
  for (let first = buffers[index]; first && first.byteLength <= left; first = buffers[index]) {
    left -= first.byteLength;
    index += 1;
  }
  const rest = buffers.slice(index);
  if (left > 0 && rest[0]) rest[0] = rest[0].subarray(left);
  return rest;
}
