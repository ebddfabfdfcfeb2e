/**
 * The descriptors of the log store: opened when needed, kept for the next use, closed when there are
 * too many, least recently used first.
 *
 * A file in use is never closed, so the limit may be passed while more files than that are in use at
 * the same moment; it holds again as they are released.
 */

import { constants } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { Logger } from "../../../base/log.ts";
import type { Service } from "../../../base/service.ts";
import { closeFile, openFile, syncDirectory } from "./file-calls.ts";

interface OpenFile {
  fd: Promise<number>;
  users: number;
  /** Its name is gone from the disk: close it with its last user. */
  isDropped: boolean;
}

export class OpenFiles implements Service {
  readonly #limit: number;
  readonly #log: Logger;
  /** Least recently used first. */
  readonly #files = new Map<string, OpenFile>();
  /** All that are not closed yet. */
  readonly #open = new Set<OpenFile>();
  /** Directories of files that were made, each when its name is on disk. At most 256. */
  readonly #directories = new Map<string, Promise<void>>();
  #onAllClosed: () => void = () => {};

  constructor(options: { limit: number; log: Logger }) {
    this.#limit = options.limit;
    this.#log = options.log;
  }

  /** Runs `work` with the descriptor of an existing file. */
  async use<T>(path: string, work: (fd: number) => Promise<T>): Promise<T> {
    const held = this.hold(path, { create: false });
    try {
      return await work(await held.fd);
    } finally {
      held.release();
    }
  }

  /** Keeps a file open until `release` is called, which must happen also if `fd` rejects. */
  hold(path: string, options: { create: boolean }): { fd: Promise<number>; release: () => void } {
    const file = this.#files.get(path) ?? this.#begin(path, options);
    this.#files.delete(path);
    this.#files.set(path, file);
    file.users += 1;
    this.#trim();
    return { fd: file.fd, release: () => this.#release(file) };
  }

  #begin(path: string, options: { create: boolean }): OpenFile {
    const file: OpenFile = { fd: this.#openFile(path, options), users: 0, isDropped: false };
    this.#open.add(file);
    file.fd.catch(() => {
      // The holder sees the rejection; here it only must not be handed to the next one.
      if (this.#files.get(path) === file) this.#files.delete(path);
      file.isDropped = true;
    });
    return file;
  }

  /** Forgets a file whose name was removed; those who use it go on doing so. */
  drop(path: string): void {
    const file = this.#files.get(path);
    if (!file) return;
    this.#files.delete(path);
    file.isDropped = true;
    if (file.users === 0) void this.#close(file);
  }

  get count(): number {
    return this.#files.size;
  }

  /** Resolves when all files are closed: those in use, when their users have released them. */
  async stop(): Promise<void> {
    for (const path of [...this.#files.keys()]) this.drop(path);
    while (this.#open.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onAllClosed = resolve;
      });
    }
  }

  #release(file: OpenFile): void {
    file.users -= 1;
    if (file.users > 0) return;
    if (file.isDropped) void this.#close(file);
    else this.#trim();
  }

  #trim(): void {
    if (this.#files.size <= this.#limit) return;
    for (const [path, file] of this.#files) {
      if (file.users > 0) continue;
      this.drop(path);
      if (this.#files.size <= this.#limit) return;
    }
  }

  async #openFile(path: string, options: { create: boolean }): Promise<number> {
    if (!options.create) return openFile(path, constants.O_RDWR);
    await this.#makeDirectory(dirname(path));
    return openFile(path, constants.O_RDWR | constants.O_CREAT);
  }

  #makeDirectory(path: string): Promise<void> {
    const making = this.#directories.get(path) ?? makeDurableDirectory(path);
    this.#directories.set(path, making);
    making.catch(() => this.#directories.delete(path));
    return making;
  }

  async #close(file: OpenFile): Promise<void> {
    try {
      await closeFile(await file.fd);
    } catch (error) {
      // If it could not be opened, its user has been told; what was written has been synced.
      this.#log.debug({ err: error }, "closing a log file failed");
    }
    this.#open.delete(file);
    if (this.#open.size === 0) this.#onAllClosed();
  }
}

async function makeDurableDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  await syncDirectory(dirname(path));
}
