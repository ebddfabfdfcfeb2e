import assert from "node:assert/strict";
import { rm, truncate } from "node:fs/promises";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import { eventually } from "../../base/eventually.ts";
import { uuidV4 } from "../../base/random.ts";
import { LOG_STREAMS, encodeRecord, type LogRecord } from "../../core/log-record.ts";
import {
  appendAll,
  encodeAll,
  gather,
  makeLog,
  seededRandom,
  setupLogs,
  type MadeLog,
} from "./log-fixtures.ts";
import type { LogStore } from "./log-store.ts";
import { MAX_BATCH_BYTES, type ReadOptions } from "./read-log.ts";

/** The same log in both places where it can lie. */
interface BothLogs {
  logs: LogStore;
  log: MadeLog;
  raw: string;
  sealed: string;
}

/** More than three frames. */
async function setup(t: TestContext, options = { count: 5000, maxDataBytes: 3000 }): Promise<BothLogs> {
  const { logs } = await setupLogs(t);
  const log = makeLog({ seed: 1, ...options });
  const [raw, sealed] = [uuidV4(), uuidV4()];
  for (const id of [raw, sealed]) await appendAll(logs, id, { bytes: log.bytes, pieceBytes: 65_536 });
  await logs.finish(sealed);
  return { logs, log, raw, sealed };
}

test("reading gives every record once and in order, in bounded batches", async (t) => {
  const { logs, log, raw, sealed } = await setup(t);
  assert.ok(log.bytes.byteLength > 3.5 * 2 ** 20, `${log.bytes.byteLength}`);
  for (const id of [raw, sealed]) {
    const read = await gather(logs, id);
    assert.ok(encodeAll(read.records).equals(log.bytes));
    assert.equal(read.nextOffset, log.bytes.byteLength);
    assert.equal(read.complete, id === sealed);
    let offset = 0;
    for (const batch of read.batches) {
      const bytes = encodeAll(batch.records).byteLength;
      assert.ok(bytes <= MAX_BATCH_BYTES);
      assert.equal(batch.nextOffset, offset + bytes);
      offset = batch.nextOffset;
    }
    assert.deepEqual(
      read.batches.slice(0, -1).map((batch) => batch.complete),
      Array(read.batches.length - 1).fill(false),
    );
  }
});

test("reading can begin at every record and at the end, and nowhere else", async (t) => {
  const { logs, log, raw, sealed } = await setup(t, { count: 100, maxDataBytes: 60 });
  const places = new Set([...log.records.map((record) => record.offset), log.bytes.byteLength]);
  for (const id of [raw, sealed]) {
    for (let offset = 0; offset <= log.bytes.byteLength; offset += 1) {
      if (places.has(offset)) {
        const read = await gather(logs, id, { offset });
        assert.ok(encodeAll(read.records).equals(log.bytes.subarray(offset)), `from ${offset}`);
      } else {
        await assert.rejects(gather(logs, id, { offset }), {
          code: "invalid_argument",
          message: `read log of attempt ${id} at ${offset}: not the beginning of a record`,
        });
      }
    }
    await assert.rejects(gather(logs, id, { offset: log.bytes.byteLength + 1 }), {
      code: "invalid_argument",
    });
  }
});

test("any mix of place, streams, time and last lines gives what a plain walk over the log gives", async (t) => {
  const { logs, log, raw, sealed } = await setup(t);
  const times = log.records.map((record) => record.timeMs);
  const options = fc.record({
    from: fc.integer({ min: 0, max: log.records.length }),
    streams: fc.subarray([...LOG_STREAMS]),
    since: fc.option(fc.integer({ min: Math.min(...times) - 100, max: Math.max(...times) + 100 }), {
      nil: null,
    }),
    tailLines: fc.oneof(
      fc.constant(0),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 100_000 }),
    ),
    isRaw: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(options, async ({ from, streams, since, tailLines, isRaw }) => {
      const offset = log.records[from]?.offset ?? log.bytes.byteLength;
      const read: Partial<ReadOptions> = {
        offset,
        streams,
        tailLines,
        ...(since === null ? {} : { sinceMs: since }),
      };
      const got = await gather(logs, isRaw ? raw : sealed, read);
      const wanted = log.records.filter(
        (record) =>
          record.offset >= offset &&
          (streams.length === 0 || streams.includes(record.stream)) &&
          (since === null || record.timeMs >= since),
      );
      assert.equal(got.nextOffset, log.bytes.byteLength);
      if (tailLines === 0) assert.ok(encodeAll(got.records).equals(encodeAll(wanted)));
      else checkTail(got.records, wanted, tailLines);
    }),
    { numRuns: 80 },
  );
});

