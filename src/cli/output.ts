/**
 * Writing to standard output and standard error at the pace of the reader.
 *
 * A reader that went away (`| head`) is no failure: it has seen all that it wanted.
 */

import type { Writable } from "node:stream";
import { systemErrorCode } from "../base/errors.ts";

export class BrokenPipe extends Error {
  constructor() {
    super("the reader of the output has gone");
    this.name = "BrokenPipe";
  }
}

export class Output {
  readonly #stream: Writable;
  #failure: Error | null = null;
  /** Of the writers that wait: one for the log and one for messages at the most. */
  #waiters: (() => void)[] = [];
  readonly #onError = (error: Error): void => {
    const isGone = systemErrorCode(error) === "EPIPE" || systemErrorCode(error) === "ERR_STREAM_DESTROYED";
    this.#failure = isGone ? new BrokenPipe() : error;
    this.#wake();
  };
  readonly #onDrain = (): void => this.#wake();
  readonly #onClose = (): void => {
    this.#failure ??= new BrokenPipe();
    this.#wake();
  };

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on("error", this.#onError);
    stream.on("drain", this.#onDrain);
    stream.on("close", this.#onClose);
  }

  get isBroken(): boolean {
    return this.#failure !== null;
  }

  /**
   * Resolves when the stream takes more.
   *
   * @throws BrokenPipe if nobody reads any more.
   */
  async write(data: string | Uint8Array): Promise<void> {
    this.#check();
    if (data.length === 0 || this.#stream.write(data)) return;
    while (this.#stream.writableNeedDrain && this.#failure === null) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      });
    }
    this.#check();
  }

  /** For short texts, such as a line of progress: does not wait, and drops the text if it cannot be shown. */
  writeNow(text: string): void {
    if (this.#failure === null) this.#stream.write(text);
  }

  /** Resolves when all that was written is with the operating system, or can never be. */
  async flush(): Promise<void> {
    if (this.#failure !== null || this.#stream.writableLength === 0) return;
    await new Promise<void>((resolve) => {
      this.#waiters.push(resolve);
      this.#stream.write("", () => resolve());
    });
  }

  /** Lets go of the stream, which stays open: it belongs to the process. */
  release(): void {
    this.#stream.off("drain", this.#onDrain);
    this.#stream.off("close", this.#onClose);
    // The error listener stays: an EPIPE may still come, and without a listener it ends the process.
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure;
  }
}
