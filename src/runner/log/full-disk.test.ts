import assert from "node:assert/strict";
import { open, readdir, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { mountSmallDisk, type SmallDisk } from "../../base/test-disk.ts";
import { readGap } from "../../core/log-gap.ts";
import { decodeRecords } from "../../core/log-record.ts";
import { spoolDirectory } from "../../protocol/spool-layout.ts";
import { bash, startRunnerUnderTest, type FakeAgent } from "../fake-agent.ts";
import { frameChunk } from "./log-chunks.ts";
import { LogSpool } from "./log-spool.ts";

const DISK_BYTES = 8 * 1024 * 1024;

/** A runner whose directory is a disk of its own. */
async function setup(t: TestContext): Promise<{ disk: SmallDisk; agent: FakeAgent } | null> {
  const disk = await mountSmallDisk(t, DISK_BYTES);
  if (disk === null) return null;
  const { agent, stop } = await startRunnerUnderTest({ directory: join(disk.path, "worker") });
  t.after(stop);
  return { disk, agent };
}

function toldEnd(agent: FakeAgent, attemptId: string): number {
  const told = agent.heard.filter((message) => message.type === "log");
  return told.findLast((message) => message.attemptId === attemptId)?.logEnd ?? 0;
}

/** Waits until the job has filled the disk: its log does not grow any more. */
async function filled(agent: FakeAgent, attemptId: string, minBytes: number): Promise<void> {
  let last = 0;
  await eventually(
    () => {
      const end = toldEnd(agent, attemptId);
      const isStill = end === last && end >= minBytes;
      last = end;
      return isStill;
    },
    { intervalMs: 300, what: "a full disk" },
  );
}

/** Takes the log over as an agent does: keeps segments open, and acknowledges what it has. */
async function takeOver(agent: FakeAgent, attemptId: string): Promise<Buffer> {
  const files = new Map<string, FileHandle>();
  const pieces: Buffer[] = [];
  let taken = 0;
  const takeNew = async (): Promise<void> => {
    const end = toldEnd(agent, attemptId);
    if (end === taken) return;
    const piece = await readSpool({ directory: agent.directory, attemptId, files, from: taken, end });
    pieces.push(piece);
    taken += piece.byteLength;
    agent.send({ type: "log_acked", attemptId, logAcked: taken });
  };
  try {
    await eventually(
      async () => {
        await takeNew();
        const ended = agent.heard.find((message) => message.type === "result");
        return ended !== undefined && taken === ended.result.logEnd;
      },
      { timeoutMs: 30_000, what: "the whole log" },
    );
    return Buffer.concat(pieces);
  } finally {
    for (const file of files.values()) await file.close();
  }
}

async function readSpool(place: {
  directory: string;
  attemptId: string;
  files: Map<string, FileHandle>;
  from: number;
  end: number;
}): Promise<Buffer> {
  const spool = spoolDirectory(place.directory, place.attemptId);
  const names = (await readdir(spool)).toSorted();
  const name = names.findLast((segment) => Number.parseInt(segment, 10) <= place.from);
  assert.ok(name !== undefined, `byte ${place.from} is in no segment`);
  const file = place.files.get(name) ?? (await open(join(spool, name), "r"));
  place.files.set(name, file);
  const next = names[names.indexOf(name) + 1];
  const end = next === undefined ? place.end : Math.min(place.end, Number.parseInt(next, 10));
  const buffer = Buffer.alloc(end - place.from);
  const { bytesRead } = await file.read(buffer, 0, buffer.length, place.from - Number.parseInt(name, 10));
  return buffer.subarray(0, bytesRead);
}

function textOf(log: Buffer, stream: "stdout" | "stderr" | "gap"): string {
  const records = [...decodeRecords(log)].filter((record) => record.stream === stream);
  return Buffer.concat(records.map(({ data }) => data)).toString();
}

test("a job whose log fills the disk waits, can be paused, and goes on as the log is taken", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent } = parts;
  const attemptId = agent.run(bash("seq 3000000; echo end >&2"));
  await filled(agent, attemptId, 2 * 1024 * 1024);
  for (const action of ["pause", "resume"] as const) {
    agent.send({ type: "control", attemptId, action });
    assert.equal((await agent.next("control_ack", (message) => message.action === action)).error, "");
  }
  const log = await takeOver(agent, attemptId);
  const lines = Array.from({ length: 3_000_000 }, (_, index) => `${index + 1}\n`);
  assert.ok(textOf(log, "stdout") === lines.join(""), "the output is complete");
  assert.equal(textOf(log, "stderr"), "end\n");
  assert.equal((await agent.result(attemptId)).state, "succeeded");
});