/** The records must be the last of those wanted: enough for the lines, and not one more than that. */
function checkTail(got: readonly LogRecord[], wanted: readonly LogRecord[], lines: number): void {
  const kept = wanted.slice(wanted.length - got.length);
  assert.ok(encodeAll(got).equals(encodeAll(kept)));
  if (got.length === wanted.length) return;
  assert.ok(lineCount(got) >= lines, `${lineCount(got)} of ${lines} lines`);
  const withoutFirst = got.slice(got.findIndex((record) => record.data.byteLength > 0) + 1);
  const before = wanted
    .slice(0, wanted.length - withoutFirst.length)
    .findLast((record) => record.data.byteLength > 0);
  const isCutInLine = before?.data.at(-1) !== 10;
  assert.ok(lineCount(withoutFirst) < lines || isCutInLine, "a record too many");
}

function lineCount(records: readonly LogRecord[]): number {
  const text = Buffer.concat(records.map((record) => record.data));
  let count = text.byteLength > 0 && text.at(-1) !== 10 ? 1 : 0;
  for (const byte of text) if (byte === 10) count += 1;
  return count;
}

test("the last line of a log of single lines is one record", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const lines = Array.from({ length: 100 }, (_, index) => Buffer.from(`line ${index}\n`));
  const bytes = encodeAll(lines.map((data, timeMs) => ({ stream: "stdout", timeMs, data })));
  await logs.append(attemptId, 0, bytes);
  for (const isSealed of [false, true]) {
    if (isSealed) await logs.finish(attemptId);
    for (const count of [1, 2, 99, 100, 101]) {
      const { records } = await gather(logs, attemptId, { tailLines: count });
      assert.deepEqual(
        records.map((record) => Buffer.from(record.data)),
        lines.slice(-count),
      );
    }
  }
});

test("the last lines are found while the end of the log is inside a record", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 400, seed: 3, maxDataBytes: 2000 });
  const random = seededRandom(3);
  for (let at = 0; at < bytes.byteLength;) {
    const end = Math.min(bytes.byteLength, at + 1 + Math.floor(random() * 9000));
    await logs.append(attemptId, at, bytes.subarray(at, end));
    at = end;
    const whole = records.filter(({ offset, data }) => offset + data.byteLength + 20 <= end);
    const got = await gather(logs, attemptId, { tailLines: 5 });
    checkTail(got.records, whole, 5);
  }
});

test("readers from random places, while the log is written, see exactly what is written", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 2000, seed: 4, maxDataBytes: 1000 });
  const random = seededRandom(5);
  const readers: Promise<void>[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const end = Math.min(bytes.byteLength, at + 1 + Math.floor(random() * 15_000));
    await logs.append(attemptId, at, bytes.subarray(at, end));
    at = end;
    const whole = records.filter((record) => record.offset <= end - 20);
    const offset = whole[Math.floor(random() * (whole.length - 1))]?.offset ?? 0;
    const isWhole = await gather(logs, attemptId, { offset }).then((read) =>
      encodeAll(read.records).equals(bytes.subarray(offset, read.nextOffset)),
    );
    assert.ok(isWhole);
    readers.push(
      gather(logs, attemptId, { offset, follow: true }).then((read) => {
        assert.ok(encodeAll(read.records).equals(bytes.subarray(offset)), `from ${offset}`);
        assert.ok(read.complete);
      }),
    );
  }
  assert.ok(readers.length > 50);
  await logs.finish(attemptId);
  await Promise.all(readers);
});

