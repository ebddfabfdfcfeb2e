/**
 * The log of one attempt on the disk of the worker, see protocol/spool-layout.ts.
 *
 * Records that arrive while a write is under way go out together with the next one. `isFull` asks
 * the reader of the pipes to stop: when too much waits for the disk, or when the server has not
 * acknowledged so much that the disk would fill. A disk that refuses is tried again until it takes
 * the bytes; only `close` gives up, and says how much it gave up.
 */

import { mkdir, open, rm, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { SEGMENT_BYTES, segmentName } from "../../protocol/spool-layout.ts";
import { releaseChunk, type LogChunk } from "./log-chunks.ts";

/** Bytes that may wait for the disk before the pipes are not read any more. */
const MAX_QUEUED_BYTES = 1024 * 1024;
/** Buffers in one writev; the kernel takes 1024 (IOV_MAX). */
const MAX_WRITE_CHUNKS = 512;
const RETRY_WRITE_MS = 500;
/** How long the end of an attempt waits for a disk that refuses. */
export const CLOSE_PATIENCE_MS = 15_000;

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
  /** Once closing: when a failing write is given up. */
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

  /** Resolves with the bytes that the disk did not take: 0 unless it refused for long. */
  async close(): Promise<number> {
    this.#giveUpAtMs = this.#options.clock.monotonicMs() + CLOSE_PATIENCE_MS;
    while (this.#writing) await this.#writing;
    await this.#closeSegment();
    this.#removeAcknowledged();
    return this.#lostBytes;
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
    const { clock, log } = this.#options;
    for (;;) {
      try {
        this.#file ??= await this.#openSegment();
        await writeAll(this.#file, group, this.#end - this.#segmentStart);
        return true;
      } catch (error) {
        log.warn({ err: error, directory: this.#options.directory }, "log spool write failed");
        if (clock.monotonicMs() >= this.#giveUpAtMs) break;
        await clock.sleep(RETRY_WRITE_MS);
      }
    }
    this.#lostBytes = this.#queuedBytes;
    this.#queuedBytes = 0;
    this.#queue.splice(0).forEach(releaseChunk);
    return false;
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
    this.#closed.push({ start: this.#segmentStart, end: this.#end });
    this.#segmentStart = this.#end;
    await file.close();
    this.#removeAcknowledged();
  }

  #removeAcknowledged(): void {
    for (let first = this.#closed[0]; first && first.end <= this.#acked; first = this.#closed[0]) {
      this.#closed.shift();
      const path = join(this.#options.directory, segmentName(first.start));
      unlink(path).catch((error: unknown) => {
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
