/**
 * Room on the worker's disk that is kept for the ends of logs.
 *
 * A job that fills the disk with its own files fails, and its last words say why. Its files stay
 * until its log is complete, so without this room both would wait for each other. The room is a file
 * that is removed when a log finds no other place, at its end or for some seconds, and made again when
 * an attempt has gone.
 */

import { randomBytes } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { Logger } from "../../base/log.ts";

/** What may wait in memory for the disk, and what is left in two pipes. */
const RESERVE_BYTES = 2 * 1024 * 1024;

/** Off the main thread, on which jobs start. */
const makeRandomBytes = promisify(randomBytes);

export class DiskReserve {
  readonly #path: string;
  readonly #log: Logger;
  #isThere = false;
  #work: Promise<void> = Promise.resolve();

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** Takes the room, if there is enough and it is not taken yet. */
  renew(): void {
    if (this.#isThere) return;
    this.#isThere = true;
    this.#work = this.#work.then(() => this.#make());
  }

  /** Gives the room to whoever writes next. */
  async release(): Promise<void> {
    if (this.#isThere) {
      this.#isThere = false;
      this.#work = this.#work.then(() => this.#remove());
    }
    await this.#work;
  }

  async #make(): Promise<void> {
    try {
      // Zeros take no room on a file system that compresses.
      await writeFile(this.#path, await makeRandomBytes(RESERVE_BYTES), { mode: 0o600 });
    } catch (error) {
      this.#log.debug({ err: error }, "no room for a reserve on the disk");
      await this.#remove();
      this.#isThere = false;
    }
  }

  async #remove(): Promise<void> {
    try {
      await rm(this.#path, { force: true });
    } catch (error) {
      this.#log.warn({ err: error, path: this.#path }, "removal of the reserve on the disk failed");
    }
  }
}
