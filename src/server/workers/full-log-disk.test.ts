import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger, type Logger } from "../../base/log.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import { mountSmallDisk, type SmallDisk } from "../../base/test-disk.ts";
import { LOG_CREDIT_BYTES, type ServerMessage } from "../../core/link.ts";
import { encodeRecord, wholeRecordsLength } from "../../core/log-record.ts";
import { sampleDefinition, sampleResult, sampleWorker } from "../../core/session-fixtures.ts";
import { openDirectoryBlobStore } from "../../storage/directory-blob-store.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { openLogStore, type LogStore } from "../logs/log-store.ts";
import { attemptLogPath } from "../logs/raw/attempt-path.ts";
import { WorkerConnection } from "./worker-connection.ts";

const DISK_BYTES = 4 * 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
const WORKER_ID = uuidV7(systemClock, systemRandom);

interface Parts {
  disk: SmallDisk;
  logs: LogStore;
  connection: WorkerConnection;
  heard: ServerMessage[];
  /** What the server logged as an error. */
  said: string[];
  /** Appends that the disk has refused. */
  refusals: { count: number };
  attemptId: string;
  otherId: string;
}

/** A connection whose worker runs two jobs, over real logs on a disk of their own. */
async function setup(t: TestContext): Promise<Parts | null> {
  const disk = await mountSmallDisk(t, DISK_BYTES);
  if (disk === null) return null;
  const store = createMemoryStore({ random: systemRandom });
  const said: string[] = [];
  const refusals = { count: 0 };
  const log = { ...silentLogger, child: () => log } as Logger;
  log.error = ((_: object, message: string) => void said.push(message)) as unknown as Logger["error"];
  const logs = await openLogStore({
    directory: join(disk.path, "logs"),
    blobs: openDirectoryBlobStore(join(disk.path, "blobs")),
    store,
    clock: systemClock,
    log,
  });
  const connection = new WorkerConnection(
    { id: WORKER_ID, pool: "", provider: "static", takesOneJob: false, info: sampleWorker },
    {
      store,
      logs: {
        append: async (...piece) => {
          try {
            return await logs.append(...piece);
          } catch (error) {
            refusals.count += 1;
            throw error;
          }
        },
        length: (id) => logs.length(id),
        finish: (id) => logs.finish(id),
        wake: (id) => logs.wake(id),
      },
      heartbeats: { add() {} },
      clock: systemClock,
      random: systemRandom,
      log,
      onJobChanged() {},
      onRoom() {},
      onIdle() {},
    },
  );
  const heard: ServerMessage[] = [];
  void (async () => {
    for await (const message of connection.messages) heard.push(message);
  })();
  t.after(async () => {
    connection.close();
    await logs.stop();
  });
  const assign = async (): Promise<string> => {
    const [jobId, attemptId] = [uuidV7(systemClock, systemRandom), uuidV7(systemClock, systemRandom)];
    const nowMs = systemClock.nowMs();
    await store.insertJobs([{ id: jobId, definition: sampleDefinition, idempotencyKey: null, nowMs }]);
    const input = { type: "assign", attemptId, workerId: WORKER_ID } as const;
    const applied = await store.applyInput({ jobId, input, nowMs });
    assert.ok(applied.ok);
    connection.assign({ attemptId, attemptNumber: 1, job: applied.job, logDurable: 0, runnerId: "" });
    await connection.receive({ type: "started", attemptId, startedAtMs: nowMs });
    return attemptId;
  };
  return {
    disk,
    logs,
    connection,
    heard,
    said,
    refusals,
    attemptId: await assign(),
    otherId: await assign(),
  };
}

/** As much log as a worker may send without an acknowledgement, in pieces that end inside of records. */
function makeLog(bytes: number): Buffer {
  const records: Uint8Array[] = [];
  for (let length = 0, index = 0; length < bytes; index += 1) {
    const data = Buffer.from(`${index}\n`.repeat(1 + (index % 3_000)));
    records.push(encodeRecord({ stream: "stdout", timeMs: index, data }));
    length += records.at(-1)?.byteLength ?? 0;
  }
  return Buffer.concat(records).subarray(0, bytes);
}

async function send(connection: WorkerConnection, attemptId: string, log: Buffer): Promise<void> {
  for (let offset = 0; offset < log.byteLength; offset += PIECE_BYTES) {
    const data = log.subarray(offset, offset + PIECE_BYTES);
    await connection.receive({ type: "log_batch", attemptId, offset, data });
  }
}

function ackedOf({ heard }: Parts, attemptId: string): number {
  const acks = heard.filter((message) => message.type === "log_ack");
  return acks.findLast((message) => message.attemptId === attemptId)?.logAcked ?? 0;
}

