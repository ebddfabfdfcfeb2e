import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { gapRecord } from "../core/log-gap.ts";
import { LogStream, type ReadLogRequest } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { cli, startCli, startFakeServer, type FakeServices } from "./fake-server.ts";
import { LogTail } from "./log-tail.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";
const time = { seconds: 1_700_000_000n, nanos: 123_000_000 };

type ReadLog = NonNullable<NonNullable<FakeServices["logs"]>["readLog"]>;

async function setup(
  t: { after(run: () => Promise<void>): void },
  readLog: ReadLog,
  jobs?: FakeServices["jobs"],
): Promise<string> {
  const server = await startFakeServer({ logs: { readLog }, ...(jobs ? { jobs } : {}) });
  t.after(server.close);
  return server.url;
}

function entry(stream: LogStream, data: string | Uint8Array) {
  return { stream, time, data: typeof data === "string" ? Buffer.from(data) : data };
}

test("raw gives exactly the bytes, whatever they are", async (t) => {
  const pieces = Array.from({ length: 100 }, () => randomBytes(50_000));
  const url = await setup(t, async function* () {
    yield { attempt: 1, entries: [entry(LogStream.SYSTEM, "not this\n")] };
    for (const [index, piece] of pieces.entries()) {
      yield { attempt: 1, entries: [entry(index % 3 === 0 ? LogStream.STDERR : LogStream.STDOUT, piece)] };
    }
    yield { attempt: 1, complete: true };
  });
  const run = await cli(["logs", JOB_ID, "--raw"], { url });
  assert.equal(run.exitCode, 0);
  assert.ok(run.stdout.bytes.equals(Buffer.concat(pieces)));
  assert.equal(run.stderr.text, "");
});

test("streams go where they went, and can be chosen", async (t) => {
  const requests: ReadLogRequest[] = [];
  const url = await setup(t, async function* (request) {
    requests.push(request);
    yield {
      attempt: 1,
      entries: [
        entry(LogStream.STDOUT, "o\n"),
        entry(LogStream.SYSTEM, "s\n"),
        entry(LogStream.STDERR, "e\n"),
      ],
      complete: true,
    };
  });
  const all = await cli(["logs", JOB_ID], { url });
  assert.equal(all.stdout.text, "o\n");
  assert.equal(all.stderr.text, "s\ne\n");
  const err = await cli(
    ["logs", JOB_ID, "--stream", "stderr", "--raw", "--attempt", "2", "--since", "2023-01-01T00:00:00Z"],
    { url },
  );
  assert.equal(err.stdout.text, "e\n");
  assert.deepEqual(requests[1]?.streams, [LogStream.STDERR, LogStream.GAP]);
  assert.equal(requests[1]?.attempt, 2);
  assert.equal(requests[1]?.since?.seconds, 1_672_531_200n);
});

test("output that is missing is told on stderr, whatever streams were chosen", async (t) => {
  const gap = gapRecord({ reason: "log_quota", bytes: 1536, limitBytes: 1024 }, 0);
  const url = await setup(t, async function* () {
    yield {
      attempt: 1,
      entries: [
        entry(LogStream.STDOUT, "o\n"),
        entry(LogStream.GAP, gap.data),
        entry(LogStream.GAP, '{"reason":"of a newer server"}'),
      ],
      complete: true,
    };
  });
  for (const options of [[], ["--raw"], ["--stream", "stdout"], ["--tail", "9"]]) {
    const run = await cli(["logs", JOB_ID, ...options], { url });
    assert.equal(run.stdout.text, "o\n");
    assert.equal(
      run.stderr.text,
      '[hodei: 1.5 KiB of output left out: log quota of 1 KiB]\n[hodei: {"reason":"of a newer server"}]\n',
    );
  }
});

test("time stamps begin each line once, across pieces and without touching colours", async (t) => {
  const url = await setup(t, async function* () {
    yield {
      attempt: 1,
      entries: [
        entry(LogStream.STDOUT, "a\nb\u001b[31m"),
        entry(LogStream.STDOUT, "c\n"),
        entry(LogStream.STDOUT, "\nd"),
      ],
      complete: true,
    };
  });
  const stamp = "2023-11-14T22:13:20.123Z ";
  const run = await cli(["logs", JOB_ID, "-t"], { url });
  assert.equal(run.stdout.text, `${stamp}a\n${stamp}b\u001b[31mc\n${stamp}\n${stamp}d`);
});

