import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { eventually } from "../../base/eventually.ts";
import { readGap, type LogGap } from "../../core/log-gap.ts";
import { decodeRecords, type LogRecord } from "../../core/log-record.ts";
import { bash, makeStep, startRunnerUnderTest, type FakeAgent } from "../fake-agent.ts";
import type { RunnerOptions } from "../runner.ts";

const QUOTA_BYTES = 100_000;

async function setup(t: TestContext, options: Partial<RunnerOptions> = {}): Promise<FakeAgent> {
  const { agent, stop } = await startRunnerUnderTest(options);
  t.after(stop);
  return agent;
}

async function readRecords(agent: FakeAgent, attemptId: string): Promise<LogRecord[]> {
  return [...decodeRecords(await agent.spoolBytes(attemptId))];
}

function gapsOf(records: readonly LogRecord[]): (LogGap | null)[] {
  return records.filter(({ stream }) => stream === "gap").map(({ data }) => readGap(data));
}

function quotaGap(bytes: number | null): LogGap {
  return { reason: "log_quota", bytes, limitBytes: QUOTA_BYTES };
}

function outputOf(records: readonly LogRecord[]): string {
  const output = records.filter(({ stream }) => stream === "stdout" || stream === "stderr");
  return Buffer.concat(output.map(({ data }) => data)).toString();
}

/** The first bytes of what `seq` prints. */
function numbers(bytes: number): string {
  let text = "";
  for (let number = 1; text.length < bytes; number += 1) text += `${number}\n`;
  return text.slice(0, bytes);
}

test("a job that prints more than its quota is ended, and the log holds just the quota", async (t) => {
  const agent = await setup(t);
  const job = bash("trap 'echo told; exit 0' TERM; seq 1000000; while :; do sleep 0.05; done");
  const end = await agent.finish({ ...job, logQuotaBytes: QUOTA_BYTES });
  assert.deepEqual([end.state, end.cause], ["failed", "log_quota"]);
  assert.equal(end.message, "more output than the log quota of 97.7 KiB");
  const records = await readRecords(agent, end.attemptId);
  assert.equal(outputOf(records), numbers(QUOTA_BYTES));
  const [begin, total, ...more] = gapsOf(records);
  assert.deepEqual([begin, more], [quotaGap(null), []]);
  assert.ok((total?.bytes ?? 0) > 0);
  const last = records.at(-1);
  assert.equal(last?.stream, "system");
  assert.match(Buffer.from(last.data).toString(), /more output than the log quota of 97.7 KiB/);
});

test("a job that ignores the end of its quota is killed after the grace", async (t) => {
  const agent = await setup(t);
  const job = bash("trap '' TERM; cat /dev/zero");
  const end = await agent.finish({ ...job, logQuotaBytes: QUOTA_BYTES, graceMs: 200 });
  assert.deepEqual([end.state, end.cause], ["failed", "log_quota"]);
  assert.equal(outputOf(await readRecords(agent, end.attemptId)), "\0".repeat(QUOTA_BYTES));
});

test("a job that has ended by itself before its last output was read fails as well", async (t) => {
  const agent = await setup(t);
  for (let round = 0; round < 5; round += 1) {
    const job = bash("head -c 1025 /dev/zero");
    const end = await agent.finish({ ...job, logQuotaBytes: 1024 });
    assert.deepEqual([end.state, end.cause], ["failed", "log_quota"]);
    const records = await readRecords(agent, end.attemptId);
    assert.equal(outputOf(records).length, 1024);
    assert.deepEqual(
      gapsOf(records).map((gap) => gap?.bytes),
      [null, 1],
    );
  }
});

test("a job that prints exactly its quota has not passed it", async (t) => {
  const agent = await setup(t);
  const job = bash("head -c 1000 /dev/zero; head -c 24 /dev/zero >&2");
  const end = await agent.finish({ ...job, logQuotaBytes: 1024 });
  assert.equal(end.state, "succeeded");
  assert.deepEqual(gapsOf(await readRecords(agent, end.attemptId)), []);
});

test("with truncate the job goes on to its end, and the log says how much is left out", async (t) => {
  const agent = await setup(t);
  const total = 20_000_000;
  const counted = numbers(108_894);
  const steps = [
    makeStep("loud", `seq 20000; head -c ${total} /dev/zero`),
    makeStep("after", "echo nobody reads this >&2; exit 3"),
  ];
  const end = await agent.finish({ steps, logQuotaBytes: QUOTA_BYTES, onLogQuota: "truncate" });
  assert.deepEqual([end.state, end.cause, end.exitCode], ["failed", "exit_code", 3]);
  const records = await readRecords(agent, end.attemptId);
  assert.equal(outputOf(records), numbers(QUOTA_BYTES));
  const leftOut = counted.length + total - QUOTA_BYTES + "nobody reads this\n".length;
  assert.deepEqual(gapsOf(records), [quotaGap(null), quotaGap(leftOut)]);
  const said = records
    .filter(({ stream }) => stream === "system")
    .map(({ data }) => Buffer.from(data).toString());
  assert.deepEqual(said, ["▶ step 1/2: loud\n", "▶ step 2/2: after\n", "✖ step 2/2: after: exit code 3\n"]);
});

test("truncation is visible while the job still runs, and never waits for the spool", async (t) => {
  const agent = await setup(t, { spoolLimitBytes: 10_000 });
  const attemptId = agent.run({
    ...bash(`head -c ${QUOTA_BYTES} /dev/zero; seq 3000000; echo 50 through > "$HODEI_PROGRESS"; sleep 60`),
    logQuotaBytes: QUOTA_BYTES,
    onLogQuota: "truncate",
  });
  let acked = 0;
  await eventually(async () => {
    const known = agent.heard.findLast((message) => message.type === "log")?.logEnd ?? 0;
    // Only until the quota is used up: from then on nothing is acknowledged any more.
    if (acked < QUOTA_BYTES && known > acked) {
      agent.send({ type: "log_acked", attemptId, logAcked: (acked = known) });
    }
    return gapsOf(await readRecords(agent, attemptId)).length > 0;
  });
  assert.deepEqual(gapsOf(await readRecords(agent, attemptId)), [quotaGap(null)]);
  // The second printer has more to say than pipe and spool can hold.
  await agent.next("progress", ({ progress }) => progress.message === "through");
  agent.send({ type: "control", attemptId, action: "cancel" });
  assert.equal((await agent.result(attemptId)).state, "cancelled");
});