test("log for which the disk has no room waits on the stream, and all of it is stored when there is", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { disk, logs, connection, heard, said, refusals, attemptId, otherId } = parts;
  const log = makeLog(LOG_CREDIT_BYTES / 4);
  const early = log.subarray(0, 300_000);
  await send(connection, attemptId, early);
  await eventually(() => ackedOf(parts, attemptId) === early.byteLength);

  const empty = await disk.fill();
  await send(connection, attemptId, log);
  // All that is on its way, and then some more tries: any of them could have ended the stream.
  await eventually(() => refusals.count > log.byteLength / PIECE_BYTES);
  const held = [attemptId, otherId].map((id) => ({ attemptId: id, phase: "running", logEnd: 0 }) as const);
  await connection.receive({
    type: "heartbeat",
    sequence: 7,
    usage: null,
    draining: false,
    attempts: [...held],
  });
  await eventually(() => heard.some((message) => message.type === "heartbeat_ack" && message.sequence === 7));
  await connection.receive({ type: "result", attemptId: otherId, result: sampleResult() });
  await eventually(() => heard.some(({ type }) => type === "result_ack"));
  assert.equal(connection.isClosed, false);
  assert.ok(ackedOf(parts, attemptId) < log.byteLength);
  assert.deepEqual(said, ["the disk refuses logs, workers keep theirs"]);

  // Readers go on reading, and the file holds what was acknowledged and nothing else.
  let read = 0;
  for await (const batch of logs.read(attemptId, { offset: 0, follow: false, isEnded: () => false })) {
    read = batch.nextOffset;
  }
  assert.ok(read > 0 && read <= ackedOf(parts, attemptId));
  const path = attemptLogPath(join(disk.path, "logs"), attemptId);
  assert.equal((await stat(path)).size, await logs.length(attemptId));

  await empty();
  await eventually(() => ackedOf(parts, attemptId) === log.byteLength, { timeoutMs: 20_000 });
  assert.ok((await readFile(path)).equals(log), "the log is the same to the byte");
  assert.equal(connection.isClosed, false);
});

test("log that arrives while earlier log waits keeps its place", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { disk, connection, said, attemptId, otherId } = parts;
  const log = makeLog(1_000_000);
  const empty = await disk.fill();
  await send(connection, attemptId, log.subarray(0, 10 * PIECE_BYTES));
  await eventually(() => said.length > 0);
  const rest = async (): Promise<void> => {
    for (let offset = 10 * PIECE_BYTES; offset < log.byteLength; offset += PIECE_BYTES) {
      const data = log.subarray(offset, offset + PIECE_BYTES);
      await connection.receive({ type: "log_batch", attemptId, offset, data });
    }
  };
  await Promise.all([rest(), send(connection, otherId, log)]);
  await empty();
  const isWhole = (id: string): boolean => ackedOf(parts, id) === log.byteLength;
  await eventually(() => isWhole(attemptId) && isWhole(otherId), { timeoutMs: 20_000 });
  for (const id of [attemptId, otherId]) {
    assert.ok((await readFile(attemptLogPath(join(disk.path, "logs"), id))).equals(log));
  }
});

test("log that is missing in between still ends the stream at once", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { connection, heard, attemptId } = parts;
  await connection.receive({ type: "log_batch", attemptId, offset: 500, data: Buffer.alloc(10) });
  await eventually(() => connection.isClosed);
  assert.ok(heard.some((message) => message.type === "goaway"));
});

test("a log that cannot be sealed for want of room is read from its file, and sealed later", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { disk, logs, connection, heard, attemptId } = parts;
  const log = makeLog(500_000);
  const valid = log.subarray(0, wholeRecordsLength(log, log.byteLength));
  await send(connection, attemptId, valid);
  await eventually(() => ackedOf(parts, attemptId) === valid.byteLength);
  const empty = await disk.fill();
  const result = sampleResult({ logEnd: valid.byteLength });
  await connection.receive({ type: "result", attemptId, result });
  await eventually(() => heard.some((message) => message.type === "result_ack"));
  for (let round = 0; round < 3; round += 1) await logs.sealEnded();
  assert.equal(parts.said.filter((message) => message === "sealing a log failed").length, 1);
  const read = async (): Promise<number> => {
    let end = 0;
    const options = { offset: 0, follow: true, isEnded: () => true };
    for await (const batch of logs.read(attemptId, options)) end = batch.nextOffset;
    return end;
  };
  assert.equal(await read(), valid.byteLength);
  await stat(attemptLogPath(join(disk.path, "logs"), attemptId));
  await empty();
  await logs.sealEnded();
  await assert.rejects(stat(attemptLogPath(join(disk.path, "logs"), attemptId)), { code: "ENOENT" });
  assert.equal(await read(), valid.byteLength);
});
