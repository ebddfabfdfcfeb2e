/**
 * The logs of all attempts: takes them from workers, keeps them, gives them to readers.
 *
 * While an attempt runs, its log is one file in the directory; when it has ended, the log is sealed
 * into the blob store and the file is removed. A place in a log is a number of bytes from its
 * beginning and stays the same through all of this.
 *
 * What may be relied on: bytes that were acknowledged survive a crash; readers see only such bytes;
 * bytes that come twice are stored once; a log is written by one server at a time, which is the
 * caller's to ensure.
 */

import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Service } from "../../base/service.ts";
import { sharedAbortController } from "../../base/shared-abort.ts";
import type { Attempt } from "../../core/job.ts";
import type { LogGap } from "../../core/log-gap.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { SealedLog, Store } from "../../storage/store.ts";
import { AttemptSource } from "./attempt-source.ts";
import { Gate } from "./gate.ts";
import { logEnd } from "./log-end.ts";
import {
  AttemptLog,
  type AppendListener,
  type AppendOutcome,
  type AttemptLogParts,
} from "./raw/attempt-log.ts";
import { SHARDS, attemptLogPath, attemptOfFileName } from "./raw/attempt-path.ts";
import { AttemptSlots, type AttemptSlot } from "./raw/attempt-slots.ts";
import { DiskHealth } from "./raw/disk-health.ts";
import { OpenFiles } from "./raw/open-files.ts";
import { PendingBudget } from "./raw/pending-budget.ts";
import { recoverRawLog } from "./raw/raw-recovery.ts";
import { RawSource } from "./raw/raw-source.ts";
import { SyncQueue } from "./raw/sync-queue.ts";
import { readLog, type LogBatch, type ReadOptions } from "./read-log.ts";
import { RecentResults } from "./sealed/recent-results.ts";
import { openSealedLog, type SealedLog as OpenSealedLog } from "./sealed/sealed-log.ts";
import { Sealer } from "./sealed/sealer.ts";

/** `length` is what is on disk, in every case. */
export type AppendResult =
  | { ok: true; length: number }
  /** `gap`: bytes before these are missing, send from `length`. `ended`: the log is complete. */
  | { ok: false; refusal: "gap" | "ended"; length: number };

/** Appends without a promise for each piece: the listener is told cumulative lengths. */
export interface LogWriter {
  /** What has been accepted: where the next piece begins. */
  readonly length: number;
  /** What is on disk. */
  readonly durable: number;
  /** Takes `data`, which must not be changed afterwards, unless it is refused. */
  append(offset: number, data: Uint8Array): AppendOutcome;
  /** Resolves when an append that was refused as `full` may be tried again. */
  room(): Promise<void>;
  /** The listener is told nothing more. What was accepted is still written. May be called twice. */
  close(): void;
}

export interface LogStore extends Service {
  open(attemptId: string, listener: AppendListener): Promise<LogWriter>;
  /**
   * Resolves when the bytes are on disk, or with a refusal. Waits its turn if too much is under
   * way. Rejects with `resource_exhausted` if the disk is full, or `unavailable` if it fails.
   */
  append(attemptId: string, offset: number, data: Uint8Array): Promise<AppendResult>;
  /** Bytes that are on disk: 0 for an attempt without a log. */
  length(attemptId: string): Promise<number>;
  /**
   * Ends the log as it is and seals it: to be called when the attempt has ended and all of its log
   * has arrived. Followers are done at once. Harmless when repeated; after a failure it is to be
   * tried again, as `sealEnded` does.
   */
  finish(attemptId: string): Promise<SealedLog>;
  /**
   * Finishes the logs of all attempts that have ended, except those whose worker may still send the
   * rest. For a loop: what fails is logged and tried again with the next call.
   */
  sealEnded(): Promise<void>;
  /**
   * The records of a log, in batches of at most 256 KiB, each read when it is asked for.
   *
   * Rejects with `invalid_argument` if `offset` is not the beginning of a record or beyond the end;
   * with `data_loss` if the log is damaged; with `unavailable` when the store stops.
   */
  read(attemptId: string, options: ReadOptions): AsyncIterable<LogBatch>;
  /** Makes followers ask `isEnded` again. */
  wake(attemptId: string): void;
}

export interface LogStoreOptions {
  directory: string;
  blobs: BlobStore;
  store: Pick<Store, "getSealedLog" | "setSealedLog" | "listUnsealed">;
  clock: Clock;
  log: Logger;
  limits?: Partial<LogStoreLimits>;
}

export interface LogStoreLimits {
  /** Open files that are kept while nobody uses them. */
  openFiles: number;
  /** Bytes over all logs that may be accepted and not yet durable. */
  pendingBytes: number;
  /** How long after the end of an attempt the rest of its log is awaited from its worker. */
  missingLogWaitMs: number;
  /** Decompressed frames that are kept, of about 1 MiB each. */
  frames: number;
}

