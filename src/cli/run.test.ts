import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { eventually } from "../base/eventually.ts";
import {
  Cause,
  JobState,
  LogQuotaPolicy,
  WorkerLostPolicy,
  type QueueJobRequest,
} from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogStream } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { TOKEN, cli, startCli, startFakeServer, type FakeServer, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";
const TERMINAL = { stdin: true, stdout: true, stderr: true };
const time = { seconds: 1_700_000_000n };

interface Ending {
  state: JobState;
  cause?: Cause;
  exitCode?: number;
  signal?: string;
  message?: string;
}

const succeeded: Ending = { state: JobState.SUCCEEDED, exitCode: 0 };

interface FakeJob {
  url: string;
  queued: QueueJobRequest[];
  cancelled: string[];
  server: FakeServer;
}

/** A server with one job, which ends when `ended` resolves. */
async function setup(
  t: { after(run: () => Promise<void>): void },
  options: {
    ending?: Ending;
    ended?: Promise<void>;
    endsOnCancel?: boolean;
    log?: [LogStream, string | Uint8Array][];
    services?: FakeServices;
  },
): Promise<FakeJob> {
  const { ending = succeeded, log = [] } = options;
  const queued: QueueJobRequest[] = [];
  const cancelled: string[] = [];
  let finish: (end: Ending) => void = () => {};
  const end = new Promise<Ending>((resolve) => {
    finish = resolve;
  });
  if (!options.endsOnCancel) void (options.ended ?? Promise.resolve()).then(() => finish(ending));
  const view = (change: Ending) => ({
    id: JOB_ID,
    definition: { name: "x" },
    createdAt: time,
    ...change,
    ...(change.state >= JobState.SUCCEEDED
      ? { startedAt: time, finishedAt: { seconds: time.seconds + 1n, nanos: 200_000_000 } }
      : {}),
  });
  const server = await startFakeServer({
    jobs: {
      queueJob: (request) => {
        queued.push(request);
        return { jobId: JOB_ID };
      },
      async *watchJob() {
        yield { job: view({ state: JobState.PENDING, message: "a worker of pool default is being made" }) };
        yield { job: view({ state: JobState.RUNNING }) };
        yield { job: view(await end) };
      },
      cancelJob: ({ reason }) => {
        cancelled.push(reason);
        if (options.endsOnCancel) finish({ state: JobState.CANCELLED, cause: Cause.CANCELLED });
        return { job: view({ state: JobState.CANCELLING }) };
      },
      ...options.services?.jobs,
    },
    logs: {
      async *readLog() {
        for (const [stream, data] of log) {
          yield {
            attempt: 1,
            entries: [{ stream, time, data: typeof data === "string" ? Buffer.from(data) : data }],
          };
        }
        await end;
        yield { attempt: 1, complete: true };
      },
      ...options.services?.logs,
    },
  });
  t.after(server.close);
  return { url: server.url, queued, cancelled, server };
}

const directories: string[] = [];
after(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

async function directoryWith(files: Record<string, string>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-run-"));
  directories.push(directory);
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

test("a command runs with what the options say, and its output goes where it went", async (t) => {
  const bytes = Buffer.from([0, 255, 10, 0x1b, 0x5b, 0x33, 0x31, 0x6d]);
  const fake = await setup(t, {
    log: [
      [LogStream.SYSTEM, "▶ step\n"],
      [LogStream.STDOUT, "out\n"],
      [LogStream.STDERR, "err\n"],
      [LogStream.STDOUT, bytes],
    ],
  });
  const argv = [
    "run",
    "--name",
    "n",
    "-e",
    "A=1",
    "-e",
    "HERE",
    "--working-directory",
    "sub",
    "--timeout",
    "5m",
    "--selector",
    "os=linux",
  ];
  argv.push(
    "--label",
    "team=a",
    "--queue",
    "q",
    "--priority",
    "-3",
    "--retries",
    "2",
    "--cpu",
    "500m",
    "--memory",
    "1Gi",
    "--",
    "echo",
    "--name",
    "a b",
  );
  const run = await cli(argv, { url: fake.url, cwd: "/work/dir", variables: { HERE: "there" } });
  assert.deepEqual(run.stdout.bytes, Buffer.concat([Buffer.from("out\n"), bytes]));
  assert.equal(run.stderr.text, "▶ step\nerr\n✓ succeeded in 1.2 s\n");
  assert.equal(run.exitCode, 0);
  const definition = fake.queued[0]?.definition;
  assert.equal(definition?.name, "n");
  assert.deepEqual(definition?.command?.commandType.value, {
    $typeName: "hodei.v1.ShellCommand",
    cmd: "echo",
    args: ["--name", "a b"],
  });
  assert.deepEqual(definition?.env, { A: "1", HERE: "there" });
  assert.equal(definition?.workingDirectory, "/work/dir/sub");
  assert.equal(definition?.timeout?.seconds, 300n);
  assert.deepEqual(definition?.selector, { os: "linux" });
  assert.deepEqual(definition?.labels, { team: "a" });
  assert.equal(definition?.queue, "q");
  assert.equal(definition?.priority, -3);
  assert.equal(definition?.retry?.maxRetries, 2);
  assert.equal(definition?.resources?.cpuMillis, 500);
  assert.equal(definition?.resources?.memoryBytes, 2n ** 30n);
});

test("options say what becomes of a job that waits, loses its worker or writes too much", async (t) => {
  const fake = await setup(t, {});
  const options =
    "--queue-timeout 1h --grace 0s --lease 2m --on-worker-lost wait --log-quota 1Mi --on-log-quota truncate";
  const run = await cli(["run", ...options.split(" "), "--", "x"], { url: fake.url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  const definition = fake.queued[0]?.definition;
  assert.equal(definition?.queueTimeout?.seconds, 3600n);
  assert.equal(definition?.grace?.seconds, 0n);
  assert.equal(definition?.lease?.seconds, 120n);
  assert.equal(definition?.onWorkerLost, WorkerLostPolicy.WAIT);
  assert.equal(definition?.logQuotaBytes, 2n ** 20n);
  assert.equal(definition?.onLogQuota, LogQuotaPolicy.TRUNCATE);
  for (const [option, value] of [
    ["--lease", "0"],
    ["--on-worker-lost", "wai"],
    ["--log-quota", "much"],
  ] as const) {
    const refused = await cli(["run", option, value, "--", "x"], { url: fake.url });
    assert.equal(refused.exitCode, 2);
    assert.match(refused.stderr.text, new RegExp(`option ${option}: "${value}"`));
  }
});

test("a job file is sent, and one that is not right is not", async (t) => {
  const fake = await setup(t, {});
  const cwd = await directoryWith({
    "a.yaml": "script: {file: x.sh}\nidempotencyKey: k\n",
    "x.sh": "echo hi\n",
    "bad.yaml": "run: a\ntimeot: 3\n",
    "two.yaml": "run: a\n---\nrun: b\n",
  });
  assert.equal((await cli(["run", "a.yaml"], { url: fake.url, cwd })).exitCode, 0);
  assert.equal(fake.queued[0]?.definition?.name, "a");
  assert.equal(fake.queued[0]?.idempotencyKey, "k");
  const bad = await cli(["run", "bad.yaml"], { url: fake.url, cwd });
  assert.equal(bad.exitCode, 2);
  assert.equal(
    bad.stderr.text,
    "hodei: read bad.yaml: 1 problem\n  bad.yaml:2:1: timeot: unknown key `timeot`; did you mean `timeout`?\n",
  );
  const two = await cli(["run", "two.yaml"], { url: fake.url, cwd });
  assert.equal(two.exitCode, 2);
  assert.match(two.stderr.text, /holds 2 jobs.*\nhint: queue them all with: hodei submit two\.yaml/);
  const stdin = await cli(["run", "-"], { url: fake.url, stdin: "run: [ls]" });
  assert.equal(stdin.exitCode, 0);
  assert.equal(fake.queued.length, 2);
});

test("the exit code is the job's own", async (t) => {
  const cases: [Ending, number, RegExp][] = [
    [
      { state: JobState.FAILED, cause: Cause.EXIT_CODE, exitCode: 7 },
      7,
      /^✗ failed: exit code 7 \(job 01980000-/,
    ],
    [{ state: JobState.FAILED, cause: Cause.SIGNAL, signal: "SIGKILL" }, 137, /^✗ failed: ended by SIGKILL/],
    [
      { state: JobState.FAILED, cause: Cause.OUT_OF_MEMORY, signal: "SIGKILL" },
      137,
      /^✗ failed: out of memory/,
    ],
    [
      { state: JobState.FAILED, cause: Cause.START_FAILED, message: "command not found: x" },
      1,
      /^✗ failed: start failed: command not found: x/,
    ],
    [{ state: JobState.FAILED, cause: Cause.LOG_QUOTA, exitCode: 0 }, 1, /^✗ failed: log quota/],
    [{ state: JobState.TIMED_OUT, cause: Cause.TIMEOUT }, 124, /^✗ timed out/],
    [{ state: JobState.CANCELLED, cause: Cause.CANCELLED }, 130, /^✗ cancelled/],
    [succeeded, 0, /^✓ succeeded in 1\.2 s$/m],
  ];
  for (const [ending, exitCode, line] of cases) {
    const fake = await setup(t, { ending });
    const run = await cli(["run", "--", "x"], { url: fake.url });
    assert.match(run.stderr.text, line);
    assert.equal(run.exitCode, exitCode);
    assert.equal((await cli(["watch", JOB_ID], { url: fake.url })).exitCode, exitCode);
  }
});

test("quiet, detached and JSON runs print only what was asked for", async (t) => {
  const log: [LogStream, string][] = [
    [LogStream.SYSTEM, "sys\n"],
    [LogStream.STDOUT, "out\n"],
    [LogStream.STDERR, "err\n"],
  ];
  const fake = await setup(t, { log });
  const quiet = await cli(["run", "--quiet", "--", "x"], { url: fake.url });
  assert.equal(quiet.stdout.text, "out\n");
  assert.equal(quiet.stderr.text, "err\n");
  const json = await cli(["run", "-o", "json", "-q", "--", "x"], { url: fake.url });
  assert.equal((JSON.parse(json.stdout.text) as { state: string }).state, "succeeded");
  assert.equal(json.stderr.text, "out\nerr\n");
  const detached = await cli(["run", "--detach", "--", "x"], { url: fake.url });
  assert.equal(detached.stdout.text, `${JOB_ID}\n`);
  assert.equal(detached.stderr.text, "");
  const stamped = await cli(["run", "-t", "--", "x"], { url: fake.url });
  assert.equal(stamped.stdout.text, "2023-11-14T22:13:20.000Z out\n");
});

test("without a terminal a signal cancels the job and its end is waited for", async (t) => {
  const fake = await setup(t, { endsOnCancel: true, log: [[LogStream.STDOUT, "started\n"]] });
  const run = startCli(["run", "--", "sleep"], { url: fake.url });
  await eventually(() => run.stdout.text.includes("started"));
  run.interrupt("SIGTERM");
  const { exitCode } = await run.result;
  assert.equal(exitCode, 130);
  assert.deepEqual(fake.cancelled, ["SIGTERM of hodei run"]);
  assert.match(run.stderr.text, /cancelling; once more to leave at once\n✗ cancelled/);
});

test("a second signal leaves although the job goes on", async (t) => {
  const fake = await setup(t, { ended: new Promise(() => {}), log: [[LogStream.STDOUT, "started\n"]] });
  const run = startCli(["run", "--", "sleep"], { url: fake.url });
  await eventually(() => run.stdout.text.includes("started"));
  run.interrupt("SIGINT");
  run.interrupt("SIGINT");
  assert.equal((await run.result).exitCode, 130);
  assert.match(run.stderr.text, /left before the job has ended/);
});

test("on a terminal Ctrl-C asks: keep watching, then detach", async (t) => {
  const fake = await setup(t, { ended: new Promise(() => {}), log: [[LogStream.STDOUT, "started\n"]] });
  const run = startCli(["run", "--", "sleep"], { url: fake.url, isTty: TERMINAL });
  await eventually(() => run.stdout.text.includes("started"));
  run.interrupt("SIGINT");
  await eventually(() => run.stderr.text.includes("detach (d), cancel (c), or keep watching (k)?"));
  run.stdin.write("k");
  await eventually(() => run.stderr.text.endsWith("? \n"));
  run.interrupt("SIGINT");
  run.stdin.write("xd");
  assert.equal((await run.result).exitCode, 0);
  assert.match(run.stderr.text, /detached; go on with: hodei logs --follow 01980000/);
  assert.deepEqual(fake.cancelled, []);
});

test("on a terminal a second Ctrl-C cancels, and a job of the own server cannot be detached", async (t) => {
  const fake = await setup(t, { endsOnCancel: true, log: [[LogStream.STDOUT, "started\n"]] });
  let stopped = 0;
  const run = startCli(["run", "--", "sleep"], {
    isTty: TERMINAL,
    startEmbeddedServer: async ({ readOnly }) => {
      assert.equal(readOnly, false);
      return { url: fake.url, token: TOKEN, stop: async () => void (stopped += 1) };
    },
  });
  await eventually(() => run.stdout.text.includes("started"));
  run.interrupt("SIGINT");
  await eventually(() => run.stderr.text.includes("cancel (c), or keep watching (k)?"));
  assert.doesNotMatch(run.stderr.text, /detach/);
  run.stdin.write("d");
  run.interrupt("SIGINT");
  assert.equal((await run.result).exitCode, 130);
  assert.deepEqual(fake.cancelled, ["SIGINT of hodei run"]);
  assert.equal(stopped, 1);
});

test("a terminal shows why the job waits, and nothing of it stays", async (t) => {
  let start: () => void = () => {};
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  const fake = await setup(t, {
    services: {
      jobs: {
        async *watchJob() {
          yield { job: { id: JOB_ID, state: JobState.PENDING, message: "every worker is busy" } };
          await started;
          yield { job: { id: JOB_ID, state: JobState.SUCCEEDED, startedAt: time, finishedAt: time } };
        },
      },
      logs: {
        async *readLog() {
          await started;
          yield { attempt: 1, complete: true };
        },
      },
    },
  });
  const run = startCli(["run", "--", "x"], { url: fake.url, isTty: TERMINAL });
  await eventually(() => run.stderr.text.includes("waiting: every worker is busy"));
  start();
  assert.equal((await run.result).exitCode, 0);
  assert.match(run.stderr.text, /\r\u001b\[2K[^\r]*✓[^\r]*succeeded in 0 ms\n$/);
});

test("a broken connection is made again, and nothing of the log is lost or twice", async (t) => {
  const requests: [number, bigint][] = [];
  const fake = await setup(t, {
    services: {
      jobs: {
        async *watchJob() {
          yield { job: { id: JOB_ID, state: JobState.RUNNING } };
          if (requests.length < 2) throw new ConnectError("going away", Code.Unavailable);
          yield { job: { id: JOB_ID, state: JobState.SUCCEEDED, startedAt: time, finishedAt: time } };
        },
      },
      logs: {
        async *readLog(request) {
          requests.push([request.attempt, request.offset]);
          if (requests.length === 1) {
            yield {
              attempt: 2,
              nextOffset: 40n,
              entries: [{ stream: LogStream.STDOUT, time, data: Buffer.from("one\n") }],
            };
            throw new ConnectError("going away", Code.Unavailable);
          }
          if (request.attempt === 0) {
            // The log of the attempt that was read, and of one after it.
            yield {
              attempt: 2,
              nextOffset: 40n,
              entries: [{ stream: LogStream.STDOUT, time, data: Buffer.from("one\ntwo\n") }],
            };
            yield {
              attempt: 3,
              nextOffset: 40n,
              entries: [{ stream: LogStream.STDOUT, time, data: Buffer.from("three\n") }],
              complete: true,
            };
            return;
          }
          yield {
            attempt: 2,
            nextOffset: 80n,
            entries: [{ stream: LogStream.STDOUT, time, data: Buffer.from("two\n") }],
            complete: true,
          };
        },
      },
    },
  });
  const run = await cli(["run", "--", "x"], { url: fake.url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.equal(run.stdout.text, "one\ntwo\nthree\n");
  assert.deepEqual(requests, [
    [0, 0n],
    [2, 40n],
    [0, 0n],
  ]);
});

test("the job goes on when the reader of its output has gone", async (t) => {
  const fake = await setup(t, {
    ending: { state: JobState.FAILED, cause: Cause.EXIT_CODE, exitCode: 3 },
    log: [
      [LogStream.STDOUT, "a\n"],
      [LogStream.STDOUT, "b\n"],
    ],
  });
  const run = startCli(["run", "--", "x"], { url: fake.url });
  run.stdout.destroy(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
  assert.equal((await run.result).exitCode, 3);
});

test("five thousand jobs are submitted in batches, in order", async (t) => {
  const sizes: number[] = [];
  const names: string[] = [];
  const fake = await setup(t, {
    services: {
      jobs: {
        queueJobs: ({ jobs }) => {
          sizes.push(jobs.length);
          const jobIds = jobs.map((_, index) => `id-${names.length + index}`);
          names.push(...jobs.map((job) => job.definition?.name ?? ""));
          return { jobIds };
        },
      },
    },
  });
  const lines = Array.from({ length: 5000 }, (_, index) =>
    JSON.stringify({ name: `job-${index}`, run: "true" }),
  );
  const run = await cli(["submit", "-", "--queue", "bulk"], { url: fake.url, stdin: lines.join("\n") });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.deepEqual(sizes, [1000, 1000, 1000, 1000, 1000]);
  assert.equal(names[4999], "job-4999");
  assert.deepEqual(
    run.stdout.text.trimEnd().split("\n"),
    names.map((_, index) => `id-${index}`),
  );
  assert.equal(run.stderr.text, "");
});

test("submit --wait is 0 only if all jobs succeeded, and long scripts make small batches", async (t) => {
  let isGood = true;
  const sizes: number[] = [];
  const fake = await setup(t, {
    services: {
      jobs: {
        queueJobs: ({ jobs }) => {
          sizes.push(jobs.length);
          return { jobIds: jobs.map((_, index) => `0198000${index}`) };
        },
        async *watchJob({ jobId }) {
          const isBad = !isGood && jobId.endsWith("1");
          yield { job: { id: jobId, state: isBad ? JobState.FAILED : JobState.SUCCEEDED, finishedAt: time } };
        },
      },
    },
  });
  const cwd = await directoryWith({ "jobs.yaml": "jobs: [{run: a}, {run: b}, {run: c}]" });
  const good = await cli(["submit", "jobs.yaml", "--wait"], { url: fake.url, cwd });
  assert.equal(good.exitCode, 0, good.stderr.text);
  assert.equal(good.stderr.text, "3 succeeded\n");
  isGood = false;
  const bad = await cli(["submit", "--wait", "jobs.yaml", "-o", "json"], { url: fake.url, cwd });
  assert.equal(bad.exitCode, 1);
  assert.deepEqual(JSON.parse(bad.stdout.text), ["01980000", "01980001", "01980002"]);

  sizes.length = 0;
  const large = JSON.stringify({ run: `#${"x".repeat(1_000_000)}` });
  await cli(["submit", "-"], { url: fake.url, stdin: Array.from({ length: 20 }, () => large).join("\n") });
  assert.deepEqual(sizes, [16, 4]);
});
