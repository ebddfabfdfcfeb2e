import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { access, appendFile, readFile, readdir, readlink, stat, truncate, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { uuidV4 } from "../../base/random.ts";
import { encodeRecord } from "../../core/log-record.ts";
import { appendAll, encodeAll, gather, makeLog, setupLogs } from "./log-fixtures.ts";
import { MAX_PENDING_LOG_BYTES } from "./raw/attempt-log.ts";

const run = promisify(execFile);

test("appended bytes are in the file when the promise resolves", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const { bytes } = makeLog({ count: 50, seed: 1 });
  const first = await logs.append(attemptId, 0, bytes.subarray(0, 100));
  assert.deepEqual(first, { ok: true, length: 100 });
  assert.deepEqual(await readFile(path), bytes.subarray(0, 100));
  const second = await logs.append(attemptId, 100, bytes.subarray(100));
  assert.deepEqual(second, { ok: true, length: bytes.byteLength });
  assert.deepEqual(await readFile(path), bytes);
  assert.equal(await logs.length(attemptId), bytes.byteLength);
});

test("bytes that are known are skipped, and only the new tail of an overlap is written", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const { bytes } = makeLog({ count: 20, seed: 2 });
  await logs.append(attemptId, 0, bytes.subarray(0, 300));
  const changed = Buffer.alloc(200, 0xff);
  assert.deepEqual(await logs.append(attemptId, 50, changed), { ok: true, length: 300 });
  bytes.copy(changed, 100, 300, 400);
  assert.deepEqual(await logs.append(attemptId, 200, changed), { ok: true, length: 400 });
  assert.deepEqual(await readFile(path), bytes.subarray(0, 400));
});

test("a gap is refused with the length, and nothing is written", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const data = Buffer.alloc(10);
  assert.deepEqual(await logs.append(attemptId, 5, data), { ok: false, refusal: "gap", length: 0 });
  assert.equal(await logs.length(attemptId), 0);
  const { bytes } = makeLog({ count: 3, seed: 3 });
  await logs.append(attemptId, 0, bytes);
  const beyond = await logs.append(attemptId, bytes.byteLength + 1, data);
  assert.deepEqual(beyond, { ok: false, refusal: "gap", length: bytes.byteLength });
});

test("an id that is no UUID is refused by every call", async (t) => {
  const { logs } = await setupLogs(t);
  for (const id of [
    "",
    "../../etc/passwd",
    "a".repeat(36),
    uuidV4().toUpperCase().replace(/\d/g, "A"),
    `${uuidV4()}/`,
  ]) {
    const refused = (error: unknown) => error instanceof AppError && error.code === "invalid_argument";
    await assert.rejects(logs.append(id, 0, Buffer.alloc(1)), refused);
    await assert.rejects(logs.length(id), refused);
    await assert.rejects(logs.finish(id), refused);
    await assert.rejects(logs.open(id, { onDurable() {}, onFailure() {} }), refused);
    await assert.rejects(gather(logs, id), refused);
  }
});

test("a place or a piece that cannot be is refused as an argument", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  for (const offset of [-1, 0.5, NaN, 2 ** 53]) {
    await assert.rejects(logs.append(attemptId, offset, Buffer.alloc(1)), { code: "invalid_argument" });
    await assert.rejects(gather(logs, attemptId, { offset }), { code: "invalid_argument" });
  }
  await assert.rejects(logs.append(attemptId, 0, Buffer.alloc(2 ** 20 + 1)), { code: "invalid_argument" });
});

test("many appends at once keep their order, also when there is no room for all", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t, { limits: { pendingBytes: 64 * 1024 } });
  const { bytes } = makeLog({ count: 3000, seed: 4 });
  await appendAll(logs, attemptId, { bytes, pieceBytes: 1000 });
  assert.deepEqual(await readFile(path), bytes);
});

