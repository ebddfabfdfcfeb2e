import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { access, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { AppError } from "../../base/errors.ts";
import { systemRandom, uuidV4 } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Attempt } from "../../core/job.ts";
import { encodeRecord } from "../../core/log-record.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import { newJobOf, resultOf } from "../../storage/conformance/samples.ts";
import { openDirectoryBlobStore } from "../../storage/directory-blob-store.ts";
import { createMemoryBlobStore } from "../../storage/memory/memory-blob-store.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import type { SealedLog } from "../../storage/store.ts";
import { logEnd } from "./log-end.ts";
import { appendAll, encodeAll, gather, makeLog, setupLogs } from "./log-fixtures.ts";
import { FOOTER_BYTES } from "./sealed/sealed-index.ts";

test("a sealed log is one blob with its digest, the file is gone, and gunzip reads its frames", async (t) => {
  const { logs, attemptId, path, blobs, sealed } = await setupLogs(t);
  const { bytes } = makeLog({ count: 4000, seed: 1, maxDataBytes: 3000 });
  await appendAll(logs, attemptId, { bytes, pieceBytes: 65_536 });
  const place = await logs.finish(attemptId);
  assert.deepEqual(sealed.get(attemptId), place);
  assert.equal(place.logBytes, bytes.byteLength);
  await assert.rejects(access(path), { code: "ENOENT" });
  const blob = await readBlob(blobs, place);
  assert.equal(createHash("sha256").update(blob).digest("hex"), place.digest);
  const indexStart = Number(Buffer.from(blob).readBigUInt64LE(blob.byteLength - FOOTER_BYTES + 8));
  assert.ok(gunzipSync(blob.subarray(0, indexStart)).equals(bytes));
});

test("an empty log is sealed without a blob and without a file", async (t) => {
  const { logs, attemptId, path, blobs } = await setupLogs(t);
  const place = await logs.finish(attemptId);
  assert.deepEqual(place, { attemptId, logBytes: 0, blobKey: null, digest: null });
  await assert.rejects(access(path), { code: "ENOENT" });
  assert.equal(await blobs.size(`logs/${attemptId.slice(-2)}/${attemptId}.log.gz`), null);
  const read = await gather(logs, attemptId, { follow: true, tailLines: 3, sinceMs: 5 });
  assert.deepEqual(read.batches, [{ records: [], nextOffset: 0, complete: true }]);
});

test("sealing again, also at the same time and after a restart, gives the same place", async (t) => {
  const fixture = await setupLogs(t);
  const { logs, attemptId } = fixture;
  const { bytes } = makeLog({ count: 100, seed: 2 });
  await logs.append(attemptId, 0, bytes);
  const [first, second] = await Promise.all([logs.finish(attemptId), logs.finish(attemptId)]);
  assert.deepEqual(first, second);
  assert.deepEqual(await logs.finish(attemptId), first);
  const later = await fixture.restart();
  assert.deepEqual(await later.finish(attemptId), first);
  assert.equal(await later.length(attemptId), bytes.byteLength);
  assert.ok(encodeAll((await gather(later, attemptId)).records).equals(bytes));
});

test("whatever step of sealing fails, the log stays readable and the next try completes it", async (t) => {
  for (const broken of ["put", "setSealedLog"] as const) {
    const memory = createMemoryBlobStore();
    const sealed = new Map<string, SealedLog>();
    let failures = 2;
    const fail = (step: string): void => {
      if (step === broken && failures-- > 0) throw new AppError("unavailable", `${step}: away`);
    };
    const fixture = await setupLogs(t, {
      blobs: {
        ...memory,
        async put(key, chunks) {
          return memory.put(
            key,
            failing(chunks, () => fail("put")),
          );
        },
      },
      store: {
        getSealedLog: async (id) => sealed.get(id) ?? null,
        setSealedLog: async (log) => {
          fail("setSealedLog");
          sealed.set(log.attemptId, log);
        },
        listUnsealed: async () => [],
      },
    });
    const { attemptId } = fixture;
    const { bytes } = makeLog({ count: 100, seed: 3 });
    await fixture.logs.append(attemptId, 0, bytes);
    await assert.rejects(fixture.logs.finish(attemptId), { code: "unavailable" });
    assert.ok(encodeAll((await gather(fixture.logs, attemptId)).records).equals(bytes));
    await fixture.restart();
    await assert.rejects(fixture.logs.finish(attemptId), { code: "unavailable" });
    const place = await fixture.logs.finish(attemptId);
    assert.equal(place.logBytes, bytes.byteLength);
    assert.ok(encodeAll((await gather(fixture.logs, attemptId)).records).equals(bytes));
  }
});

