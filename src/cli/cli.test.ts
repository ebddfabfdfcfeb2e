import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { Cause, JobState } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { WorkerState } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { TOKEN, cli, startCli, startFakeServer, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";

async function setup(
  t: { after(run: () => Promise<void>): void },
  services: FakeServices = {},
): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

const directories: string[] = [];
after(async () => {
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

async function temporaryDirectory(files: Record<string, string> = {}): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-cli-"));
  directories.push(directory);
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

function job(id = JOB_ID, state = JobState.RUNNING) {
  return { id, state, definition: { name: "build" }, createdAt: { seconds: 1_700_000_000n }, version: 1n };
}

test("help lists every command, and help of a command its options", async () => {
  const help = await cli(["--help"]);
  assert.equal(help.exitCode, 0);
  for (const name of [
    "run",
    "submit",
    "logs",
    "get",
    "list",
    "cancel",
    "retry",
    "watch",
    "events",
    "workers",
    "version",
    "completion",
  ]) {
    assert.match(help.stdout.text, new RegExp(`^  ${name}\\b`, "m"));
  }
  assert.match((await cli(["run", "--help"])).stdout.text, /--working-directory/);
  assert.match((await cli(["help", "logs"])).stdout.text, /--tail/);
  assert.match((await cli(["help", "cancel", "anything"])).stdout.text, /^Usage: hodei cancel /);
  assert.match((await cli(["help", "exit-codes"])).stdout.text, /128\+n {2}the job was ended by signal n/);
});

test("what cannot be understood is exit code 2 with a suggestion", async () => {
  const cases: [string[], RegExp][] = [
    [["lsit"], /^hodei: unknown command 'lsit'\nhint: did you mean list\?\n$/],
    [["list", "--sttae", "x"], /^hodei: unknown option '--sttae'\nhint: did you mean --state\?\n$/],
    [
      ["list", "--state", "runing"],
      /^hodei: option --state: "runing" is none of .*\nhint: did you mean running\?\n$/,
    ],
    [["list", "--limit", "x"], /option --limit: "x" is not a whole number/],
    [["list", "--label", "x"], /option --label: "x" is not of the form key=value/],
    [["get"], /missing required argument 'job'\nhint: see hodei get --help\n$/],
    [["pools", "apply"], /'-f, --file <file>' not specified\nhint: see hodei pools apply --help\n$/],
    [["pools", "aply"], /too many arguments for 'pools'.*\nhint: see hodei pools --help\n$/],
    [["submit", "--queue", "a b", "--", "x"], /option --queue: "a b" must be letters, digits and/],
    [["decisions", "--queue", "-"], /option --queue: "-" must be letters, digits and/],
    [["queue", "set", "a b", "--weight", "1"], /hodei: queue: "a b" must be letters, digits and/],
    [["queue", "reset", "a", "b c"], /hodei: queue: "b c" must be letters, digits and/],
    [["get", "zz"], /"zz" is not the id of a job/],
    [["logs", JOB_ID, "--since", "yesterday"], /option --since: "yesterday" is neither a duration/],
    [["logs", JOB_ID, "--raw", "--timestamps"], /--raw: cannot be combined/],
    [["run"], /run needs a job file or a command\nhint: hodei run FILE/],
    [["run", "--", ""], /there is no command after --/],
    [["run", "a.yaml", "--", "ls"], /a file or a command, not both/],
    [["run", "/nonexistent.yaml"], /read job file \/nonexistent\.yaml: there is no such file/],
    [["submit", "/"], /read job file \/: it is a directory\nhint: a command stands after two dashes: -- /],
    [["run", "--name", "", "--", "ls"], /option --name: must not be empty/],
    [["run", "--gpu", "half", "--", "ls"], /option --gpu: "half" is not a whole number from 0 to 1024/],
    [["run", "--disk", "lots", "--", "ls"], /option --disk: "lots" is not an amount/],
    [["run", "--env", "1X=a", "--", "ls"], /"1X" is not the name of an environment variable/],
    [["run", "--env", "UNSET_HERE", "--", "ls"], /UNSET_HERE is not set here\nhint: give it a value/],
    [["run", "--timeout", "soon", "--", "ls"], /option --timeout: "soon" is not a duration/],
    [["run", "--memory", "lots", "--", "ls"], /option --memory: "lots" is not an amount/],
    [["completion", "tcsh"], /"tcsh" is none of bash, zsh, fish/],
    [["help", "rnu"], /no topic "rnu"\nhint: did you mean run\?/],
    [["get", JOB_ID, "--server", "ftp://x"], /is not the address of a server/],
  ];
  for (const [argv, expected] of cases) {
    const run = await cli(argv);
    assert.match(run.stderr.text, expected, argv.join(" "));
    assert.equal(run.exitCode, 2, argv.join(" "));
    assert.equal(run.stdout.text, "");
  }
});

test("an unreachable server is exit code 4, and what needs no server is not started", async () => {
  const unused = createServer();
  await new Promise<void>((resolve) => unused.listen(0, "127.0.0.1", resolve));
  const { port } = unused.address() as { port: number };
  await new Promise<void>((resolve) => unused.close(() => resolve()));
  const refused = await cli(["get", JOB_ID], { url: `http://127.0.0.1:${port}` });
  assert.equal(refused.exitCode, 4);
  assert.match(refused.stderr.text, /^hodei: get job .*: .*\nhint: is the server running/);
  assert.doesNotMatch(refused.stderr.text, /at .*\.js/, "no stack trace");

  const none = await cli(["cancel", JOB_ID]);
  assert.equal(none.exitCode, 4);
  assert.match(none.stderr.text, /no server is running for .*\nhint: start one with: hodei dev\n$/);
});

test("a stack trace is shown only when it is asked for", async () => {
  const run = await cli(["get", JOB_ID], { url: "http://127.0.0.1:1", variables: { HODEI_DEBUG: "1" } });
  assert.match(run.stderr.text, /AppError: get job .*\n\s+at /);
  assert.match(run.stderr.text, /caused by: ConnectError/);
});

test("each refusal of the server has its exit code", async (t) => {
  const cases: [Code, string, number, RegExp][] = [
    [
      Code.NotFound,
      `job ${JOB_ID} not found`,
      3,
      /^hodei: cancel job 01980000: job 01980000-.* not found\n$/,
    ],
    [Code.FailedPrecondition, "the job has succeeded", 5, /the job has succeeded/],
    [
      Code.FailedPrecondition,
      `cancel job ${JOB_ID}: it has ended`,
      5,
      /^hodei: cancel job 01980000-[^:]*: it has ended\n$/,
    ],
    [Code.PermissionDenied, "no", 6, /hodei: cancel job 01980000: no/],
    [Code.InvalidArgument, "ambiguous: 0198 fits 0198a, 0198b", 2, /ambiguous: 0198 fits 0198a, 0198b/],
    [
      Code.InvalidArgument,
      "definition.name: too long; definition.queue: bad",
      2,
      /refused 2 values\n  definition\.name: too long\n  definition\.queue: bad\n/,
    ],
    [Code.Internal, "internal error 17", 1, /internal error 17/],
  ];
  let answer = cases[0];
  const url = await setup(t, {
    jobs: {
      cancelJob: () => {
        throw new ConnectError(answer?.[1] ?? "", answer?.[0]);
      },
    },
  });
  for (const current of cases) {
    answer = current;
    const run = await cli(["cancel", "01980000"], { url });
    assert.match(run.stderr.text, current[3]);
    assert.equal(run.exitCode, current[2]);
  }
});

test("a missing or wrong token is exit code 6, and tokens come from files", async (t) => {
  const url = await setup(t, { jobs: { getJob: () => ({ job: job() }) } });
  const directory = await temporaryDirectory({ token: `${TOKEN}\n`, empty: "" });
  const wrong = await cli(["get", JOB_ID], { url, variables: { HODEI_API_TOKEN: "other" } });
  assert.equal(wrong.exitCode, 6);
  assert.match(wrong.stderr.text, /hint: set HODEI_API_TOKEN/);
  assert.doesNotMatch(wrong.stderr.text, /other/);
  const none = await cli(["get", JOB_ID, "--server", url]);
  assert.equal(none.exitCode, 6);
  const file = await cli(["get", JOB_ID, "--server", url, "--token-file", "token"], { cwd: directory });
  assert.equal(file.exitCode, 0);
  const empty = await cli(["get", JOB_ID, "--server", url, "--token-file", "empty"], { cwd: directory });
  assert.equal(empty.exitCode, 2);
});

test("a server of the data directory is found, and a dead one's file is not believed", async (t) => {
  const url = await setup(t, { jobs: { getJob: () => ({ job: job() }) } });
  const alive = await temporaryDirectory({
    "server.json": JSON.stringify({ url, pid: 1, instanceId: "x" }),
    "api-token": TOKEN,
  });
  const found = await cli(["get", JOB_ID, "--data-dir", alive]);
  assert.equal(found.stderr.text, "");
  assert.equal(found.exitCode, 0);
  const dead = await temporaryDirectory({
    "server.json": JSON.stringify({ url: "http://127.0.0.1:1", pid: 1, instanceId: "x" }),
    "api-token": TOKEN,
  });
  assert.equal((await cli(["cancel", JOB_ID, "--data-dir", dead])).exitCode, 4);
  const torn = await temporaryDirectory({ "server.json": '{"url":' });
  assert.equal((await cli(["cancel", JOB_ID, "--data-dir", torn])).exitCode, 4);
});

test("reading commands start a server that only reads, and stop it", async (t) => {
  const url = await setup(t, { jobs: { getJob: () => ({ job: job() }) } });
  const calls: string[] = [];
  const run = await cli(["get", JOB_ID], {
    startEmbeddedServer: async (options) => {
      calls.push(`start ${options.readOnly} ${options.dataDirectory}`);
      return { url, token: TOKEN, stop: async () => void calls.push("stop") };
    },
  });
  assert.equal(run.exitCode, 0);
  assert.deepEqual(calls, ["start true /nonexistent/hodei", "stop"]);
});

test("a signal stops the server of the own process, also while it starts", async (t) => {
  const url = await setup(t, { jobs: { getJob: () => new Promise(() => {}) } });
  for (const isSlow of [false, true]) {
    let stopped = 0;
    let ready: () => void = () => {};
    const started = new Promise<void>((resolve) => {
      ready = resolve;
    });
    let calls = 0;
    const run = startCli(["get", JOB_ID], {
      startEmbeddedServer: async () => {
        calls += 1;
        if (isSlow) await started;
        return { url, token: TOKEN, stop: async () => void (stopped += 1) };
      },
    });
    await eventually(() => calls === 1);
    run.interrupt("SIGTERM");
    ready();
    assert.equal((await run.result).exitCode, 143);
    assert.equal(stopped, 1);
  }
});

test("list shows a table for people and an array for programs, page by page", async (t) => {
  const ids = Array.from(
    { length: 1200 },
    (_, index) => `0198${String(1200 - index).padStart(4, "0")}-0000-7000-8000-000000000000`,
  );
  const requests: { pageSize: number; states: number[]; labels: Record<string, string> }[] = [];
  const url = await setup(t, {
    jobs: {
      listJobs: (request) => {
        requests.push({ pageSize: request.pageSize, states: request.states, labels: request.labels });
        const start = Number(request.pageToken || "0");
        const jobs = ids.slice(start, start + request.pageSize).map((id) => job(id, JobState.TIMED_OUT));
        const next = start + request.pageSize;
        return { jobs, nextPageToken: next < ids.length ? String(next) : "" };
      },
    },
  });
  const all = await cli(["list", "--all", "-o", "json", "--state", "timed-out", "--label", "a=b=c"], { url });
  const listed = JSON.parse(all.stdout.text) as { id: string; state: string; createdAt: string }[];
  assert.deepEqual(
    listed.map(({ id }) => id),
    ids,
  );
  assert.equal(listed[0]?.state, "timed_out");
  assert.equal(listed[0]?.createdAt, "2023-11-14T22:13:20.000Z");
  assert.equal(requests.length, 3);
  assert.deepEqual(requests[0], { pageSize: 500, states: [JobState.TIMED_OUT], labels: { a: "b=c" } });

  const piped = await cli(["list", "-n", "3"], { url });
  const lines = piped.stdout.text.trimEnd().split("\n");
  assert.match(lines[0] ?? "", /^ID +NAME +STATE +CAUSE +AGE +DURATION +WORKER$/);
  assert.equal(lines.length, 4);
  assert.ok(lines[1]?.startsWith(`${ids[0]}  build`));

  assert.equal(piped.stderr.text, "", "who asks for 3 knows that there may be more");
  const some = await cli(["list", "--state", "failed,timed-out"], { url });
  assert.equal(some.stdout.text.trimEnd().split("\n").length, 51);
  assert.equal(some.stderr.text, "these are the newest 50; --all shows all\n");
  assert.deepEqual(requests.at(-1)?.states, [JobState.FAILED, JobState.TIMED_OUT]);

  const terminal = await cli(["list", "-n", "3"], {
    url,
    isTty: { stdin: true, stdout: true, stderr: true },
    variables: { NO_COLOR: "1" },
  });
  assert.match(terminal.stdout.text, /^01981200-0000 {2}build/m);
  assert.doesNotMatch(terminal.stdout.text, /\u001b/);
});

test("names of other people cannot move the cursor", async (t) => {
  const url = await setup(t, {
    jobs: {
      listJobs: () => ({ jobs: [{ ...job(), definition: { name: "a\u001b]0;x\u0007\u001b[2Jb\r" } }] }),
    },
  });
  const run = await cli(["list"], { url });
  assert.doesNotMatch(run.stdout.text, /[\u0007\r]|\u001b\[2J|\u001b\]/);
});

test("get shows a job with attempts, steps, outputs and summary, or all of it as JSON", async (t) => {
  const at = (seconds: number) => ({ seconds: BigInt(1_700_000_000 + seconds) });
  const full = {
    ...job(JOB_ID, JobState.FAILED),
    cause: Cause.EXIT_CODE,
    exitCode: 7,
    startedAt: at(1),
    finishedAt: at(3),
    outputs: { version: "1.0", atMs: "5" },
    summary: "# Done\nall well",
    attemptCount: 1,
    attempts: [
      {
        id: JOB_ID,
        number: 1,
        state: JobState.FAILED,
        cause: Cause.EXIT_CODE,
        exitCode: 7,
        startedAt: at(1),
        finishedAt: at(3),
        scheduledAt: at(0),
        logBytes: 2048n,
        usage: { peakMemoryBytes: 1048576n, cpuMicros: 1_500_000n },
        steps: [{ name: "lint", outcome: 2, exitCode: 7, startedAt: at(1), finishedAt: at(2) }],
      },
    ],
  };
  const url = await setup(t, { jobs: { getJob: () => ({ job: full }) } });
  const text = (await cli(["get", "01980000"], { url })).stdout.text;
  for (const expected of [
    /state +failed/,
    /result +exit code 7\n/,
    /duration +2\.0 s/,
    /version=1\.0/,
    /# Done/,
    /1 +lint +failed +exit code 7 +1\.0 s/,
    /1\.0 MiB +1\.50 s +2\.0 KiB/,
  ]) {
    assert.match(text, expected);
  }
  const view = JSON.parse((await cli(["get", "01980000", "-o", "json"], { url })).stdout.text) as Record<
    string,
    unknown
  >;
  assert.equal(view["state"], "failed");
  assert.equal(view["finishedAt"], "2023-11-14T22:13:23.000Z");
  assert.deepEqual(view["outputs"], { version: "1.0", atMs: "5" });
});

test("get says what an unreachable job waits for, and which wish is not done yet", async (t) => {
  const lost = { ...job(JOB_ID, JobState.UNREACHABLE), workerId: JOB_ID };
  const running = { ...job(JOB_ID, JobState.RUNNING), pauseWanted: true };
  const lastHeartbeatAt = timestampFromMs(systemClock.nowMs() - 120_000);
  const url = await setup(t, {
    jobs: { getJob: ({ jobId }) => ({ job: jobId === JOB_ID ? lost : running }) },
    workers: { getWorkerInfo: () => ({ worker: { info: { workerId: JOB_ID }, lastHeartbeatAt } }) },
  });
  const unreachable = (await cli(["get", JOB_ID], { url })).stdout.text;
  assert.match(
    unreachable,
    /lease +last word of the worker 2m ago; goes on if it comes back within 1[23] min [0-9]+ s, else a new attempt/,
  );
  assert.match((await cli(["get", "01980000"], { url })).stdout.text, /wanted +a pause; the worker has not/);
});

test("cancel goes on after a failure and ends with its exit code", async (t) => {
  const seen: [string, string][] = [];
  const url = await setup(t, {
    jobs: {
      cancelJob: ({ jobId, reason }) => {
        seen.push([jobId, reason]);
        if (jobId === "aaaa") throw new ConnectError("job aaaa not found", Code.NotFound);
        return { job: job(JOB_ID, JobState.CANCELLED) };
      },
      retryJob: ({ jobId, force }) => {
        seen.push([jobId, String(force)]);
        return { job: job(JOB_ID, JobState.PENDING) };
      },
    },
  });
  const run = await cli(["cancel", "aaaa", "bbbb", "--reason", "no more"], { url });
  assert.equal(run.exitCode, 3);
  assert.equal(run.stdout.text, `${JOB_ID}  cancelled\n`);
  assert.deepEqual(seen, [
    ["aaaa", "no more"],
    ["bbbb", "no more"],
  ]);
  const retried = await cli(["retry", "cccc", "--force", "-o", "json"], { url });
  assert.equal((JSON.parse(retried.stdout.text) as { state: string }[])[0]?.state, "pending");
  assert.deepEqual(seen.at(-1), ["cccc", "true"]);
});

test("events, workers and versions are shown", async (t) => {
  const url = await setup(t, {
    jobs: {
      getJobEvents: () => ({
        events: [
          { sequence: 1n, time: { seconds: 1_700_000_000n }, type: "queued", state: JobState.PENDING },
        ],
      }),
    },
    workers: {
      listWorkers: () => ({
        workers: [
          {
            info: { workerId: JOB_ID, name: "w-1", capacity: { jobs: 4 } },
            state: WorkerState.READY,
            pool: "default",
            provider: "process",
          },
        ],
      }),
      getWorkerInfo: () => ({
        worker: {
          info: { workerId: JOB_ID, name: "w-1", capacity: { jobs: 4, cpuMillis: 2000 } },
          state: WorkerState.BUSY,
        },
      }),
    },
    server: { getServerInfo: () => ({ version: "9.9.9", databaseVersion: "PostgreSQL 18.4" }) },
  });
  assert.match(
    (await cli(["events", JOB_ID], { url })).stdout.text,
    /2023-11-14T22:13:20\.000Z +queued +pending/,
  );
  assert.match((await cli(["workers"], { url })).stdout.text, /w-1 +ready +default +process +0\/4/);
  assert.match((await cli(["workers", "01980000"], { url })).stdout.text, /capacity +4 jobs, 2 CPU/);
  assert.equal(
    (await cli(["version"], { url })).stdout.text,
    `client  1.2.3\nserver  9.9.9 (PostgreSQL 18.4) at ${url}\n`,
  );
  const offline = await cli(["version"]);
  assert.equal(offline.exitCode, 0);
  assert.match(offline.stdout.text, /^client {2}1\.2\.3\nserver {2}not reached: /);
});

test("process commands get their own options and give their exit code", async () => {
  const seen: Record<string, unknown>[] = [];
  const run = await cli(["server", "--port", "99", "--data-dir", "/d"], {
    processCommands: [
      {
        name: "server",
        description: "run the control plane",
        addOptions: (command) => void command.option("--port <port>", "port"),
        run: async (options) => {
          seen.push(options);
          return 17;
        },
      },
    ],
  });
  assert.equal(run.exitCode, 17);
  assert.equal(seen[0]?.["port"], "99");
  assert.equal(seen[0]?.["dataDir"], "/d");
});

test("the JSON Schemas of job files and pool files are printed", async () => {
  const schema = JSON.parse((await cli(["schema"])).stdout.text) as {
    $defs: { job: { properties: object } };
  };
  assert.ok("steps" in schema.$defs.job.properties);
  const pools = JSON.parse((await cli(["schema", "pools"])).stdout.text) as {
    $defs: { pool: { properties: object } };
  };
  assert.ok("warmSpares" in pools.$defs.pool.properties);
  assert.match((await cli(["schema", "pool"])).stderr.text, /did you mean pools\?/);
});

test("completion scripts are valid for their shells and know commands and options", async () => {
  const { spawnSync } = await import("node:child_process");
  const bash = (await cli(["completion", "bash"])).stdout.text;
  const ask = (line: string, index: number): string[] => {
    const script = `${bash}\nCOMP_WORDS=(${line}); COMP_CWORD=${index}; _hodei; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const result = spawnSync("bash", ["-c", script], { encoding: "utf8" });
    assert.equal(result.stderr, "");
    return result.stdout.trim().split("\n");
  };
  assert.deepEqual(ask("hodei ca", 1), ["cancel"]);
  assert.deepEqual(ask("hodei run --work", 2), ["--working-directory"]);
  assert.deepEqual(ask("hodei completion z", 2), ["zsh"]);
  assert.deepEqual(ask("hodei workers d", 2), ["drain"]);
  assert.match((await cli(["completion", "zsh"])).stdout.text, /^#compdef hodei/);
  assert.match(
    (await cli(["completion", "fish"])).stdout.text,
    /__fish_seen_subcommand_from run' -l working-directory -r/,
  );
});