test("logs that fill the server's memory together wait for one another and all arrive", async (t) => {
  const { logs, directory } = await setupLogs(t, { limits: { pendingBytes: 10_000, openFiles: 4 } });
  const all = Array.from({ length: 30 }, (_, seed) => ({ id: uuidV4(), ...makeLog({ count: 100, seed }) }));
  await Promise.all(all.map(({ id, bytes }) => appendAll(logs, id, { bytes, pieceBytes: 700 })));
  for (const { id, bytes } of all) {
    assert.deepEqual(await readFile(`${directory}/${id.slice(-2)}/${id}.log`), bytes);
  }
});

test("a writer is refused as full, and told when there is room and what is durable", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const lengths: number[] = [];
  const writer = await logs.open(attemptId, {
    onDurable: (length) => lengths.push(length),
    onFailure: assert.fail,
  });
  const piece = Buffer.from(
    encodeRecord({ stream: "stdout", timeMs: 1, data: Buffer.alloc(64 * 1024, 120) }),
  );
  let refusals = 0;
  const total = 3 * MAX_PENDING_LOG_BYTES;
  while (writer.length < total) {
    assert.ok(writer.length - writer.durable < MAX_PENDING_LOG_BYTES + piece.byteLength);
    const outcome = writer.append(writer.length, piece);
    if (outcome.ok) continue;
    assert.equal(outcome.refusal, "full");
    refusals += 1;
    await writer.room();
  }
  await eventually(() => writer.durable === writer.length);
  assert.ok(refusals > 0);
  assert.deepEqual(
    lengths,
    lengths.toSorted((a, b) => a - b),
  );
  assert.equal(lengths.at(-1), writer.length);
  assert.equal((await stat(path)).size, writer.length);
  writer.close();
  writer.close();
  assert.throws(() => writer.append(writer.length, piece));
});

test("open files stay below the limit while hundreds of logs grow", async (t) => {
  const { logs } = await setupLogs(t, { limits: { openFiles: 8 } });
  const log = makeLog({ count: 10, seed: 5 });
  const ids = Array.from({ length: 200 }, uuidV4);
  await Promise.all(ids.map((id) => logs.append(id, 0, log.bytes)));
  const before = await openLogFiles();
  assert.ok(before <= 8, `${before} files are open`);
  for (const id of ids) assert.deepEqual(encodeAll((await gather(logs, id)).records), log.bytes);
  assert.ok((await openLogFiles()) <= 8);
});

test("an end torn by a crash is cut back to the last whole record", async (t) => {
  const fixture = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 40, seed: 6 });
  const boundaries = [...records.map((record) => record.offset), bytes.byteLength];
  await fixture.logs.append(fixture.attemptId, 0, bytes);
  for (const torn of [bytes.byteLength - 1, bytes.byteLength - 30, 2000, 777, 19, 3]) {
    await fixture.logs.stop();
    await truncate(fixture.path, torn);
    const whole = boundaries.findLast((boundary) => boundary <= torn);
    const logs = await fixture.restart();
    assert.equal(await logs.length(fixture.attemptId), whole);
    assert.equal((await stat(fixture.path)).size, whole);
  }
  await appendAll(fixture.logs, fixture.attemptId, { bytes, pieceBytes: 100 });
  assert.deepEqual(await readFile(fixture.path), bytes);
});

test("a stretch of zeros or of garbage behind the last record is cut off after a crash", async (t) => {
  const fixture = await setupLogs(t);
  const { bytes } = makeLog({ count: 10, seed: 7 });
  for (const garbage of [Buffer.alloc(5000), Buffer.alloc(100, 0xee)]) {
    await appendAll(fixture.logs, fixture.attemptId, { bytes, pieceBytes: 64 });
    await fixture.logs.stop();
    await appendFile(fixture.path, garbage);
    await fixture.restart();
    assert.equal(await fixture.logs.length(fixture.attemptId), bytes.byteLength);
    assert.deepEqual(await readFile(fixture.path), bytes);
  }
});