async function* failing(chunks: AsyncIterable<Uint8Array>, fail: () => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    yield chunk;
    fail();
  }
}

test("a file that a crash left behind after sealing is removed, and the blob is read", async (t) => {
  const fixture = await setupLogs(t);
  const { attemptId, path } = fixture;
  const { bytes } = makeLog({ count: 100, seed: 4 });
  await fixture.logs.append(attemptId, 0, bytes);
  const raw = await readFile(path);
  await fixture.logs.finish(attemptId);
  await fixture.logs.stop();
  await writeFile(path, raw.subarray(0, 500));
  const logs = await fixture.restart();
  await logs.sealEnded();
  await assert.rejects(access(path), { code: "ENOENT" });
  assert.ok(encodeAll((await gather(logs, attemptId)).records).equals(bytes));
});

test("the beginning of a record at the end of an ended log is not kept", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const { bytes, records } = makeLog({ count: 10, seed: 5 });
  const lastOffset = records.at(-1)?.offset ?? 0;
  await logs.append(attemptId, 0, bytes.subarray(0, lastOffset + 17));
  const follower = gather(logs, attemptId, { follow: true });
  assert.equal((await logs.finish(attemptId)).logBytes, lastOffset);
  assert.equal((await follower).nextOffset, lastOffset);
  const read = await gather(logs, attemptId, { follow: true });
  assert.ok(encodeAll(read.records).equals(bytes.subarray(0, lastOffset)));
  assert.ok(read.complete);

  const other = uuidV4();
  await logs.append(other, 0, bytes.subarray(0, 5));
  assert.deepEqual(await logs.finish(other), { attemptId: other, logBytes: 0, blobKey: null, digest: null });
});

test("a log that is no sequence of records is sealed byte by byte, and reading says where", async (t) => {
  const { logs, attemptId, blobs } = await setupLogs(t);
  const { bytes } = makeLog({ count: 10, seed: 6 });
  const broken = Buffer.concat([bytes, Buffer.alloc(2_000_000, 0xee)]);
  await appendAll(logs, attemptId, { bytes: broken, pieceBytes: 100_000 });
  const place = await logs.finish(attemptId);
  assert.equal(place.logBytes, broken.byteLength);
  const blob = await readBlob(blobs, place);
  const indexStart = Number(Buffer.from(blob).readBigUInt64LE(blob.byteLength - FOOTER_BYTES + 8));
  assert.ok(gunzipSync(blob.subarray(0, indexStart)).equals(broken));
  for (const options of [{}, { tailLines: 3 }, { offset: bytes.byteLength }]) {
    await assert.rejects(gather(logs, attemptId, options), { code: "data_loss" });
  }
});

test("a damaged or missing blob is reported as lost data and never read as something else", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hodei-blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const fixture = await setupLogs(t, { blobs: openDirectoryBlobStore(directory) });
  const { bytes } = makeLog({ count: 300, seed: 7 });
  await fixture.logs.append(fixture.attemptId, 0, bytes);
  const { blobKey } = await fixture.logs.finish(fixture.attemptId);
  const file = join(directory, blobKey ?? "");
  const good = await readFile(file);
  for (let round = 0; round < 60; round += 1) {
    const damaged = Buffer.from(good);
    const at = Math.floor(((round + 0.5) / 60) * good.byteLength);
    damaged[at] = (damaged[at] ?? 0) ^ (1 << (round % 8));
    await writeFile(file, damaged);
    const logs = await fixture.restart();
    await gather(logs, fixture.attemptId).then(
      // Some bits of a gzip header, such as its time, mean nothing.
      (read) => assert.ok(encodeAll(read.records).equals(bytes), `byte ${at}`),
      (error: AppError) => assert.equal(error.code, "data_loss", `byte ${at}: ${error.message}`),
    );
  }
  await truncate(file, 10);
  await assert.rejects(gather(await fixture.restart(), fixture.attemptId), { code: "data_loss" });
  await rm(file);
  await assert.rejects(gather(await fixture.restart(), fixture.attemptId), { code: "data_loss" });
});