const DEFAULT_LIMITS: LogStoreLimits = {
  openFiles: 512,
  pendingBytes: 128 * 1024 * 1024,
  missingLogWaitMs: 60 * 60 * 1000,
  frames: 16,
};
/** Sealed logs whose index is kept. */
const MAX_INDEXES = 64;
const MAX_PARALLEL_RECOVERIES = 8;
const MAX_PARALLEL_DECOMPRESSIONS = 2;
/** Ended attempts that one round of `sealEnded` looks at. */
const SEAL_ROUND = 1000;
/** How soon a database that is away is asked again. */
const ASK_AGAIN_MS = 500;

export async function openLogStore(options: LogStoreOptions): Promise<LogStore> {
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  return new DirectoryLogStore(options);
}

class DirectoryLogStore implements LogStore {
  readonly #options: LogStoreOptions;
  readonly #limits: LogStoreLimits;
  readonly #parts: AttemptLogParts;
  readonly #stopping = sharedAbortController();
  readonly #slots = new AttemptSlots((attemptId) => this.#load(attemptId));
  readonly #recovering = new Gate(MAX_PARALLEL_RECOVERIES);
  readonly #decompressing = new Gate(MAX_PARALLEL_DECOMPRESSIONS);
  readonly #frames: RecentResults<Buffer>;
  readonly #indexes = new RecentResults<OpenSealedLog>(MAX_INDEXES);
  readonly #sealer: Sealer;
  /** Attempts whose logs could not be sealed in the last round, of which it was said. */
  #unsealable = new Set<string>();
  #areLeftoversRemoved = false;
  #stopped: Promise<void> | null = null;