test("JSON has one object for each line, and other bytes in base64", async (t) => {
  const url = await setup(t, async function* () {
    const euro = Buffer.from("€\n");
    yield {
      attempt: 1,
      entries: [
        entry(LogStream.STDOUT, euro.subarray(0, 1)),
        entry(LogStream.STDERR, "x\n"),
        entry(LogStream.STDOUT, euro.subarray(1)),
      ],
    };
    yield {
      attempt: 2,
      entries: [entry(LogStream.STDOUT, Buffer.from([255, 10])), entry(LogStream.STDOUT, "end")],
      complete: true,
    };
  });
  const run = await cli(["logs", JOB_ID, "-o", "json"], { url });
  const objects = run.stdout.text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const at = "2023-11-14T22:13:20.123Z";
  assert.deepEqual(objects, [
    { time: at, stream: "stderr", attempt: 1, text: "x" },
    { time: at, stream: "stdout", attempt: 1, text: "€" },
    { time: at, stream: "stdout", attempt: 2, base64: "/w==" },
    { time: at, stream: "stdout", attempt: 2, text: "end" },
  ]);
});

test("tail is exact although the server sends more, also before following", async (t) => {
  const requests: { tail: number; follow: boolean; offset: bigint; attempt: number }[] = [];
  const url = await setup(t, async function* (request) {
    requests.push({
      tail: request.tailLines,
      follow: request.follow,
      offset: request.offset,
      attempt: request.attempt,
    });
    if (request.follow) {
      yield { attempt: 3, nextOffset: 90n, entries: [entry(LogStream.STDOUT, "new\n")], complete: true };
      return;
    }
    yield { attempt: 3, nextOffset: 20n, entries: [entry(LogStream.STDOUT, "1\n2\n3\n")] };
    yield {
      attempt: 3,
      nextOffset: 50n,
      entries: [entry(LogStream.STDOUT, "4"), entry(LogStream.STDOUT, "4\n5\n")],
    };
  });
  assert.equal((await cli(["logs", JOB_ID, "-n", "2"], { url })).stdout.text, "44\n5\n");
  assert.equal((await cli(["logs", JOB_ID, "--tail", "0"], { url })).stdout.text, "");
  requests.length = 0;
  const followed = await cli(["logs", JOB_ID, "-n", "1", "-f", "--attempt", "3"], { url });
  assert.equal(followed.stdout.text, "5\nnew\n");
  assert.deepEqual(requests, [
    { tail: 1, follow: false, offset: 0n, attempt: 3 },
    { tail: 0, follow: true, offset: 50n, attempt: 3 },
  ]);
});

test("the tail of any log cut in any way is its last lines", () => {
  const text = fc.array(fc.constantFrom("a", "b", "\n"), { maxLength: 60 }).map((list) => list.join(""));
  fc.assert(
    fc.property(fc.array(text, { maxLength: 8 }), fc.integer({ min: 1, max: 6 }), (parts, lines) => {
      const tail = new LogTail(lines);
      for (const part of parts) tail.push({ stream: "stdout", timeMs: 0, data: Buffer.from(part) });
      const all = parts.join("");
      const split = all.split(/(?<=\n)/);
      const expected = all === "" ? "" : split.slice(-lines).join("");
      assert.equal(Buffer.concat(tail.pieces().map((piece) => piece.data)).toString(), expected);
    }),
    { numRuns: 500 },
  );
});

test("a slow reader slows the log down instead of filling the memory", async (t) => {
  const size = 64 * 1024;
  const count = 400;
  let sent = 0;
  const url = await setup(t, async function* () {
    for (; sent < count; sent += 1)
      yield { attempt: 1, entries: [entry(LogStream.STDOUT, Buffer.alloc(size, "x"))] };
    yield { attempt: 1, complete: true };
  });
  const run = await cli(["logs", JOB_ID, "--raw"], { url, delayMs: 1 });
  assert.equal(run.stdout.bytes.length, size * count);
  assert.ok(run.stdout.peakWaiting <= 4 * size, `${run.stdout.peakWaiting} bytes waited for the reader`);
});

test("a reader that goes away ends the command quietly", async (t) => {
  const url = await setup(t, async function* () {
    for (let index = 0; index < 10_000; index += 1)
      yield { attempt: 1, entries: [entry(LogStream.STDOUT, "line\n")] };
  });
  const run = startCli(["logs", JOB_ID], { url });
  run.stdout.destroy(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
  const { exitCode } = await run.result;
  assert.equal(exitCode, 0);
  assert.equal(run.stderr.text, "");
});

test("--exit-code ends as the job did", async (t) => {
  const readLog: ReadLog = async function* () {
    yield { attempt: 1, complete: true };
  };
  const url = await setup(t, readLog, { getJob: () => ({ job: { id: JOB_ID, state: 8, exitCode: 9 } }) });
  assert.equal((await cli(["logs", JOB_ID, "--exit-code"], { url })).exitCode, 9);
  assert.equal((await cli(["logs", JOB_ID], { url })).exitCode, 0);
});