test("damage that no crash can do is kept, and the reader is told where it is", async (t) => {
  const fixture = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 200, seed: 8, maxDataBytes: 60_000 });
  await appendAll(fixture.logs, fixture.attemptId, { bytes, pieceBytes: 64 * 1024 });
  await fixture.logs.stop();
  const damaged = Buffer.concat([bytes, Buffer.alloc(6 * 1024 * 1024, 0xee)]);
  await writeFile(fixture.path, damaged);
  const logs = await fixture.restart();
  assert.equal(await logs.length(fixture.attemptId), damaged.byteLength);
  const seen: number[] = [];
  const read = async (): Promise<void> => {
    const options = { offset: 0, follow: false, isEnded: () => true };
    for await (const batch of logs.read(fixture.attemptId, options)) seen.push(batch.records.length);
  };
  await assert.rejects(read(), (error) => {
    assert.ok(error instanceof AppError);
    assert.equal(error.code, "data_loss");
    assert.match(error.message, new RegExp(`${fixture.attemptId}.* byte ${bytes.byteLength}$`));
    return true;
  });
  assert.equal(
    seen.reduce((sum, count) => sum + count, 0),
    records.length,
  );
});

test("a full disk rejects what is not on it, cuts the file back, and takes bytes again later", async (t) => {
  if (!(await canLimitFiles())) return t.skip("prlimit is not there to limit the size of files");
  const { logs, attemptId, path } = await setupLogs(t);
  const failures: { code: string; length: number }[] = [];
  const writer = await logs.open(attemptId, {
    onDurable() {},
    onFailure: (error, length) => failures.push({ code: error.code, length }),
  });
  const { bytes } = makeLog({ count: 4000, seed: 9 });
  assert.ok(bytes.byteLength > 300_000);
  await logs.append(attemptId, 0, bytes.subarray(0, 100_000));
  await limitFiles("150000");
  t.after(() => limitFiles("unlimited"));
  await assert.rejects(appendAll(logs, attemptId, { bytes, pieceBytes: 65_536, from: 100_000 }), (error) => {
    assert.ok(error instanceof AppError && error.code === "resource_exhausted", String(error));
    assert.match(error.message, new RegExp(`write log of attempt ${attemptId}: EFBIG`));
    return true;
  });
  const length = await logs.length(attemptId);
  assert.ok(length >= 100_000 && length <= 150_000);
  assert.deepEqual(failures[0], { code: "resource_exhausted", length });
  await eventually(async () => (await stat(path)).size === length);
  assert.equal(writer.length, length);

  await limitFiles("unlimited");
  await appendAll(logs, attemptId, { bytes, pieceBytes: 65_536, from: length });
  assert.deepEqual(await readFile(path), bytes);
  assert.deepEqual(encodeAll((await gather(logs, attemptId)).records), bytes);
});

test("after the end nothing is taken, and what is known still counts as there", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes } = makeLog({ count: 10, seed: 10 });
  await logs.append(attemptId, 0, bytes);
  await logs.finish(attemptId);
  assert.deepEqual(await logs.append(attemptId, 0, bytes), { ok: true, length: bytes.byteLength });
  const late = await logs.append(attemptId, bytes.byteLength, Buffer.alloc(5));
  assert.deepEqual(late, { ok: false, refusal: "ended", length: bytes.byteLength });
});

test("stopping writes what was accepted, closes all files and refuses what comes later", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const { bytes } = makeLog({ count: 2000, seed: 11 });
  const writer = await logs.open(attemptId, { onDurable() {}, onFailure: assert.fail });
  for (let at = 0; at < bytes.byteLength; at += 5000) writer.append(at, bytes.subarray(at, at + 5000));
  const follower = gather(logs, attemptId, { follow: true });
  follower.catch(() => {});
  await Promise.all([logs.stop(), logs.stop()]);
  assert.deepEqual(await readFile(path), bytes);
  assert.equal(await openLogFiles(), 0);
  await assert.rejects(follower, { code: "unavailable" });
  await assert.rejects(logs.append(attemptId, bytes.byteLength, Buffer.alloc(1)), { code: "unavailable" });
  assert.throws(() => writer.append(bytes.byteLength, Buffer.alloc(1)), { code: "unavailable" });
});

