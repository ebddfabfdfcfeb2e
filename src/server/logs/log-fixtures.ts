/** What the tests of this folder share: a store over a temporary directory, and logs to put in it. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { uuidV4 } from "../../base/random.ts";
import { encodeRecord, LOG_STREAMS, type LogRecord } from "../../core/log-record.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import { createMemoryBlobStore } from "../../storage/memory/memory-blob-store.ts";
import type { SealedLog } from "../../storage/store.ts";
import { openLogStore, type LogStore, type LogStoreOptions } from "./log-store.ts";
import { attemptLogPath } from "./raw/attempt-path.ts";
import type { LogBatch, ReadOptions } from "./read-log.ts";

export interface LogFixture {
  directory: string;
  blobs: BlobStore;
  sealed: Map<string, SealedLog>;
  logs: LogStore;
  attemptId: string;
  path: string;
  /** Stops the store and opens another one over the same directory, as after a restart. */
  restart(): Promise<LogStore>;
}

export type FixtureOptions = Partial<Pick<LogStoreOptions, "blobs" | "store" | "limits" | "log" | "clock">>;

export async function setupLogs(t: TestContext, options: FixtureOptions = {}): Promise<LogFixture> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-logs-"));
  const sealed = new Map<string, SealedLog>();
  const storeOptions: LogStoreOptions = {
    directory,
    blobs: createMemoryBlobStore(),
    store: {
      setSealedLog: async (log) => void sealed.set(log.attemptId, log),
      getSealedLog: async (id) => sealed.get(id) ?? null,
      listUnsealed: async () => [],
    },
    clock: systemClock,
    log: silentLogger,
    ...options,
  };
  const attemptId = uuidV4();
  const fixture: LogFixture = {
    directory,
    blobs: storeOptions.blobs,
    sealed,
    logs: await openLogStore(storeOptions),
    attemptId,
    path: attemptLogPath(directory, attemptId),
    async restart() {
      await fixture.logs.stop();
      fixture.logs = await openLogStore(storeOptions);
      return fixture.logs;
    },
  };
  t.after(async () => {
    await fixture.logs.stop();
    await rm(directory, { recursive: true });
  });
  return fixture;
}

/** A log and the records in it, with where each one begins. */
export interface MadeLog {
  bytes: Buffer;
  records: (LogRecord & { offset: number })[];
}

/** A log of `count` records of all streams and many sizes: lines, parts of lines, binary, nothing. */
export function makeLog(options: { count: number; seed: number; maxDataBytes?: number }): MadeLog {
  const random = seededRandom(options.seed);
  const pieces: Uint8Array[] = [];
  const records: MadeLog["records"] = [];
  let offset = 0;
  for (let index = 0; index < options.count; index += 1) {
    const record: LogRecord = {
      stream: LOG_STREAMS[Math.floor(random() ** 2 * LOG_STREAMS.length)] ?? "stdout",
      // Mostly forwards, sometimes back: the clock of a worker may be set.
      timeMs: 1_700_000_000_000 + index * 10 - (random() < 0.1 ? Math.floor(random() * 200) : 0),
      data: makeData(random, options.maxDataBytes ?? 400),
    };
    const bytes = encodeRecord(record);
    records.push({ ...record, offset });
    pieces.push(bytes);
    offset += bytes.byteLength;
  }
  return { bytes: Buffer.concat(pieces), records };
}

function makeData(random: () => number, maxBytes: number): Uint8Array {
  const data = new Uint8Array(Math.floor(random() ** 3 * maxBytes));
  for (let at = 0; at < data.byteLength; at += 1)
    data[at] = random() < 0.03 ? 10 : 32 + Math.floor(random() * 200);
  if (data.byteLength > 0 && random() < 0.5) data[data.byteLength - 1] = 10;
  return data;
}

/** Mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Appends a log in pieces that do not care where records end. */
export async function appendAll(
  logs: LogStore,
  attemptId: string,
  log: { bytes: Buffer; pieceBytes: number; from?: number },
): Promise<void> {
  const appends: Promise<unknown>[] = [];
  for (let at = log.from ?? 0; at < log.bytes.byteLength; at += log.pieceBytes) {
    appends.push(logs.append(attemptId, at, log.bytes.subarray(at, at + log.pieceBytes)));
  }
  await Promise.all(appends);
}

export interface Gathered {
  batches: LogBatch[];
  records: LogRecord[];
  nextOffset: number;
  complete: boolean;
}

export async function gather(
  logs: LogStore,
  attemptId: string,
  options: Partial<ReadOptions> = {},
): Promise<Gathered> {
  const batches: LogBatch[] = [];
  const read = { offset: 0, follow: false, isEnded: () => false, ...options };
  for await (const batch of logs.read(attemptId, read)) batches.push(batch);
  const last = batches.at(-1);
  return {
    batches,
    records: batches.flatMap((batch) => batch.records),
    nextOffset: last?.nextOffset ?? read.offset,
    complete: last?.complete ?? false,
  };
}

/** Encoded again, so that two lists of records can be compared as bytes. */
export function encodeAll(records: readonly LogRecord[]): Buffer {
  return Buffer.concat(records.map(encodeRecord));
}
