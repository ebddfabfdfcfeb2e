import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock, type Clock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { isProcessAlive, signalProcess, type ProcessIdentity } from "../base/process-identity.ts";
import { systemRandom } from "../base/random.ts";
import { definitionWith } from "../core/job.ts";
import { MAX_LOG_BATCH_BYTES, type WorkerMessage } from "../core/link.ts";
import { decodeRecords } from "../core/log-record.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import { Agent } from "./agent.ts";
import { FakeServer, type FakeStream } from "./fake-server.ts";

const workerProgram = fileURLToPath(new URL("../worker-main.js", import.meta.url));
const WORKER_ID = "01980000-0000-7000-8000-000000000003";
const ATTEMPT_ID = "01980000-0000-7000-8000-00000000000b";
const SPOOL_LIMIT_BYTES = 1024 * 1024;
const CREDIT_BYTES = 300_000;

/** Heartbeats every half second instead of ten. */
const fastClock: Clock = {
  ...systemClock,
  schedule: (delayMs, run) => systemClock.schedule(delayMs / 20, run),
};

/** A real agent with its runner, and the far end of its stream. */
async function setup(t: TestContext, clock: Clock): Promise<FakeServer> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-slow-server-"));
  const server = await FakeServer.start();
  const agent = new Agent({
    serverUrl: server.url,
    token: "token",
    tokenFile: null,
    directory,
    workerProgram,
    environment: {
      PATH: "/usr/bin:/bin",
      HODEI_LOG_LEVEL: "silent",
      HODEI_SPOOL_LIMIT_BYTES: String(SPOOL_LIMIT_BYTES),
    },
    offlineExitMs: null,
    isStatic: false,
    describe: async (capabilities) => ({
      ...sampleWorker,
      workerId: WORKER_ID,
      capabilities: [...capabilities],
    }),
    clock,
    random: { ...systemRandom, fraction: () => 0.01 },
    log: silentLogger,
  });
  t.after(async () => {
    const pid = await readFile(join(directory, "runner.pid"), "utf8").catch(() => null);
    await agent.stop();
    await server.stop();
    const runner = pid === null ? null : (JSON.parse(pid) as ProcessIdentity);
    if (runner !== null) signalProcess(runner, "SIGTERM");
    await eventually(() => runner === null || !isProcessAlive(runner), { what: "the end of the runner" });
    await rm(directory, { recursive: true, force: true });
  });
  return server;
}

/** What a server has of the log of the attempt, over all streams. */
class TakenLog {
  bytes = Buffer.alloc(0);
  /** Where the first piece of each stream began. */
  readonly beginnings: number[] = [];
  readonly #read = new Map<FakeStream, number>();

  /** Takes what has arrived on a stream, and answers its heartbeats. */
  take(stream: FakeStream): void {
    const from = this.#read.get(stream) ?? 0;
    const news = stream.heard.slice(from);
    this.#read.set(stream, from + news.length);
    const pieces: Uint8Array[] = [];
    let end = this.bytes.byteLength;
    for (const message of news) {
      if (message.type === "heartbeat") stream.send({ type: "heartbeat_ack", sequence: message.sequence });
      if (message.type !== "log_batch") continue;
      if (!stream.heard.slice(0, from).some(({ type }) => type === "log_batch") && pieces.length === 0) {
        this.beginnings.push(message.offset);
      }
      assert.equal(message.offset, end, "every piece follows the one before it");
      pieces.push(message.data);
      end += message.data.byteLength;
    }
    this.bytes = Buffer.concat([this.bytes, ...pieces]);
  }
}

function welcome(stream: FakeStream, logAcked: number | null): void {
  stream.send({
    type: "welcome",
    heartbeatIntervalMs: 10_000,
    leaseMs: 900_000,
    attempts: logAcked === null ? [] : [{ attemptId: ATTEMPT_ID, proceed: true, logAcked }],
    logCreditBytes: CREDIT_BYTES,
  });
}