test("stopping also writes the appends that wait for room", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t, { limits: { pendingBytes: 2000 } });
  const { bytes } = makeLog({ count: 500, seed: 13 });
  const appends = appendAll(logs, attemptId, { bytes, pieceBytes: 1000 });
  await logs.stop();
  assert.deepEqual(await readFile(path), bytes);
  await appends;
  assert.equal(await openLogFiles(), 0);
});

test("looking at an attempt without a log makes no file", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  assert.equal(await logs.length(attemptId), 0);
  assert.deepEqual(await gather(logs, attemptId), {
    batches: [{ records: [], nextOffset: 0, complete: false }],
    records: [],
    nextOffset: 0,
    complete: false,
  });
  await assert.rejects(access(path), { code: "ENOENT" });
});

test("log that comes in while the database is away waits for it, and keeps its order", async (t) => {
  let calls = 0;
  const { logs, attemptId } = await setupLogs(t, {
    clock: { ...systemClock, sleep: () => systemClock.sleep(1) },
    store: {
      getSealedLog: async () => {
        calls += 1;
        if (calls <= 3) throw new AppError("unavailable", "read sealed log: away");
        return null;
      },
      setSealedLog: async () => {},
      listUnsealed: async () => [],
    },
  });
  const { bytes } = makeLog({ count: 2, seed: 12 });
  const appends = [bytes.subarray(0, 10), bytes.subarray(10)].map((piece, index) =>
    logs.append(attemptId, index * 10, piece),
  );
  assert.deepEqual((await Promise.all(appends)).at(-1), { ok: true, length: bytes.byteLength });
  assert.equal(calls, 4);
});

test("a stop does not wait for a database that is away", async (t) => {
  let calls = 0;
  const { logs, attemptId } = await setupLogs(t, {
    store: {
      getSealedLog: async () => {
        calls += 1;
        throw new AppError("unavailable", "read sealed log: away");
      },
      setSealedLog: async () => {},
      listUnsealed: async () => [],
    },
  });
  const [appended] = await Promise.allSettled([
    logs.append(attemptId, 0, Buffer.alloc(1)),
    eventually(() => calls > 0).then(() => logs.stop()),
  ]);
  assert.equal(appended.status, "rejected");
});

test("a database that refuses the call fails it, and not the ones after it", async (t) => {
  let isBroken = true;
  const { logs, attemptId } = await setupLogs(t, {
    store: {
      getSealedLog: async () => {
        if (isBroken) throw new AppError("internal", "read sealed log: broken");
        return null;
      },
      setSealedLog: async () => {},
      listUnsealed: async () => [],
    },
  });
  await assert.rejects(logs.append(attemptId, 0, Buffer.alloc(1)), { code: "internal" });
  isBroken = false;
  const { bytes } = makeLog({ count: 2, seed: 12 });
  assert.deepEqual(await logs.append(attemptId, 0, bytes), { ok: true, length: bytes.byteLength });
});

async function openLogFiles(): Promise<number> {
  let count = 0;
  for (const fd of await readdir("/proc/self/fd")) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => "");
    if (/hodei-logs-.*\.log/.test(target)) count += 1;
  }
  return count;
}

async function canLimitFiles(): Promise<boolean> {
  return run("prlimit", ["--version"]).then(
    () => true,
    () => false,
  );
}

/** Limits the size of files that this process may write: to it, the disk is full. */
async function limitFiles(bytes: string): Promise<void> {
  await run("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:unlimited`]);
}
