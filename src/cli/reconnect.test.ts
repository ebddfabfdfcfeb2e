import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { apiTokenPath, serverFilePath } from "../base/data-directory.ts";
import { eventually } from "../base/eventually.ts";
import { JobState } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogStream } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { cli, startCli, startFakeServer, TOKEN, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";
const time = { seconds: 1_700_000_000n };

/** A server of one job whose log is `text`; what cannot end by itself waits for the end of the server. */
function services(text: string, hasEnded: boolean): Required<Pick<FakeServices, "jobs" | "logs">> {
  const bytes = Buffer.from(text);
  return {
    jobs: {
      queueJob: () => ({ jobId: JOB_ID }),
      async *watchJob() {
        yield { job: { id: JOB_ID, state: JobState.RUNNING, version: 3n } };
        if (!hasEnded) await new Promise(() => {});
        yield {
          job: { id: JOB_ID, state: JobState.SUCCEEDED, startedAt: time, finishedAt: time, version: 4n },
        };
      },
    },
    logs: {
      async *readLog({ offset }) {
        const data = bytes.subarray(Number(offset));
        const nextOffset = BigInt(bytes.length);
        yield {
          attempt: 1,
          nextOffset,
          entries: [{ stream: LogStream.STDOUT, time, data }],
          complete: hasEnded,
        };
        if (!hasEnded) await new Promise(() => {});
      },
    },
  };
}

for (const argv of [
  ["run", "--", "x"],
  ["logs", "--follow", JOB_ID],
]) {
  test(`hodei ${argv[0]} goes on over a restart of the server and says so in one line each`, async (t) => {
    const first = await startFakeServer(services("one\ntwo\n", false));
    const run = startCli(argv, { url: first.url });
    await eventually(() => run.stdout.text === "one\ntwo\n", { what: "the first lines" });
    await first.close();
    await eventually(() => run.stderr.text.includes("connection lost"), { what: "the notice" });
    const second = await startFakeServer(
      services("one\ntwo\nthree\n", true),
      Number(new URL(first.url).port),
    );
    t.after(second.close);
    const { exitCode, stdout, stderr } = await run.result;
    assert.equal(exitCode, 0, stderr.text);
    assert.equal(stdout.text, "one\ntwo\nthree\n");
    const said = stderr.text.split("\n").filter((line) => line.startsWith("hodei:"));
    assert.deepEqual(said, ["hodei: connection lost, trying again…", "hodei: connected again"]);
  });
}

for (const tail of [[], ["--tail", "3"]]) {
  test(`hodei logs ${tail.join(" ")} goes on where it was when the connection breaks`, async (t) => {
    const bytes = Buffer.from("one\ntwo\nthree\n");
    const asked: { attempt: number; offset: bigint; tailLines: number }[] = [];
    const server = await startFakeServer({
      logs: {
        async *readLog({ attempt, offset, tailLines }) {
          asked.push({ attempt, offset, tailLines });
          const isFirst = asked.length === 1;
          const data = bytes.subarray(Number(offset), isFirst ? 8 : bytes.length);
          const nextOffset = offset + BigInt(data.length);
          yield {
            attempt: 2,
            nextOffset,
            entries: [{ stream: LogStream.STDOUT, time, data }],
            complete: !isFirst,
          };
          if (isFirst) throw new ConnectError("the server is stopping", Code.Unavailable);
        },
      },
    });
    t.after(server.close);
    const { exitCode, stdout, stderr } = await cli(["logs", JOB_ID, ...tail], { url: server.url });
    assert.equal(exitCode, 0, stderr.text);
    assert.equal(stdout.text, bytes.toString());
    assert.deepEqual(asked.slice(1), [{ attempt: 2, offset: 8n, tailLines: 0 }]);
  });
}

test("a server of the data directory is found again on another port", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hodei-reconnect-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const announce = (url: string) =>
    writeFile(serverFilePath(directory), JSON.stringify({ url, pid: 1, instanceId: "x" }));
  await writeFile(apiTokenPath(directory), TOKEN);
  const first = await startFakeServer(services("", false));
  await announce(first.url);
  const run = startCli(["watch", JOB_ID], { variables: { HODEI_DATA_DIR: directory } });
  await eventually(() => run.stdout.text.includes("running"));
  const second = await startFakeServer(services("", true));
  t.after(second.close);
  await announce(second.url);
  await first.close();
  const { exitCode, stdout, stderr } = await run.result;
  assert.equal(exitCode, 0, stderr.text);
  assert.match(stdout.text, /^\S+ running\n\S+ succeeded\n$/, "what was seen before is not told again");
});

test("a server that stays away is given up after a named time, and the job goes on", async () => {
  const server = await startFakeServer(services("one\n", false));
  const run = startCli(["run", "--reconnect-timeout", "300ms", "--", "x"], { url: server.url });
  await eventually(() => run.stdout.text === "one\n");
  await server.close();
  const { exitCode, stderr } = await run.result;
  assert.equal(exitCode, 4);
  assert.match(
    stderr.text,
    /\(tried for 300ms\)\nhint: the job goes on without this command; see it with: hodei /,
  );
});

for (const [argv, method] of [
  [["run", "--", "x"], "queueJob"],
  [["submit", "--", "x"], "queueJobs"],
] as const) {
  test(`${argv[0]} sends a submission whose answer was lost again with the same key`, async (t) => {
    const keys: string[] = [];
    const lostOnce = (key: string): void => {
      keys.push(key);
      if (keys.length === 1) throw new ConnectError("the database went away", Code.Unavailable);
    };
    const both = services("", true);
    const server = await startFakeServer({
      ...both,
      jobs: {
        ...both.jobs,
        queueJob: ({ idempotencyKey }) => {
          lostOnce(idempotencyKey);
          return { jobId: JOB_ID };
        },
        queueJobs: ({ jobs }) => {
          lostOnce(jobs[0]?.idempotencyKey ?? "");
          return { jobIds: [JOB_ID] };
        },
      },
    });
    t.after(server.close);
    const once = await cli([...argv], { url: server.url });
    assert.equal(once.exitCode, 0, `${method}: ${once.stderr.text}`);
    assert.equal(keys.length, 2);
    assert.match(keys[0] ?? "", /^[0-9a-f-]{36}$/);
    assert.equal(keys[0], keys[1]);
    await cli([...argv], { url: server.url });
    assert.notEqual(keys[2], keys[0], "each submission has a key of its own");
  });
}

test("a reconnect time that is none is refused before anything is done", async () => {
  const run = await cli(["watch", JOB_ID], {
    url: "http://127.0.0.1:1",
    variables: { HODEI_RECONNECT_TIMEOUT: "soon" },
  });
  assert.equal(run.exitCode, 2);
  assert.match(run.stderr.text, /HODEI_RECONNECT_TIMEOUT: "soon" is not a duration/);
});