function runJob(stream: FakeStream, script: string): void {
  const command = { kind: "script", interpreter: "bash", content: script, safetyHeaders: true } as const;
  const definition = definitionWith({ name: "x", command, graceMs: 500 });
  stream.send({ type: "run_job", attemptId: ATTEMPT_ID, jobId: "j", attemptNumber: 1, definition });
}

function heartbeats(stream: FakeStream): Extract<WorkerMessage, { type: "heartbeat" }>[] {
  return stream.heard.filter((message) => message.type === "heartbeat");
}

function outputOf(log: Buffer): string {
  const records = [...decodeRecords(log)].filter(({ stream }) => stream === "stdout");
  return Buffer.concat(records.map(({ data }) => data)).toString();
}

function numbersTo(last: number): string {
  return Array.from({ length: last }, (_, index) => `${index + 1}\n`).join("");
}

test("a server that acknowledges nothing makes the job wait, while heartbeats and a cancel pass", async (t) => {
  const server = await setup(t, fastClock);
  const stream = await server.stream(0);
  welcome(stream, null);
  const taken = new TakenLog();
  runJob(stream, "seq 100000000");
  const logEnds = (): number[] => heartbeats(stream).map(({ attempts }) => attempts[0]?.logEnd ?? 0);
  await eventually(
    () => {
      taken.take(stream);
      const [last, before, beforeThat] = logEnds().toReversed();
      return (last ?? 0) >= SPOOL_LIMIT_BYTES && last === before && before === beforeThat;
    },
    { what: "three heartbeats of a job that waits" },
  );
  assert.ok((logEnds().at(-1) ?? 0) < SPOOL_LIMIT_BYTES + 512 * 1024);
  assert.ok(taken.bytes.byteLength >= CREDIT_BYTES - MAX_LOG_BATCH_BYTES);
  assert.ok(taken.bytes.byteLength < CREDIT_BYTES + MAX_LOG_BATCH_BYTES);

  stream.send({ type: "control", attemptId: ATTEMPT_ID, action: "cancel" });
  const { result } = await stream.next("result");
  assert.equal(result.state, "cancelled");
  // Slowly, but all of it: each acknowledgement lets as much come as it says.
  await eventually(() => {
    taken.take(stream);
    stream.send({ type: "log_ack", attemptId: ATTEMPT_ID, logAcked: taken.bytes.byteLength });
    return taken.bytes.byteLength === result.logEnd;
  });
  stream.send({ type: "result_ack", attemptId: ATTEMPT_ID });
  const output = outputOf(taken.bytes);
  assert.ok(output.length > SPOOL_LIMIT_BYTES / 2);
  assert.ok(numbersTo(400_000).startsWith(output), "what was printed is there to the byte");
});

test("a stream that is cut again and again goes on each time where the server has got to", async (t) => {
  const server = await setup(t, systemClock);
  const taken = new TakenLog();
  const last = 700_000;
  const acked: number[] = [];
  let end: number | null = null;
  for (let index = 0; end === null || taken.bytes.byteLength < end; index += 1) {
    const stream = await server.stream(index);
    const before = taken.bytes.byteLength;
    acked.push(before);
    welcome(stream, index === 0 ? null : before);
    if (index === 0) runJob(stream, `seq ${last}`);
    // Cut in the middle of what is on its way: what comes after this is lost.
    await eventually(() => {
      taken.take(stream);
      end ??= stream.heard.find((message) => message.type === "result")?.result.logEnd ?? null;
      const got = taken.bytes.byteLength - before;
      return got >= CREDIT_BYTES / 2 || taken.bytes.byteLength === end;
    });
    if (taken.bytes.byteLength === end) stream.send({ type: "result_ack", attemptId: ATTEMPT_ID });
    else stream.outbox.end();
  }
  assert.ok(acked.length > 10, `${acked.length} streams`);
  assert.deepEqual(taken.beginnings, acked.slice(0, taken.beginnings.length));
  assert.ok(outputOf(taken.bytes) === numbersTo(last), "the output is complete, and nothing is repeated");
});