test("a hundred followers and a slow one go on without a break while the log is sealed", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes } = makeLog({ count: 3000, seed: 6, maxDataBytes: 2000 });
  const half = bytes.byteLength >> 1;
  const slow = slowReader(logs, attemptId);
  const followers = Array.from({ length: 100 }, () => gather(logs, attemptId, { follow: true }));
  await appendAll(logs, attemptId, { bytes: bytes.subarray(0, half), pieceBytes: 60_000 });
  await slow.take();
  await appendAll(logs, attemptId, { bytes, pieceBytes: 60_000, from: half });
  await slow.take();
  const sealed = await logs.finish(attemptId);
  assert.equal(sealed.logBytes, bytes.byteLength);
  for (const read of await Promise.all(followers)) {
    assert.ok(encodeAll(read.records).equals(bytes));
    assert.ok(read.complete);
  }
  while (await slow.take());
  assert.ok(encodeAll(slow.records).equals(bytes));
});

function slowReader(logs: LogStore, id: string): { take: () => Promise<boolean>; records: LogRecord[] } {
  const records: LogRecord[] = [];
  const iterator = logs.read(id, { offset: 0, follow: true, isEnded: () => false })[Symbol.asyncIterator]();
  const take = async (): Promise<boolean> => {
    const next = await iterator.next();
    if (next.done) return false;
    records.push(...next.value.records);
    return true;
  };
  return { take, records };
}

test("a follower is woken by growth, waits while nothing comes, and leaves when told to", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 3, seed: 7 });
  const abort = new AbortController();
  const got: LogRecord[] = [];
  const read = async (): Promise<string> => {
    const options = { offset: 0, follow: true, isEnded: () => false, signal: abort.signal };
    for await (const batch of logs.read(attemptId, options)) got.push(...batch.records);
    return "left";
  };
  const reading = read();
  for (const [index, { offset, data }] of records.entries()) {
    await logs.append(attemptId, offset, bytes.subarray(offset, offset + data.byteLength + 20));
    await eventually(() => got.length === index + 1);
  }
  abort.abort();
  assert.equal(await reading, "left");
});

test("a follower is told the end as soon as it is known, before the log is sealed", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes } = makeLog({ count: 30, seed: 8 });
  await logs.append(attemptId, 0, bytes);
  let isEnded = false;
  const following = gather(logs, attemptId, { follow: true, isEnded: () => isEnded });
  logs.wake(attemptId);
  isEnded = true;
  logs.wake(attemptId);
  const read = await following;
  assert.ok(encodeAll(read.records).equals(bytes));
  assert.ok(read.complete);
});

test("a reader without follow stops at what there was when it began", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes } = makeLog({ count: 400, seed: 9, maxDataBytes: 5000 });
  const piece = encodeRecord({ stream: "stdout", timeMs: 0, data: Buffer.alloc(1000) });
  await appendAll(logs, attemptId, { bytes, pieceBytes: 60_000 });
  let length = bytes.byteLength;
  let nextOffset = 0;
  for await (const batch of logs.read(attemptId, { offset: 0, follow: false, isEnded: () => false })) {
    nextOffset = batch.nextOffset;
    assert.equal(batch.complete, false);
    await logs.append(attemptId, length, piece);
    length += piece.byteLength;
  }
  assert.equal(nextOffset, bytes.byteLength);
});

test("records with a time that is no number are read, and are not of any later time", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const bytes = encodeRecord({ stream: "stdout", timeMs: NaN, data: Buffer.from("x\n") });
  await logs.append(attemptId, 0, bytes);
  for (const isSealed of [false, true]) {
    if (isSealed) await logs.finish(attemptId);
    assert.equal((await gather(logs, attemptId)).records.length, 1);
    assert.equal((await gather(logs, attemptId, { sinceMs: 0 })).records.length, 0);
  }
});

test("a file that someone has cut or removed is reported as lost data", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t, { limits: { openFiles: 0 } });
  const { bytes } = makeLog({ count: 50, seed: 10 });
  await logs.append(attemptId, 0, bytes);
  await truncate(path, 100);
  const options = { isEnded: () => true };
  await assert.rejects(gather(logs, attemptId, options), { code: "data_loss" });
  await rm(path);
  await assert.rejects(gather(logs, attemptId, options), { code: "data_loss" });
});
