/**
 * The pipes through which a job's output comes.
 *
 * They are named pipes, not what `spawn` makes by itself: that is a socket, and a job that opens
 * /dev/stderr again (`echo problem > /dev/stderr`) would fail on it. An attempt keeps its two
 * pipes over all steps. The runner holds the writing end open too, so there is no end-of-file to
 * wait for: when the processes are gone, `drain` takes what is left and is done at once.
 */

import { execFile } from "node:child_process";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { mkdir, rm, unlink } from "node:fs/promises";
import { Socket, type SocketConstructorOpts } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { AppError, systemErrorCode } from "../base/errors.ts";
import { MAX_RECORD_DATA_BYTES } from "../core/log-record.ts";

/** Pipes made by one call of mkfifo. */
const PIPES_PER_CALL = 32;
/** More than a pipe can hold by default (pipe(7): pipe-max-size is 1 MiB). */
const MAX_DRAIN_BYTES = 2 * 1024 * 1024;

/** All pipes are read into here, one after another, and copied on. */
const readBuffer = Buffer.allocUnsafeSlow(MAX_RECORD_DATA_BYTES);

/** Named pipes that are used again and again: making one costs a process. */
export class PipePool {
  readonly #directory: string;
  readonly #idle: string[] = [];
  #made = 0;
  #making: Promise<void> | null = null;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @throws AppError `internal` if pipes cannot be made. */
  async open(onChunk: (chunk: Buffer) => void): Promise<OutputPipe> {
    for (;;) {
      const path = this.#idle.pop();
      if (path !== undefined) return new OutputPipe(path, { onChunk, onClosed: (reusable) => this.#give(path, reusable) });
      this.#making ??= this.#make().finally(() => (this.#making = null));
      await this.#making;
    }
  }

  async close(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #make(): Promise<void> {
    const paths = Array.from({ length: PIPES_PER_CALL }, (_, index) => join(this.#directory, String(this.#made + index)));
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await promisify(execFile)("mkfifo", ["-m", "600", ...paths]);
    } catch (cause) {
      throw new AppError("internal", `make named pipes in ${this.#directory} with mkfifo`, { cause });
    }
    this.#made += PIPES_PER_CALL;
    this.#idle.push(...paths);
  }

  /** A pipe that somebody may still write to must not serve another attempt. */
  #give(path: string, reusable: boolean): void {
    if (reusable) {
      this.#idle.push(path);
      return;
    }
    unlink(path).catch(() => {
      // The directory is removed with the runner; the file is only a name.
    });
  }
}

export class OutputPipe {
  /** For the child: its stdout or stderr. */
  readonly writeFd: number;
  readonly #readFd: number;
  readonly #socket: Socket;
  readonly #onChunk: (chunk: Buffer) => void;
  #closed = false;

  constructor(path: string, options: { onChunk: (chunk: Buffer) => void; onClosed: (reusable: boolean) => void }) {
    this.#onChunk = options.onChunk;
    this.#readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      this.writeFd = openSync(path, constants.O_WRONLY);
    } catch (error) {
      closeSync(this.#readFd);
      throw error;
    }
    let reusable = false;
    // `onread` is documented for connect() and works for any socket; the types leave it out here.
    const onread = { buffer: readBuffer, callback: (count: number) => this.#read(count) };
    this.#socket = new Socket({ fd: this.#readFd, readable: true, writable: false, onread } as SocketConstructorOpts);
    this.#socket.on("error", () => {
      // Reading a pipe that is open at both ends does not fail; `drain` reads what may be left.
    });
    this.#socket.on("close", () => options.onClosed(reusable));
    this.#setReusable = (value) => (reusable = value);
  }

  readonly #setReusable: (value: boolean) => void;

  pause(): void {
    if (!this.#closed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#closed) this.#socket.resume();
  }

  /** Hands on, at once, all that is in the pipe. */
  drain(): void {
    this.#readRest();
  }

  /** Drains and closes. The processes of the attempt must be gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.writeFd);
    this.#setReusable(this.#readRest());
    this.#socket.destroy();
  }

  #read(count: number): boolean {
    this.#onChunk(readBuffer.subarray(0, count));
    return true;
  }

  /** True if nobody holds the writing end open. */
  #readRest(): boolean {
    for (let total = 0; total < MAX_DRAIN_BYTES; ) {
      try {
        const count = readSync(this.#readFd, readBuffer, 0, readBuffer.byteLength, null);
        if (count === 0) return true;
        total += count;
        this.#onChunk(readBuffer.subarray(0, count));
      } catch (error) {
        if (systemErrorCode(error) === "EAGAIN") return false;
        throw error;
      }
    }
    return false;
  }
}
