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
import { commandOf } from "../../base/brought-programs.ts";
import { AppError, systemErrorCode } from "../../base/errors.ts";
import { MAX_RECORD_DATA_BYTES } from "../../core/log-record.ts";

/** Pipes made by one call of mkfifo. */
const PIPES_PER_CALL = 32;
/** Pipes that are kept open for the next attempts. */
const MAX_IDLE = 256;
/** More than a pipe can hold by default (pipe(7): pipe-max-size is 1 MiB). */
const MAX_DRAIN_BYTES = 2 * 1024 * 1024;

/** All pipes are read into here, one after another, and copied on. */
const readBuffer = Buffer.allocUnsafeSlow(MAX_RECORD_DATA_BYTES);

/** Pipes that are used again and again: making one costs a process, opening one a dozen system calls. */
export class PipePool {
  readonly #directory: string;
  readonly #paths: string[] = [];
  readonly #idle: OutputPipe[] = [];
  #made = 0;
  #making: Promise<void> | null = null;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @throws AppError `internal` if pipes cannot be made. */
  async open(onChunk: (chunk: Buffer) => void): Promise<OutputPipe> {
    for (;;) {
      const pipe = this.#idle.pop() ?? this.#openNew();
      if (pipe !== null) {
        pipe.begin(onChunk);
        return pipe;
      }
      this.#making ??= this.#make().finally(() => (this.#making = null));
      await this.#making;
    }
  }

  /** Takes all that is left in a pipe and keeps it. The processes of the attempt must be gone. */
  release(pipe: OutputPipe): void {
    if (pipe.end() && this.#idle.length < MAX_IDLE) {
      this.#idle.push(pipe);
      return;
    }
    pipe.close();
    // Somebody may still write to it, so nobody else may have it.
    unlink(pipe.path).catch(() => {
      // The directory is removed with the runner; the file is only a name.
    });
  }

  async close(): Promise<void> {
    for (const pipe of this.#idle.splice(0)) pipe.close();
    this.#paths.splice(0);
    try {
      await rm(this.#directory, { recursive: true, force: true });
    } catch (error) {
      // It may be a file system of its own (providers/docker/container.ts), which goes with its container.
      if (systemErrorCode(error) !== "EBUSY") throw error;
    }
  }

  #openNew(): OutputPipe | null {
    const path = this.#paths.pop();
    return path === undefined ? null : new OutputPipe(path);
  }

  async #make(): Promise<void> {
    const paths = Array.from({ length: PIPES_PER_CALL }, (_, index) =>
      join(this.#directory, String(this.#made + index)),
    );
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      const mkfifo = commandOf("mkfifo");
      await promisify(execFile)(mkfifo.file, [...mkfifo.args, "-m", "600", ...paths]);
    } catch (cause) {
      throw new AppError("internal", `make named pipes in ${this.#directory} with mkfifo`, { cause });
    }
    this.#made += PIPES_PER_CALL;
    this.#paths.push(...paths);
  }
}

export class OutputPipe {
  readonly path: string;
  readonly #readFd: number;
  readonly #socket: Socket;
  #writeFd: number;
  #onChunk: (chunk: Buffer) => void = () => {};
  #isInUse = false;

  constructor(path: string) {
    this.path = path;
    this.#readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      this.#writeFd = openSync(path, constants.O_WRONLY);
    } catch (error) {
      closeSync(this.#readFd);
      throw error;
    }
    // `onread` is documented for connect() and works for any socket; the types leave it out here.
    const onread = { buffer: readBuffer, callback: (count: number) => this.#read(count) };
    this.#socket = new Socket({
      fd: this.#readFd,
      readable: true,
      writable: false,
      onread,
    } as SocketConstructorOpts);
    this.#socket.on("error", () => {
      // Reading a pipe that is open at both ends does not fail; `drain` reads what may be left.
    });
  }

  /** For the child: its stdout or stderr. */
  get writeFd(): number {
    return this.#writeFd;
  }

  begin(onChunk: (chunk: Buffer) => void): void {
    this.#isInUse = true;
    this.#onChunk = onChunk;
    this.#socket.resume();
  }

  pause(): void {
    if (this.#isInUse) this.#socket.pause();
  }

  resume(): void {
    if (this.#isInUse) this.#socket.resume();
  }

  /** Hands on, at once, all that is in the pipe. */
  drain(): void {
    this.#readRest();
  }

  /**
   * Drains. False if somebody else still holds the writing end open, or it cannot be opened again.
   *
   * Without our own writing end the pipe shows its end of file if there is no other. It is opened
   * again in the same turn: the event loop never sees it closed.
   */
  end(): boolean {
    this.#isInUse = false;
    closeSync(this.#writeFd);
    this.#writeFd = -1;
    const isOurs = this.#readRest();
    this.#onChunk = () => {};
    if (!isOurs) return false;
    try {
      this.#writeFd = openSync(this.path, constants.O_WRONLY);
      return true;
    } catch {
      // For want of file descriptors, or the file was removed: the next attempt gets another one.
      return false;
    }
  }

  /** For ever. Only after `end`. */
  close(): void {
    if (this.#writeFd >= 0) closeSync(this.#writeFd);
    this.#writeFd = -1;
    this.#socket.destroy();
  }

  #read(count: number): boolean {
    this.#onChunk(readBuffer.subarray(0, count));
    return true;
  }

  /** True if nobody holds the writing end open. */
  #readRest(): boolean {
    for (let total = 0; total < MAX_DRAIN_BYTES;) {
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