test("the log of a job that ended is sealed once the store lists it, and then not again", async (t) => {
  const store = createMemoryStore({ random: systemRandom });
  const { logs, path, attemptId } = await setupLogs(t, { store });
  const { bytes } = makeLog({ count: 30, seed: 11 });
  const job = newJobOf();
  const { nowMs } = job;
  await store.insertJobs([job]);
  const apply = async (input: JobInput): Promise<void> => {
    assert.ok((await store.applyInput({ jobId: job.id, input, nowMs })).ok);
  };
  await apply({ type: "assign", attemptId, workerId: uuidV4() });
  await apply({ type: "start", attemptId, startedAtMs: nowMs });
  await logs.append(attemptId, 0, bytes);
  await logs.sealEnded();
  assert.equal(await store.getSealedLog(attemptId), null);
  await apply({ type: "finish", attemptId, result: resultOf({ logEnd: bytes.byteLength }) });
  await logs.sealEnded();
  assert.equal((await store.getSealedLog(attemptId))?.logBytes, bytes.byteLength);
  await assert.rejects(access(path), { code: "ENOENT" });
  assert.deepEqual(await store.listUnsealed(10), []);
  assert.ok(encodeAll((await gather(logs, attemptId)).records).equals(bytes));
});

test("ended logs are sealed, those with bytes on their way wait, and a gap is made visible", async (t) => {
  const ended: Attempt[] = [];
  const sealed = new Map<string, SealedLog>();
  let nowMs = 1_000_000;
  const { logs } = await setupLogs(t, {
    store: {
      getSealedLog: async (id) => sealed.get(id) ?? null,
      setSealedLog: async (log) => void sealed.set(log.attemptId, log),
      listUnsealed: async () => ended.filter(({ id }) => !sealed.has(id)),
    },
    clock: { nowMs: () => nowMs, monotonicMs: () => nowMs, schedule: () => () => {}, sleep: async () => {} },
    limits: { missingLogWaitMs: 60_000 },
  });
  const { bytes, records } = makeLog({ count: 20, seed: 8 });
  const ids = { whole: uuidV4(), late: uuidV4(), empty: uuidV4(), lost: uuidV4() };
  ended.push(
    endedAttempt(ids.whole, { logBytes: bytes.byteLength }),
    endedAttempt(ids.late, { logBytes: bytes.byteLength + 500 }),
    endedAttempt(ids.empty, { logBytes: 0 }),
    endedAttempt(ids.lost, { logBytes: 0, cause: "worker_lost" }),
  );
  for (const id of [ids.whole, ids.late]) await logs.append(id, 0, bytes);
  await logs.append(ids.lost, 0, bytes.subarray(0, bytes.byteLength - 1));
  await Promise.all([logs.sealEnded(), logs.sealEnded()]);
  assert.deepEqual([...sealed.keys()].toSorted(), [ids.whole, ids.empty, ids.lost].toSorted());
  assert.deepEqual(await readText(logs, ids.lost), [
    ...records.slice(0, -1).map(({ data }) => Buffer.from(data).toString("latin1")),
    '{"reason":"worker_lost","bytes":null,"limit_bytes":null}',
  ]);

  nowMs += 60_000;
  await logs.sealEnded();
  assert.equal(
    (await readText(logs, ids.late)).at(-1),
    '{"reason":"not_received","bytes":500,"limit_bytes":null}',
  );
  assert.equal((await readText(logs, ids.late)).length, records.length + 1);
});

