/**
 * Room on the worker's disk that is kept for logs.
 *
 * A job that fills the disk with its own files fails, and its last words say why. Its files stay
 * until its log is complete, so without this room both would wait for each other. The room is two
 * files: one is removed when a log finds no other place for some seconds, and a job that goes on to
 * fill the disk may take its room; the other one only at the end of a log, when its job writes
 * nothing any more. Both are made again when an attempt has gone.
 */

import { randomBytes } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Logger } from "../../base/log.ts";

/** Of each file: what may wait in memory for the disk, and what is left in two pipes. */
const RESERVE_BYTES = 2 * 1024 * 1024;

/** Off the main thread, on which jobs start. */
const makeRandomBytes = promisify(randomBytes);

export class DiskReserve {
  readonly #forEnds: KeptRoom;
  readonly #forWaiting: KeptRoom;

  constructor(directory: string, log: Logger) {
    this.#forEnds = new KeptRoom(join(directory, "reserve"), log);
    this.#forWaiting = new KeptRoom(join(directory, "reserve-waiting"), log);
  }

  /** Takes the room, if there is enough and it is not taken yet. */
  renew(): void {
    this.#forEnds.renew();
    this.#forWaiting.renew();
  }

  /** Gives room to whoever writes next: all of it at the end of a log. */
  async release(isEnd: boolean): Promise<void> {
    await this.#forWaiting.release();
    if (isEnd) await this.#forEnds.release();
  }
}

class KeptRoom {
  readonly #path: string;
  readonly #log: Logger;
  #isThere = false;
  #work: Promise<void> = Promise.resolve();

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  renew(): void {
    if (this.#isThere) return;
    this.#isThere = true;
    this.#work = this.#work.then(() => this.#make());
  }

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
