import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { decodeRecords } from "../../core/log-record.ts";
import { SEGMENT_BYTES, spoolDirectory } from "../../protocol/spool-layout.ts";
import { bash, startRunnerUnderTest, type RunnerUnderTest } from "../fake-agent.ts";
import type { RunnerOptions } from "../runner.ts";

async function withRunner(
  options: Partial<RunnerOptions>,
  run: (setup: RunnerUnderTest) => Promise<void>,
): Promise<void> {
  const setup = await startRunnerUnderTest(options);
  try {
    await run(setup);
  } finally {
    await setup.stop();
  }
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Prints 50 MiB on each stream: random binary pieces of many sizes, and long and short lines. */
const PRINTER = `
const { createHash, randomBytes } = require("node:crypto"); const fs = require("node:fs");
const pool = randomBytes(1 << 20); const left = [0, 50 << 20, 50 << 20]; const hash = [0, createHash("sha256"), createHash("sha256")];
for (let i = 1; left[1] + left[2] > 0; i++) {
  const fd = left[1 + (i % 2)] > 0 ? 1 + (i % 2) : 2 - (i % 2);
  const size = Math.min(left[fd], [1, 100, 4096, 70000, 300000][i % 5]); const start = (i * 7919) % (pool.length - size);
  for (let at = start; at < start + size; ) { const n = fs.writeSync(fd, pool, at, start + size - at); hash[fd].update(pool.subarray(at, at + n)); at += n; }
  left[fd] -= size;
}
fs.writeFileSync(process.env.HODEI_OUTPUT, "stdout=" + hash[1].digest("hex") + "\\nstderr=" + hash[2].digest("hex") + "\\n");
`;

test("a hundred mebibytes on two streams arrive byte for byte, in whole records and closed segments", async () => {
  await withRunner({}, async ({ agent, directory }) => {
    const attemptId = agent.run({
      command: { kind: "script", interpreter: "node", content: PRINTER, safetyHeaders: true },
    });
    const result = await agent.result(attemptId);
    assert.equal(result.state, "succeeded");
    assert.equal(sha256(await agent.logBytes(attemptId, "stdout")), result.outputs["stdout"]);
    assert.equal(sha256(await agent.logBytes(attemptId, "stderr")), result.outputs["stderr"]);
    assert.equal((await agent.spoolBytes(attemptId)).length, result.logEnd);
    const told = agent.heard.filter((message) => message.type === "log").map(({ logEnd }) => logEnd);
    assert.deepEqual(
      told,
      told.toSorted((a, b) => a - b),
    );
    assert.equal(told.at(-1), result.logEnd);
    const names = (await readdir(spoolDirectory(directory, attemptId))).toSorted();
    assert.ok(names.length > 5 && names.length <= result.logEnd / SEGMENT_BYTES + 1, String(names));
  });
});

test("a job that prints more than the server takes waits, and goes on when it is acknowledged", async () => {
  const spoolLimitBytes = 1024 * 1024;
  await withRunner({ spoolLimitBytes }, async ({ agent, directory }) => {
    const total = 6 * 1024 * 1024;
    const attemptId = agent.run(bash(`head -c ${total} /dev/zero; echo end >&2`));
    const logEnd = () =>
      agent.heard.findLast((message) => message.type === "log" && message.attemptId === attemptId);
    const end = () => {
      const message = logEnd();
      return message?.type === "log" ? message.logEnd : 0;
    };
    await eventually(() => end() > spoolLimitBytes);
    // Nothing more may come: the limit, what had been read when it was reached, and no end.
    await systemClock.sleep(300);
    assert.ok(end() < spoolLimitBytes + 512 * 1024, `${end()} bytes in the spool`);
    assert.equal(
      agent.heard.some((message) => message.type === "result"),
      false,
    );
    for (
      let acked = 0;
      !agent.heard.some((message) => message.type === "result");
      await systemClock.sleep(2)
    ) {
      if (end() > acked) agent.send({ type: "log_acked", attemptId, logAcked: (acked = end()) });
    }
    const result = await agent.result(attemptId);
    assert.equal(result.state, "succeeded");
    assert.ok(result.logEnd > total);
    agent.send({ type: "log_acked", attemptId, logAcked: result.logEnd });
    await eventually(async () => (await readdir(spoolDirectory(directory, attemptId))).length === 0, {
      what: "removal of acknowledged segments",
    });
  });
});

test("a cancelled job whose log is not taken still ends", async () => {
  await withRunner({ spoolLimitBytes: 256 * 1024 }, async ({ agent }) => {
    const attemptId = agent.run({ ...bash("cat /dev/zero"), graceMs: 100 });
    await agent.next("log", (message) => message.logEnd > 256 * 1024);
    agent.send({ type: "control", attemptId, action: "cancel" });
    assert.equal((await agent.result(attemptId)).state, "cancelled");
  });
});

test("bytes that are no text stay as they are", async () => {
  await withRunner({}, async ({ agent }) => {
    const end = await agent.finish(bash(`printf '\\xff\\xfe\\x00\\xc3'; printf '\\x80' >&2`));
    assert.deepEqual([...(await agent.logBytes(end.attemptId, "stdout"))], [0xff, 0xfe, 0x00, 0xc3]);
    assert.deepEqual([...(await agent.logBytes(end.attemptId, "stderr"))], [0x80]);
  });
});

test("a line is told to the agent while the job goes on, with the time it was printed", async () => {
  await withRunner({}, async ({ agent }) => {
    const beforeMs = systemClock.nowMs();
    const attemptId = agent.run(bash("echo now; sleep 60"));
    const told = await agent.next("log", (message) => message.attemptId === attemptId);
    const [record] = decodeRecords(await agent.spoolBytes(attemptId));
    assert.equal(record?.nextOffset, told.logEnd);
    assert.equal(Buffer.from(record?.data ?? []).toString(), "now\n");
    assert.ok(record.timeMs >= beforeMs && record.timeMs <= systemClock.nowMs());
    agent.send({ type: "control", attemptId, action: "kill" });
    await agent.result(attemptId);
  });
});

test("a job that prints nothing leaves no file in the spool", async () => {
  await withRunner({}, async ({ agent, directory }) => {
    const end = await agent.finish(bash("true"));
    assert.equal(end.logEnd, 0);
    await assert.rejects(readdir(spoolDirectory(directory, end.attemptId)), { code: "ENOENT" });
  });
});
