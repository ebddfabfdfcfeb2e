import assert from "node:assert/strict";
import fs from "node:fs";
import { readFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { test, type TestContext } from "node:test";
import { eventually } from "../../../base/eventually.ts";
import { uuidV4 } from "../../../base/random.ts";
import { appendAll, encodeAll, gather, makeLog, setupLogs } from "../log-fixtures.ts";

type Callback = (error: NodeJS.ErrnoException | null) => void;

/** Stands between the log store and the system's fdatasync, which nothing else can observe. */
interface SyncTap {
  count: number;
  /** What becomes of each call from now on. */
  mode: "pass" | "hold" | "fail";
  /** Lets the calls that are held go on. */
  release(): void;
}

function tapSyncs(t: TestContext): SyncTap {
  const real = fs.fdatasync;
  const held: (() => void)[] = [];
  const tap: SyncTap = {
    count: 0,
    mode: "pass",
    release() {
      for (const run of held.splice(0)) run();
    },
  };
  const tapped = (fd: number, callback: Callback): void => {
    tap.count += 1;
    if (tap.mode === "fail") {
      callback(Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" }));
    } else if (tap.mode === "hold") held.push(() => real(fd, callback));
    else real(fd, callback);
  };
  Object.assign(fs, { fdatasync: tapped });
  syncBuiltinESMExports();
  t.after(() => {
    Object.assign(fs, { fdatasync: real });
    syncBuiltinESMExports();
    tap.mode = "pass";
    tap.release();
  });
  return tap;
}

test("nothing is acknowledged or read before it is synced", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const tap = tapSyncs(t);
  tap.mode = "hold";
  const { bytes } = makeLog({ count: 100, seed: 1 });
  const told: number[] = [];
  const writer = await logs.open(attemptId, {
    onDurable: (length) => told.push(length),
    onFailure: assert.fail,
  });
  let isAcknowledged = false;
  const append = logs.append(attemptId, 0, bytes).then(() => (isAcknowledged = true));
  await eventually(async () => (await readFile(path).catch(() => Buffer.alloc(0))).equals(bytes));
  await eventually(() => tap.count > 0);
  assert.equal(isAcknowledged, false);
  assert.deepEqual([await logs.length(attemptId), writer.durable, told], [0, 0, []]);
  assert.equal((await gather(logs, attemptId)).records.length, 0);
  tap.mode = "pass";
  tap.release();
  await append;
  assert.deepEqual(
    [await logs.length(attemptId), writer.durable, told.at(-1)],
    Array(3).fill(bytes.byteLength),
  );
  assert.ok(encodeAll((await gather(logs, attemptId)).records).equals(bytes));
});

test("what is written while a sync is under way waits for the next one, and shares it", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const tap = tapSyncs(t);
  const { bytes } = makeLog({ count: 1000, seed: 2 });
  tap.mode = "hold";
  const first = logs.append(attemptId, 0, bytes.subarray(0, 10));
  await eventually(() => tap.count === 1);
  const rest = appendAll(logs, attemptId, { bytes, pieceBytes: 100, from: 10 });
  tap.mode = "pass";
  tap.release();
  assert.deepEqual(await first, { ok: true, length: 10 });
  await rest;
  assert.ok(tap.count <= 10, `${tap.count} syncs for ${bytes.byteLength / 100} appends`);
});

test("a log whose sync hangs does not hold up the others", async (t) => {
  const { logs, attemptId } = await setupLogs(t);
  const tap = tapSyncs(t);
  const { bytes } = makeLog({ count: 10, seed: 3 });
  tap.mode = "hold";
  const stuck = logs.append(attemptId, 0, bytes);
  await eventually(() => tap.count === 1);
  tap.mode = "pass";
  for (let count = 0; count < 20; count += 1) await logs.append(uuidV4(), 0, bytes);
  assert.equal(await logs.length(attemptId), 0);
  tap.release();
  await stuck;
});

test("a sync that fails acknowledges nothing, cuts the file back, and the bytes can come again", async (t) => {
  const { logs, attemptId, path } = await setupLogs(t);
  const tap = tapSyncs(t);
  const { bytes } = makeLog({ count: 200, seed: 4 });
  await logs.append(attemptId, 0, bytes.subarray(0, 1000));
  tap.mode = "fail";
  const failures: number[] = [];
  const writer = await logs.open(attemptId, {
    onDurable: () => assert.fail(),
    onFailure: (_, length) => failures.push(length),
  });
  for (let round = 0; round < 3; round += 1) {
    await assert.rejects(appendAll(logs, attemptId, { bytes, pieceBytes: 500, from: 1000 }), {
      code: "unavailable",
      message: `sync log of attempt ${attemptId}: EIO: i/o error, fdatasync`,
    });
    await eventually(async () => (await readFile(path)).equals(bytes.subarray(0, 1000)));
  }
  assert.ok(failures.length >= 3 && failures.every((length) => length === 1000));
  tap.mode = "pass";
  assert.equal(writer.length, 1000);
  writer.close();
  await logs.append(attemptId, 1000, bytes.subarray(1000));
  assert.deepEqual(await readFile(path), bytes);
});