test("a job on a full disk is cancelled at once, with all that it had printed", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent, disk } = parts;
  const attemptId = agent.run({ ...bash("while :; do echo more; done"), graceMs: 200 });
  await agent.next("log");
  await disk.fill();
  await filled(agent, attemptId, 1);
  const beforeMs = systemClock.monotonicMs();
  agent.send({ type: "control", attemptId, action: "cancel" });
  const result = await agent.result(attemptId);
  assert.ok(systemClock.monotonicMs() - beforeMs < 10_000);
  assert.deepEqual([result.state, result.message], ["cancelled", "cancelled"]);
  const log = await agent.spoolBytes(attemptId);
  assert.equal(log.byteLength, result.logEnd);
  assert.equal(textOf(log, "gap"), "");
  assert.match(textOf(log, "stdout"), /^(more\n){100,}$/);
});

test("the last words of a job that has filled the disk itself are kept", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent } = parts;
  const end = await agent.finish(bash("cat /dev/zero > big || { echo no room is left; exit 9; }"));
  assert.deepEqual([end.state, end.exitCode, end.message], ["failed", 9, "exit code 9"]);
  const log = await agent.spoolBytes(end.attemptId);
  assert.equal(textOf(log, "stdout"), "no room is left\n");
  assert.match(textOf(log, "stderr"), /No space left on device/);
});

test("a job that has filled the disk with files that it keeps goes on to print, all that it has", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent } = parts;
  const attemptId = agent.run(bash("cat /dev/zero > big || seq 500000"));
  const log = await takeOver(agent, attemptId);
  assert.ok(textOf(log, "stdout") === Array.from({ length: 500_000 }, (_, at) => `${at + 1}\n`).join(""));
  assert.equal((await agent.result(attemptId)).state, "succeeded");
});

test("a job that fills the disk again and again does not take the room for the end of its log", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent } = parts;
  const filler = "while :; do head -c 4096 /dev/zero >> big || sleep 0.02; done 2> /dev/null";
  const attemptId = agent.run({ ...bash(`{ ${filler}; } & while :; do echo more; done`), graceMs: 200 });
  await agent.next("log");
  await filled(agent, attemptId, 1);
  const before = toldEnd(agent, attemptId);
  await eventually(() => toldEnd(agent, attemptId) > before, {
    timeoutMs: 30_000,
    what: "room for a job that waits",
  });
  await filled(agent, attemptId, before);
  agent.send({ type: "control", attemptId, action: "cancel" });
  const result = await agent.result(attemptId);
  assert.deepEqual([result.state, result.message], ["cancelled", "cancelled"]);
  const log = await agent.spoolBytes(attemptId);
  assert.equal(textOf(log, "gap"), "");
  assert.match(textOf(log, "stdout"), /^(more\n){100,}$/);
});

test("a job that cannot be set up for want of room fails with the reason, and the next one runs", async (t) => {
  const parts = await setup(t);
  if (parts === null) return;
  const { agent, disk } = parts;
  const empty = await disk.fill();
  for (const content of ["true", `true # ${"long ".repeat(10_000)}`]) {
    const end = await agent.finish(bash(content));
    assert.deepEqual([end.state, end.cause], ["failed", "server_error"]);
    assert.match(end.message, /the worker could not run the job: .*no space left/);
  }
  await empty();
  assert.equal((await agent.finish(bash("true"))).state, "succeeded");
});

test("a log that cannot be written to its end has a gap that says how much", async (t) => {
  const disk = await mountSmallDisk(t, DISK_BYTES);
  if (disk === null) return;
  const clock = new ManualClock();
  const directory = join(disk.path, "spool");
  const spool = new LogSpool({
    directory,
    limitBytes: DISK_BYTES,
    clock,
    log: silentLogger,
    onGrow() {},
    onRoom() {},
    makeRoom: async () => {},
  });
  spool.append(frameChunk("stdout", 0, Buffer.from("kept\n")));
  await eventually(() => spool.end > 0);
  await disk.fill();
  for (let count = 0; count < 3; count += 1) spool.append(frameChunk("stdout", 0, Buffer.alloc(50_000)));
  let lostBytes = -1;
  const closed = spool.close().then((bytes) => (lostBytes = bytes));
  for (let seconds = 0; seconds < 60; seconds += 1) {
    await eventually(() => clock.waiting > 0);
    clock.advance(1_000);
  }
  // As long as nobody wants its end it waits.
  assert.equal(lostBytes, -1);
  spool.hurry();
  await eventually(() => {
    clock.advance(1_000);
    return lostBytes >= 0;
  });
  await closed;
  assert.equal(lostBytes, 150_000);
  const [name, ...others] = await readdir(directory);
  assert.deepEqual(others, []);
  const file = await open(join(directory, name ?? ""));
  const records = [...decodeRecords(await file.readFile())];
  await file.close();
  assert.equal(records.at(-1)?.nextOffset, spool.end);
  assert.deepEqual(
    records.map(({ stream }) => stream),
    ["stdout", "gap"],
  );
  const gap = readGap(records[1]?.data ?? new Uint8Array());
  assert.deepEqual(gap, { reason: "disk_full", bytes: 150_000, limitBytes: null });
});
