import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { encodeRecord, type LogStreamName } from "../../core/log-record.ts";
import { sampleResult } from "../../core/session-fixtures.ts";
import { JobService } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService, LogStream } from "../../protocol/gen/hodei/v1/logs_pb.ts";
import { createMemoryBlobStore } from "../../storage/memory/memory-blob-store.ts";
import { openLogStore, type LogStore } from "../logs/log-store.ts";
import { startTestApi } from "./test-api.ts";

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-logs-api-"));
  const opened: LogStore[] = [];
  const api = await startTestApi(t, {
    logs: async (store) => {
      const logs = await openLogStore({
        directory,
        blobs: createMemoryBlobStore(),
        store,
        clock: systemClock,
        log: silentLogger,
      });
      opened.push(logs);
      return logs;
    },
  });
  const [logs] = opened as [LogStore];
  t.after(async () => {
    // The servers end their readers first.
    await Promise.all([api.web.stop(), api.grpc.stop()]);
    await logs.stop();
    await rm(directory, { recursive: true, force: true });
  });
  const queue = async (maxRetries = 0): Promise<string> => {
    const definition = {
      name: "x",
      command: { commandType: { case: "shell" as const, value: { cmd: "true" } } },
      retry: { maxRetries, backoff: { nanos: 1 } },
    };
    return (await api.client(JobService).queueJob({ definition })).jobId;
  };
  const run = async (jobId: string): Promise<string> => {
    const attemptId = api.newId();
    const assign = { jobId, input: { type: "assign" as const, attemptId, workerId: api.newId() } };
    await eventually(async () => (await api.store.applyInput({ ...assign, nowMs: systemClock.nowMs() })).ok);
    await api.apply(jobId, { type: "start", attemptId, startedAtMs: systemClock.nowMs() });
    return attemptId;
  };
  const write = async (
    attemptId: string,
    text: string,
    stream: LogStreamName = "stdout",
    timeMs = 1000,
  ): Promise<void> => {
    const offset = await logs.length(attemptId);
    assert.ok(
      (await logs.append(attemptId, offset, encodeRecord({ stream, timeMs, data: Buffer.from(text) }))).ok,
    );
  };
  const finish = async (jobId: string, attemptId: string, exitCode = 0): Promise<void> => {
    const failed = exitCode === 0 ? {} : ({ state: "failed", cause: "exit_code", exitCode } as const);
    const logEnd = await logs.length(attemptId);
    await api.apply(jobId, {
      type: "finish",
      attemptId,
      result: sampleResult({ startedAtMs: null, finishedAtMs: systemClock.nowMs(), logEnd, ...failed }),
    });
  };
  return { ...api, logs, queue, run, write, finish };
}

type Call = AsyncIterable<{
  attempt: number;
  complete: boolean;
  nextOffset: bigint;
  entries: { data: Uint8Array }[];
}>;

/** What a call gave: the text by attempt, and what its last message says. */
async function collect(call: Call, onMessage: (text: string, attempt: number) => void = () => {}) {
  const texts: Record<number, string> = {};
  let last = { complete: false, nextOffset: 0n, attempt: -1 };
  for await (const { entries, attempt, complete, nextOffset } of call) {
    assert.equal(last.complete, false, "a message came after the complete one");
    const text = entries.map(({ data }) => Buffer.from(data).toString()).join("");
    texts[attempt] = (texts[attempt] ?? "") + text;
    last = { complete, nextOffset, attempt };
    onMessage(texts[attempt], attempt);
  }
  return { texts, last };
}

