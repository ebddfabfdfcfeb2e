import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { finished, type Finished } from "../../e2e/program.ts";
import { compareLog, type LogAccount } from "./log-account.ts";
import { readEnd, talkingJob, type StreamAccount, type TalkEnd, type TalkOptions } from "./talking-job.ts";

/** Runs a talking job as a plain process. */
async function setup(t: TestContext): Promise<{ output: Finished; printed: TalkEnd }> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-talk-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const talk: TalkOptions = {
    name: "talker",
    directory,
    ticks: 3,
    tickMs: 1,
    bytesPerTick: 150,
    exitCode: 7,
  };
  const { command, env } = talkingJob(talk);
  const script = command?.commandType?.case === "script" ? (command.commandType.value.content ?? "") : "";
  const child = spawn(process.execPath, ["-e", script], { env: { ...env, HODEI_ATTEMPT: "2" } });
  const output = await finished(child);
  const printed = await readEnd(talk, 2);
  assert.ok(printed);
  return { output, printed };
}

function account(bytes: Buffer): StreamAccount {
  return { bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") };
}

function logOf({ stdout, stderr }: Finished): LogAccount {
  return { stdout: account(stdout), stderr: account(Buffer.from(stderr)), system: "", isComplete: true };
}

test("a talking job accounts for what it prints, line by line", async (t) => {
  const { output, printed } = await setup(t);
  assert.equal(output.code, 7);
  assert.equal(printed.lines, 6);
  assert.deepEqual(
    output.stdout.toString().match(/^\d+ of talker attempt 2/gm),
    [1, 2, 3, 4, 5, 6].map((line) => `${line} of talker attempt 2`),
  );
  assert.equal(output.stderr, "tick 1\ntick 2\ntick 3\n");
  assert.deepEqual(compareLog(logOf(output), printed), []);
});

test("a log that lacks a byte, repeats a line or has no end is found", async (t) => {
  const { output, printed } = await setup(t);
  const whole = logOf(output);
  const short = account(output.stdout.subarray(1));
  const repeated = account(Buffer.concat([Buffer.from("tick 1\n"), Buffer.from(output.stderr)]));
  assert.match(compareLog({ ...whole, stdout: short }, printed).join(), /^stdout: printed were 600 bytes/);
  assert.match(compareLog({ ...whole, stderr: repeated }, printed).join(), /^stderr: printed were 21 bytes/);
  assert.deepEqual(compareLog({ ...whole, isComplete: false }, printed), ["the log is not complete"]);
  assert.deepEqual(compareLog(whole, null), ["the job never printed its last line"]);
});