test("the record of a gap is written once, however often sealing has to be tried", async (t) => {
  const attemptId = uuidV4();
  let failures = 3;
  const { logs } = await setupLogs(t, {
    store: {
      getSealedLog: async () => null,
      setSealedLog: async () => {
        if (failures-- > 0) throw new AppError("unavailable", "store sealed log: away");
      },
      listUnsealed: async () => [endedAttempt(attemptId, { logBytes: 0, cause: "worker_lost" })],
    },
  });
  await logs.append(attemptId, 0, encodeRecord({ stream: "stdout", timeMs: 1, data: Buffer.from("a\n") }));
  for (let round = 0; round < 4; round += 1) await logs.sealEnded();
  assert.equal((await readText(logs, attemptId)).length, 2);
});

test("a log of a lost worker that is malformed is sealed without one", async (t) => {
  const attemptId = uuidV4();
  const sealed = new Map<string, SealedLog>();
  const { logs } = await setupLogs(t, {
    store: {
      getSealedLog: async (id) => sealed.get(id) ?? null,
      setSealedLog: async (log) => void sealed.set(log.attemptId, log),
      listUnsealed: async () => [endedAttempt(attemptId, { logBytes: 0, cause: "worker_lost" })],
    },
  });
  await logs.append(attemptId, 0, Buffer.alloc(500, 0xee));
  await logs.sealEnded();
  assert.equal(sealed.get(attemptId)?.logBytes, 500);
});

test("stopping leaves off a seal, and the next start goes on with a whole log", async (t) => {
  const fixture = await setupLogs(t);
  const { bytes } = makeLog({ count: 9000, seed: 9, maxDataBytes: 8000 });
  await appendAll(fixture.logs, fixture.attemptId, { bytes, pieceBytes: 65_536 });
  const sealing = fixture.logs.finish(fixture.attemptId);
  sealing.catch(() => {});
  await fixture.logs.length(fixture.attemptId);
  const logs = await fixture.restart();
  await assert.rejects(sealing, { code: "unavailable" });
  assert.equal(await logs.length(fixture.attemptId), bytes.byteLength);
  assert.equal((await logs.finish(fixture.attemptId)).logBytes, bytes.byteLength);
  assert.ok(encodeAll((await gather(logs, fixture.attemptId)).records).equals(bytes));
});

test("an end is awaited exactly as long as is said", () => {
  const known = { lengthBytes: 10, missingLogWaitMs: 100, nowMs: 1099 };
  const attempt = { logBytes: 11, cause: null, startedAtMs: 500, finishedAtMs: 1000 };
  assert.deepEqual(logEnd(attempt, known), { isComplete: false });
  assert.equal(logEnd(attempt, { ...known, nowMs: 1100 }).isComplete, true);
  assert.deepEqual(logEnd(attempt, { ...known, lengthBytes: 11 }), { isComplete: true, gap: null });
});

test("an attempt that was lost before its first byte arrived has a gap, unless it never started", () => {
  const known = { lengthBytes: 0, missingLogWaitMs: 100, nowMs: 1000 };
  const attempt = { logBytes: 0, cause: "worker_lost", startedAtMs: 500, finishedAtMs: 1000 } as const;
  assert.deepEqual(logEnd(attempt, known), {
    isComplete: true,
    gap: { reason: "worker_lost", bytes: null, limitBytes: null },
  });
  assert.deepEqual(logEnd({ ...attempt, startedAtMs: null }, known), { isComplete: true, gap: null });
});

function endedAttempt(id: string, fields: Partial<Attempt>): Attempt {
  return {
    id,
    jobId: uuidV4(),
    number: 1,
    workerId: uuidV4(),
    runnerId: "",
    state: "failed",
    cause: "exit_code",
    exitCode: 1,
    signal: null,
    message: "",
    queuedAtMs: 0,
    scheduledAtMs: 0,
    startedAtMs: 0,
    finishedAtMs: 1_000_000,
    usage: null,
    steps: [],
    logBytes: 0,
    ...fields,
  };
}

async function readText(logs: Parameters<typeof gather>[0], attemptId: string): Promise<string[]> {
  const { records } = await gather(logs, attemptId);
  return records.map(({ data }) => Buffer.from(data).toString("latin1"));
}

async function readBlob(blobs: BlobStore, place: SealedLog): Promise<Uint8Array> {
  const key = place.blobKey ?? assert.fail("there is no blob");
  return blobs.read(key, { start: 0, end: (await blobs.size(key)) ?? 0 });
}