  constructor(options: LogStoreOptions) {
    const { blobs, store, clock, log } = options;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    const files = new OpenFiles({ limit: this.#limits.openFiles, log });
    const budget = new PendingBudget(this.#limits.pendingBytes);
    this.#parts = { files, syncs: new SyncQueue(), budget, health: new DiskHealth({ clock, log }), log };
    this.#frames = new RecentResults(this.#limits.frames);
    this.#sealer = new Sealer({ store, blobs, files, clock, log, signal: this.#stopping.signal });
  }

  async open(attemptId: string, listener: AppendListener): Promise<LogWriter> {
    return this.#use(attemptId, async (attempt) => {
      attempt.listeners.add(listener);
      return new AttemptWriter(attempt, { listener, check: () => this.#check(attemptId) });
    });
  }

  async append(attemptId: string, offset: number, data: Uint8Array): Promise<AppendResult> {
    return this.#use(attemptId, async (attempt, slot) => {
      const outcome = await slot.line.accept(attempt, offset, data);
      if (!outcome.ok) return { ok: false, refusal: outcome.refusal, length: attempt.durable };
      // Called in the same turn as the acceptance, so a failure cannot come in between unseen.
      await attempt.settled();
      return { ok: true, length: attempt.durable };
    });
  }

  async length(attemptId: string): Promise<number> {
    return this.#use(attemptId, async (attempt) => attempt.durable);
  }

  async finish(attemptId: string): Promise<SealedLog> {
    return this.#finish(attemptId, null);
  }

  #finish(attemptId: string, gap: LogGap | null): Promise<SealedLog> {
    return this.#use(attemptId, async (attempt, slot) => {
      slot.finishing ??= this.#sealer.seal(attempt, gap).finally(() => (slot.finishing = null));
      return slot.finishing;
    });
  }

  async sealEnded(): Promise<void> {
    if (!this.#areLeftoversRemoved) await this.#removeLeftovers();
    const attempts = await this.#options.store.listUnsealed(SEAL_ROUND);
    const gate = new Gate(MAX_PARALLEL_RECOVERIES);
    const failed = new Set<string>();
    await Promise.all(
      attempts.map(async (attempt) => {
        const isDone = await gate.run(() => this.#sealIfComplete(attempt));
        if (!isDone) failed.add(attempt.id);
      }),
    );
    this.#unsealable = failed;
  }

  /** False if it failed. */
  async #sealIfComplete(attempt: Attempt): Promise<boolean> {
    if (this.#stopping.signal.aborted) return true;
    try {
      const end = logEnd(attempt, {
        lengthBytes: await this.length(attempt.id),
        missingLogWaitMs: this.#limits.missingLogWaitMs,
        nowMs: this.#options.clock.nowMs(),
      });
      if (end.isComplete) await this.#finish(attempt.id, end.gap);
      return true;
    } catch (error) {
      if (this.#stopping.signal.aborted) return true;
      const fields = { err: error, attemptId: attempt.id, jobId: attempt.jobId };
      if (!this.#unsealable.has(attempt.id)) this.#options.log.error(fields, "sealing a log failed");
      return false;
    }
  }

  /** Removes raw files that a crash left between sealing a log and removing its file. */
  async #removeLeftovers(): Promise<void> {
    const { directory } = this.#options;
    const shards = (await readdir(directory)).filter((name) => SHARDS.has(name));
    for (const shard of shards) {
      for (const name of await readdir(join(directory, shard))) {
        const attemptId = attemptOfFileName(name);
        // Loading an attempt that turns out to be sealed removes the file.
        if (attemptId !== null && !this.#stopping.signal.aborted) await this.length(attemptId);
      }
    }
    this.#areLeftoversRemoved = true;
  }

  async *read(attemptId: string, options: ReadOptions): AsyncGenerator<LogBatch> {
    const slot = this.#slots.hold(this.#check(attemptId));
    try {
      const attempt = await slot.ready;
      const source = new AttemptSource(attempt, {
        raw: new RawSource(attempt, this.#parts.files),
        openSealed: () => this.#openSealed(attempt),
        stopping: this.#stopping.signal,
      });
      yield* readLog(source, options);
    } finally {
      slot.users -= 1;
    }
  }

  #openSealed(attempt: AttemptLog): Promise<OpenSealedLog> {
    const { sealed } = attempt;
    if (!sealed) throw new AppError("internal", `read log of attempt ${attempt.attemptId}: it is not sealed`);
    const frames = this.#frames;
    return this.#indexes.get(attempt.attemptId, () =>
      openSealedLog(sealed, { blobs: this.#options.blobs, frames, decompressing: this.#decompressing }),
    );
  }

  wake(attemptId: string): void {
    this.#slots.loaded(attemptId)?.changed();
  }

  /** Resolves when everything accepted is on disk and no file is open. Seals under way are left off. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled(
      this.#slots.all().map(async (slot) => {
        await slot.finishing?.catch(() => {});
        const attempt = await slot.ready;
        await slot.line.idle();
        await attempt.settled();
      }),
    );
    await this.#parts.files.stop();
  }

  #use<T>(attemptId: string, work: (attempt: AttemptLog, slot: AttemptSlot) => Promise<T>): Promise<T> {
    return this.#slots.use(this.#check(attemptId), work);
  }

  async #load(attemptId: string): Promise<AttemptLog> {
    const parts = this.#parts;
    const path = attemptLogPath(this.#options.directory, attemptId);
    const sealed = await this.#whereSealed(attemptId);
    if (sealed) {
      await rm(path, { force: true });
      const attempt = new AttemptLog({ attemptId, path, length: sealed.logBytes, parts });
      attempt.markSealed(sealed);
      return attempt;
    }
    const { files, log } = parts;
    const recovered = await this.#recovering.run(() => recoverRawLog(path, { attemptId, files, log }));
    const attempt = new AttemptLog({ attemptId, path, length: recovered.length, parts });
    attempt.knownBoundary = recovered.boundary;
    return attempt;
  }

  /**
   * A database that is away is waited for: log that comes in meanwhile waits as well, and its worker
   * keeps its stream.
   */
  async #whereSealed(attemptId: string): Promise<SealedLog | null> {
    const { store, clock } = this.#options;
    const { signal } = this.#stopping;
    for (;;) {
      try {
        return await store.getSealedLog(attemptId);
      } catch (error) {
        const isAway = error instanceof AppError && error.code === "unavailable";
        if (!isAway || signal.aborted) throw error;
      }
      await clock.sleep(ASK_AGAIN_MS, signal);
    }
  }

  /** Also refuses what is no id at once: it becomes a file name. */
  #check(attemptId: string): string {
    attemptLogPath(this.#options.directory, attemptId);
    if (!this.#stopping.signal.aborted) return attemptId;
    throw new AppError("unavailable", `use log of attempt ${attemptId}: the server is stopping`);
  }
}

class AttemptWriter implements LogWriter {
  readonly #attempt: AttemptLog;
  readonly #listener: AppendListener;
  readonly #check: () => void;
  #isClosed = false;

  constructor(attempt: AttemptLog, options: { listener: AppendListener; check: () => void }) {
    this.#attempt = attempt;
    this.#listener = options.listener;
    this.#check = options.check;
  }

  get length(): number {
    return this.#attempt.accepted;
  }

  get durable(): number {
    return this.#attempt.durable;
  }

  append(offset: number, data: Uint8Array): AppendOutcome {
    this.#check();
    if (this.#isClosed) throw new Error("append to a log writer that is closed");
    return this.#attempt.accept(offset, data);
  }

  room(): Promise<void> {
    return this.#attempt.room();
  }

  close(): void {
    this.#isClosed = true;
    this.#attempt.listeners.delete(this.#listener);
  }
}