async function failure(call: Call): Promise<ConnectError> {
  try {
    await collect(call);
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
  return assert.fail("the call should have failed");
}

test("the log of an attempt that has ended is read as a whole, sealed or not, in every protocol", async (t) => {
  const { client, protocols, queue, run, write, finish, logs } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  for (let line = 0; line < 500; line++) await write(attemptId, `line ${line} ${"x".repeat(1000)}\n`);
  await finish(jobId, attemptId);
  const lengths: bigint[] = [];
  for (let time = 0; time < 2; time++) {
    for (const protocol of protocols) {
      const { texts, last } = await collect(client(LogService, protocol).readLog({ jobId }));
      assert.equal(texts[1]?.split("\n").length, 501, protocol);
      assert.deepEqual([last.complete, last.attempt], [true, 1]);
      lengths.push(last.nextOffset);
    }
    await logs.finish(attemptId);
  }
  assert.equal(new Set(lengths).size, 1);
});

test("a reader that goes on from next_offset misses nothing and gets nothing twice", async (t) => {
  const { client, queue, run, write } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  const log = client(LogService);
  await write(attemptId, "one ");
  const first = await collect(log.readLog({ jobId }));
  assert.deepEqual(first.texts, { 1: "one " });
  assert.equal(first.last.complete, false);
  await write(attemptId, "two");
  const rest = await collect(log.readLog({ jobId, offset: first.last.nextOffset }));
  assert.deepEqual(rest.texts, { 1: "two" });
});

test("a follower is served from before the first attempt until the job has ended, in every protocol", async (t) => {
  const { client, protocols, queue, run, write, finish, events } = await setup(t);
  for (const protocol of protocols) {
    const jobId = await queue();
    const steps: string[] = [];
    const worker = async (): Promise<void> => {
      const attemptId = await run(jobId);
      await write(attemptId, "a");
      await eventually(() => steps.includes("a"), { what: "the first piece" });
      await write(attemptId, "b");
      await eventually(() => steps.includes("ab"), { what: "the second piece" });
      await finish(jobId, attemptId);
    };
    const working: Promise<void>[] = [];
    const { texts, last } = await collect(
      client(LogService, protocol).readLog({ jobId, follow: true }),
      (text, attempt) => {
        // The message without an attempt says that the server waits.
        if (attempt === 0) working.push(worker());
        steps.push(text);
      },
    );
    assert.deepEqual(texts, { 0: "", 1: "ab" }, protocol);
    assert.deepEqual([last.complete, last.attempt], [true, 1]);
    await Promise.all(working);
  }
  await eventually(() => events.subscribers === 0, { what: "the end of the subscriptions" });
});

test("a follower that names no attempt goes on with the next one when the job is retried", async (t) => {
  const { client, queue, run, write, finish } = await setup(t);
  const jobId = await queue(2);
  const first = await run(jobId);
  await write(first, "first");
  const retries: Promise<void>[] = [];
  const retry = async (): Promise<void> => {
    await finish(jobId, first, 1);
    const attemptId = await run(jobId);
    await write(attemptId, "second");
    await finish(jobId, attemptId);
  };
  const { texts, last } = await collect(
    client(LogService).readLog({ jobId, follow: true, tailLines: 1 }),
    () => {
      if (retries.length === 0) retries.push(retry());
    },
  );
  await Promise.all(retries);
  assert.deepEqual(texts, { 1: "first", 2: "second" });
  assert.deepEqual([last.complete, last.attempt], [true, 2]);
});

test("a follower that names an attempt ends with that attempt", async (t) => {
  const { client, queue, run, write, finish } = await setup(t);
  const jobId = await queue(2);
  const first = await run(jobId);
  await write(first, "first");
  await finish(jobId, first, 1);
  const second = await run(jobId);
  await write(second, "second");
  const log = client(LogService);
  const followed = await collect(log.readLog({ jobId, attempt: 1, follow: true }));
  assert.deepEqual([followed.texts, followed.last.complete], [{ 1: "first" }, true]);
  assert.deepEqual((await collect(log.readLog({ jobId }))).texts, { 2: "second" });
  assert.deepEqual((await collect(log.readLog({ jobId, attempt: 2 }))).texts, { 2: "second" });
});

test("a follower between two attempts ends when the job is cancelled", async (t) => {
  const { client, queue, run, write, finish, wanted } = await setup(t);
  const jobId = await queue(2);
  const attemptId = await run(jobId);
  await write(attemptId, "first");
  await finish(jobId, attemptId, 1);
  const cancels: Promise<unknown>[] = [];
  const { texts, last } = await collect(client(LogService).readLog({ jobId, follow: true }), () => {
    if (cancels.length === 0) cancels.push(client(JobService).cancelJob({ jobId }));
  });
  await Promise.all(cancels);
  assert.deepEqual(texts, { 1: "first" });
  assert.equal(last.complete, true);
  assert.equal(wanted.length, 1);
});

test("a job that ended without an attempt has an empty, complete log", async (t) => {
  const { client, queue } = await setup(t);
  const jobId = await queue();
  const log = client(LogService);
  const waiting = await collect(log.readLog({ jobId }));
  assert.deepEqual([waiting.texts, waiting.last.complete], [{ 0: "" }, false]);
  await client(JobService).cancelJob({ jobId });
  for (const follow of [false, true]) {
    const { texts, last } = await collect(log.readLog({ jobId, follow }));
    assert.deepEqual([texts, last.complete], [{ 0: "" }, true]);
  }
});

test("a follower of an attempt whose worker was lost is told of the loss in the log", async (t) => {
  const { client, logs, apply, queue, run, write } = await setup(t);
  const jobId = await queue();
  for (let attempt = 0; attempt < 3; attempt++) {
    const attemptId = await run(jobId);
    await write(attemptId, "before");
    const read = collect(client(LogService).readLog({ jobId, attempt: attempt + 1, follow: true }));
    await apply(jobId, { type: "lose", attemptId, cause: "worker_lost", message: "lease ran out" });
    await logs.sealEnded();
    const { texts, last } = await read;
    assert.match(texts[attempt + 1] ?? "", /^before.*"reason":"worker_lost"/);
    assert.equal(last.complete, true);
    // Makes the wait for the next attempt short.
    await client(JobService)
      .cancelJob({ jobId })
      .catch(() => {});
    await client(JobService).retryJob({ jobId });
  }
});

test("streams, times and tails are chosen", async (t) => {
  const { client, queue, run, write, finish } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  await write(attemptId, "out 1\n", "stdout", 1000);
  await write(attemptId, "err 1\n", "stderr", 2000);
  await write(attemptId, "sys 1\n", "system", 3000);
  await write(attemptId, "out 2\n", "stdout", 4000);
  await finish(jobId, attemptId);
  const log = client(LogService);
  assert.equal(
    (await collect(log.readLog({ jobId, streams: [LogStream.STDERR, LogStream.SYSTEM] }))).texts[1],
    "err 1\nsys 1\n",
  );
  assert.equal(
    (await collect(log.readLog({ jobId, since: timestampFromMs(3000) }))).texts[1],
    "sys 1\nout 2\n",
  );
  assert.equal((await collect(log.readLog({ jobId, tailLines: 1 }))).texts[1], "out 2\n");
  const entries = [];
  for await (const answer of log.readLog({ jobId })) entries.push(...answer.entries);
  assert.deepEqual(
    entries.map(({ stream }) => stream),
    [LogStream.STDOUT, LogStream.STDERR, LogStream.SYSTEM, LogStream.STDOUT],
  );
  assert.deepEqual(
    entries.map(({ time }) => time?.seconds),
    [1n, 2n, 3n, 4n],
  );
});

test("a worker with a broken clock does not make its log unreadable", async (t) => {
  const { client, queue, run, write, finish } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  for (const timeMs of [NaN, Infinity, -1, 1e300, 1000.5]) await write(attemptId, "x", "stdout", timeMs);
  await finish(jobId, attemptId);
  assert.equal((await collect(client(LogService).readLog({ jobId }))).texts[1], "xxxxx");
});

test("bytes that are not UTF-8 arrive as they are, also as JSON", async (t) => {
  const { client, logs, queue, run, finish } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  await logs.append(attemptId, 0, encodeRecord({ stream: "stdout", timeMs: 0, data: bytes }));
  await finish(jobId, attemptId);
  for await (const { entries } of client(LogService).readLog({ jobId })) {
    for (const { data } of entries) assert.deepEqual(Buffer.from(data), Buffer.from(bytes));
  }
});

test("what cannot be read is refused with a reason", async (t) => {
  const { client, queue, run, write, finish } = await setup(t);
  const jobId = await queue();
  const attemptId = await run(jobId);
  await write(attemptId, "hello");
  await finish(jobId, attemptId);
  const log = client(LogService);
  for (const follow of [false, true]) {
    for (const [request, code, message] of [
      [{ jobId: "ffffffff" }, Code.NotFound, /job ffffffff not found/],
      [{ jobId: "x" }, Code.InvalidArgument, /^job_id: /],
      [{ jobId, attempt: 2 }, Code.NotFound, /no attempt 2; it has had 1 attempt$/],
      [{ jobId, offset: 3n }, Code.InvalidArgument, /not the beginning of a record/],
      [{ jobId, offset: 1000n }, Code.InvalidArgument, /the log ends at byte/],
      [{ jobId, offset: 2n ** 64n - 1n }, Code.InvalidArgument, /not a place in a log/],
      [{ jobId, streams: [LogStream.UNSPECIFIED] }, Code.InvalidArgument, /^streams\[0\]: /],
    ] as const) {
      const error = await failure(
        log.readLog({ ...request, streams: [...("streams" in request ? request.streams : [])], follow }),
      );
      assert.equal(Code[error.code], Code[code], error.message);
      assert.match(error.rawMessage, message);
    }
  }
});

test("a follower that leaves, or whose server stops, leaves nothing behind", async (t) => {
  const { client, protocols, queue, run, events, web, grpc } = await setup(t);
  const open: Promise<ConnectError>[] = [];
  for (const protocol of protocols) {
    const waiting = await queue();
    const leave = new AbortController();
    const leftCall = client(LogService, protocol).readLog(
      { jobId: waiting, follow: true },
      { signal: leave.signal },
    );
    const left = leftCall[Symbol.asyncIterator]();
    await left.next();
    leave.abort();
    await assert.rejects(left.next());
    const running = await queue();
    await run(running);
    open.push(failure(client(LogService, protocol).readLog({ jobId: running, follow: true })));
  }
  await eventually(() => events.subscribers === open.length, { what: "the end of those who left" });
  await Promise.all([web.stop(), grpc.stop()]);
  for (const error of await Promise.all(open)) assert.equal(error.code, Code.Unavailable);
  await eventually(() => events.subscribers === 0, { what: "the end of all followers" });
});

test("followers that never read keep nothing on the server, and slow neither the log nor its readers", async (t) => {
  const { client, protocols, queue, run, write, logs } = await setup(t);
  const [piece, pieces] = ["x".repeat(60_000), 1_000];
  const given = new Map<number, number>();
  const read = logs.read.bind(logs);
  let readers = 0;
  logs.read = async function* (...args) {
    const reader = readers++;
    for await (const batch of read(...args)) {
      given.set(reader, batch.nextOffset);
      yield batch;
    }
  };
  const jobId = await queue();
  const attemptId = await run(jobId);
  await write(attemptId, "first");
  const stalled = protocols.map((protocol) => {
    const follower = client(LogService, protocol).readLog({ jobId, follow: true });
    return follower[Symbol.asyncIterator]();
  });
  for (const follower of stalled) assert.equal((await follower.next()).done, false);
  for (let count = 0; count < pieces; count += 1) await write(attemptId, piece);

  let total = 0;
  for await (const { entries } of client(LogService).readLog({ jobId })) {
    for (const { data } of entries) total += data.byteLength;
  }
  assert.equal(total, "first".length + pieces * piece.length);
  // What was given out and not read lies in the windows of HTTP/2 and the sockets of the system.
  const ofStalled = (): number[] => stalled.map((_, reader) => given.get(reader) ?? 0);
  for (const bytes of ofStalled()) assert.ok(bytes > 0 && bytes < total / 4, `${bytes} of ${total} bytes`);
  for (const follower of stalled) await follower.return?.();
});
