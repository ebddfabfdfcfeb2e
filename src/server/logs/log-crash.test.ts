import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { appendAll, encodeAll, gather, makeLog, setupLogs } from "./log-fixtures.ts";

/** Appends a log piece by piece and prints each length that was acknowledged. */
const SERVER = `
  const [, , directory, attemptId, file, storeUrl] = process.argv;
  const { openLogStore } = await import(storeUrl);
  const { readFile } = await import("node:fs/promises");
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const store = { getSealedLog: async () => null, setSealedLog: async () => {}, listUnsealed: async () => [] };
  const logs = await openLogStore({ directory, store, blobs: null, clock: null, log });
  const bytes = await readFile(file);
  // Stays until it is killed, or until its test is gone.
  process.stdin.resume();
  const underWay = [];
  for (let at = 0; at < bytes.byteLength; at += 3000) {
    const append = logs.append(attemptId, at, bytes.subarray(at, at + 3000));
    append.then(({ length }) => process.stdout.write(length + "\\n"));
    underWay.push(append);
    if (underWay.length > 20) await underWay.shift();
  }
`;

test("a server that is killed while it appends has kept every record that it acknowledged", async (t) => {
  for (const acknowledgements of [1, 30, 200]) {
    const { directory, attemptId, logs } = await setupLogs(t);
    const { bytes, records } = makeLog({ count: 20_000, seed: acknowledgements });
    const file = join(directory, "input");
    await writeFile(file, bytes);
    const acknowledged = await appendAndKill({ directory, attemptId, file, acknowledgements });

    const wholeBytes = records.findLast(({ offset }) => offset <= acknowledged)?.offset ?? 0;
    const length = await logs.length(attemptId);
    assert.ok(length >= wholeBytes, `${length} bytes are left of ${acknowledged}`);
    assert.ok(encodeAll((await gather(logs, attemptId)).records).equals(bytes.subarray(0, length)));
    await appendAll(logs, attemptId, { bytes, pieceBytes: 60_000, from: length });
    assert.equal((await logs.finish(attemptId)).logBytes, bytes.byteLength);
    assert.ok(encodeAll((await gather(logs, attemptId)).records).equals(bytes));
  }
});

/** Returns the last length that the server said to be safe. */
async function appendAndKill(run: {
  directory: string;
  attemptId: string;
  file: string;
  acknowledgements: number;
}): Promise<number> {
  const store = new URL("./log-store.js", import.meta.url).href;
  const script = join(run.directory, "server.mjs");
  await writeFile(script, SERVER);
  const server = spawn(process.execPath, [script, run.directory, run.attemptId, run.file, store], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = once(server, "exit");
  const lines: string[] = [];
  for await (const line of createInterface({ input: server.stdout })) {
    lines.push(line);
    if (lines.length === run.acknowledgements) server.kill("SIGKILL");
  }
  assert.deepEqual(await exited, [null, "SIGKILL"]);
  // The last line may be cut, and is then a smaller number.
  return Math.max(...lines.map(Number));
}
