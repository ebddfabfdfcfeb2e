import assert from "node:assert/strict";
import { test } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { eventually } from "../base/eventually.ts";
import { JobState } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { BlockerKind, DecisionKind, type QueueConfig } from "../protocol/gen/hodei/v1/scheduling_pb.ts";
import { cli, startCli, startFakeServer, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";
const WORKER_ID = "01980000-0000-7000-8000-000000000002";

async function setup(t: { after(run: () => Promise<void>): void }, services: FakeServices): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

const at = (seconds: number) => timestampFromMs(1_700_000_000_000 + seconds * 1000);

const waiting = {
  jobId: JOB_ID,
  jobName: "train",
  state: JobState.PENDING,
  ahead: 2n,
  decision: {
    jobId: JOB_ID,
    kind: DecisionKind.WAITING,
    reason: "all workers that fit are busy",
    queue: "default",
    time: at(0),
  },
  workers: [
    { workerId: WORKER_ID, name: "w-fits", pool: "big", fits: true, blockers: [] },
    {
      workerId: WORKER_ID,
      name: "w-small",
      pool: "",
      fits: false,
      blockers: [
        { kind: BlockerKind.BUSY, message: "has 2 of 4 cores free, the job needs 3", change: "wait" },
        { kind: BlockerKind.TAINT, message: "has the taint gpu:NoSchedule", change: "tolerate it" },
      ],
    },
  ],
  pools: [
    {
      name: "big",
      fits: false,
      arriving: 1,
      blockers: [{ kind: BlockerKind.POOL_FULL, message: "has 4 of 4 workers", change: "raise maxWorkers" }],
    },
  ],
};

test("explain says the reason first, then what is in the way at each worker and pool", async (t) => {
  const url = await setup(t, { scheduler: { getSchedulingDecision: () => waiting } });
  const run = await cli(["explain", "01980000"], { url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.match(run.stdout.text, /^all workers that fit are busy\n\njob +train 01980000/);
  for (const expected of [
    /queue +default, 2 jobs go first/,
    /w-fits +big +nothing: it fits/,
    /w-small +has 2 of 4 cores free, the job needs 3 +wait\n +has the taint gpu:NoSchedule +tolerate it/,
    /big +1 +has 4 of 4 workers +raise maxWorkers/,
  ]) {
    assert.match(run.stdout.text, expected);
  }
  const view = JSON.parse((await cli(["explain", JOB_ID, "-o", "json"], { url })).stdout.text) as {
    decision: { kind: string; at: string };
    workers: { blockers: { kind: string }[] }[];
    pools: { arriving: number }[];
  };
  assert.equal(view.decision.kind, "waiting");
  assert.equal(view.decision.at, "2023-11-14T22:13:20.000Z");
  assert.deepEqual(
    view.workers[1]?.blockers.map(({ kind }) => kind),
    ["busy", "taint"],
  );
  assert.equal(view.pools[0]?.arriving, 1);
});

test("explain of a job that does not wait says so, and what was decided on it", async (t) => {
  const decision = {
    ...waiting.decision,
    kind: DecisionKind.ASSIGNED,
    workerId: WORKER_ID,
    reason: "it fits",
  };
  const url = await setup(t, {
    scheduler: {
      getSchedulingDecision: () => ({
        ...waiting,
        state: JobState.TIMED_OUT,
        decision,
        workers: [],
        pools: [],
      }),
    },
  });
  const run = await cli(["explain", JOB_ID], { url });
  assert.match(run.stdout.text, /^it does not wait: it is timed out\n\njob /);
  assert.match(run.stdout.text, new RegExp(`\\ndecision assigned, worker ${WORKER_ID}\nwhy +it fits\n`));
});

test("explain shows the places that come closest, and all of them when asked", async (t) => {
  const workers = Array.from({ length: 25 }, (_, index) => ({ workerId: WORKER_ID, name: `w-${index}` }));
  const url = await setup(t, {
    scheduler: { getSchedulingDecision: () => ({ ...waiting, workers, pools: [] }) },
  });
  const some = (await cli(["explain", JOB_ID], { url })).stdout.text;
  assert.match(some, /w-19\n/);
  assert.doesNotMatch(some, /w-20/);
  assert.match(some, /and 5 more workers; --all shows them/);
  assert.match((await cli(["explain", "--all", JOB_ID], { url })).stdout.text, /w-24/);
});

test("explain --watch tells what changes until the job starts", async (t) => {
  const reasons = ["all are busy", "all are busy", "a worker is being made"];
  let calls = 0;
  const url = await setup(t, {
    scheduler: {
      getSchedulingDecision: () => {
        const reason = reasons[calls];
        calls += 1;
        if (reason !== undefined) return { ...waiting, decision: { ...waiting.decision, reason } };
        return { ...waiting, state: JobState.RUNNING, decision: { reason: "given to worker w-1" } };
      },
    },
  });
  const run = await cli(["explain", "--watch", "-o", "json", JOB_ID], { url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  const lines = run.stdout.text.trim().split("\n");
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { decision: { reason: string } }).decision.reason),
    ["all are busy", "a worker is being made", "given to worker w-1"],
  );
});

test("explain of a job that is not there says so", async (t) => {
  const url = await setup(t, {
    scheduler: {
      getSchedulingDecision: () => {
        throw new ConnectError("job aaaa not found", Code.NotFound);
      },
    },
  });
  assert.equal((await cli(["explain", "aaaa"], { url })).exitCode, 3);
  assert.equal((await cli(["explain", "nonsense!"], { url })).exitCode, 2);
});

function queueServices(config: Omit<Partial<QueueConfig>, "$typeName" | "$unknown">) {
  const seen: { queues: Partial<QueueConfig>[]; reset: string[] } = { queues: [], reset: [] };
  const services: FakeServices = {
    scheduler: {
      getQueueStatus: ({ queue }) => ({
        queues: [
          { config, pending: 3n, running: 1n, starts: 9n, oldestWait: { seconds: 90n } },
          { config: { name: "other" }, pending: 0n },
        ].filter((status) => queue === "" || status.config.name === queue),
      }),
      configureScheduler: ({ queues, resetQueues }) => {
        seen.queues.push(...queues);
        seen.reset.push(...resetQueues);
        return {};
      },
    },
  };
  return { services, seen };
}

test("queue shows what waits and runs, and set keeps what is not named", async (t) => {
  const { services, seen } = queueServices({ name: "nightly", weight: 3, maxRunning: 4, paused: true });
  const url = await setup(t, services);
  const shown = await cli(["queue"], { url });
  assert.match(shown.stdout.text, /nightly +paused +3 +1\/4 +3 +1 min 30 s +9\n/);
  assert.match(shown.stdout.text, /other +open +0 +0 +1/);

  const set = await cli(["queue", "set", "nightly", "--max-pending", "10", "--resume"], { url });
  assert.equal(set.exitCode, 0, set.stderr.text);
  const [sent] = seen.queues;
  assert.equal(sent?.weight, 3);
  assert.equal(sent?.maxRunning, 4);
  assert.equal(sent?.maxPending, 10);
  assert.equal(sent?.paused, false);
  await cli(["queue", "set", "nightly", "--max-running", "none"], { url });
  assert.equal(seen.queues[1]?.maxRunning, undefined);
  await cli(["queue", "set", "new", "--weight", "2"], { url });
  assert.equal(seen.queues[2]?.weight, 2);

  assert.equal((await cli(["queue", "reset", "a", "b"], { url })).stdout.text, "a  reset\nb  reset\n");
  assert.deepEqual(seen.reset, ["a", "b"]);
  const json = await cli(["queue", "reset", "nightly", "-o", "json"], { url });
  assert.equal((JSON.parse(json.stdout.text) as { name: string }[])[0]?.name, "nightly");
});

test("queue set refuses what makes no sense before anything is sent", async (t) => {
  const { services, seen } = queueServices({ name: "q" });
  const url = await setup(t, services);
  for (const [args, expected] of [
    [[], /nothing to set/],
    [["--weight", "0"], /--weight: "0" is not a whole number from 1 to 1000/],
    [["--max-running", "many"], /--max-running: "many" is not a whole number/],
    [["--pause", "--resume"], /--pause: cannot stand beside --resume/],
  ] as const) {
    const run = await cli(["queue", "set", "q", ...args], { url });
    assert.equal(run.exitCode, 2);
    assert.match(run.stderr.text, expected);
  }
  assert.equal(seen.queues.length, 0);
});

test("decisions follow over a break of the stream, and say how many were left out", async (t) => {
  let streams = 0;
  const filters: unknown[] = [];
  const decision = (kind: DecisionKind, reason: string) => ({
    decision: { jobId: JOB_ID, kind, reason, queue: "q", time: at(1) },
  });
  const url = await setup(t, {
    jobs: { getJob: () => ({ job: { id: JOB_ID } }) },
    scheduler: {
      async *watchSchedulingDecisions({ queue, jobId }) {
        streams += 1;
        filters.push([queue, jobId]);
        if (streams === 1) yield decision(DecisionKind.WAITING, "all are busy");
        if (streams === 2) yield { lost: 7n };
        if (streams === 2) yield decision(DecisionKind.ASSIGNED, "it fits");
        if (streams > 2) throw new ConnectError("no more", Code.PermissionDenied);
      },
    },
  });
  const run = await cli(["decisions", "--queue", "q", "--job", "01980000"], { url });
  assert.equal(run.exitCode, 6);
  assert.match(
    run.stdout.text,
    /^2023-11-14T22:13:21\.000Z waiting +01980000-\S+ q all are busy\n.* assigned /,
  );
  assert.match(run.stderr.text, /7 decisions were left out/);
  assert.deepEqual(filters[0], ["q", JOB_ID]);
});

test("decisions on a job that waits no more say at once why none may come", async (t) => {
  let state = JobState.PENDING;
  const url = await setup(t, {
    jobs: { getJob: () => ({ job: { id: JOB_ID, state } }) },
    scheduler: {
      // eslint-disable-next-line require-yield
      async *watchSchedulingDecisions() {
        throw new ConnectError("no more", Code.PermissionDenied);
      },
    },
  });
  const watch = async () => (await cli(["decisions", "--job", JOB_ID], { url })).stderr.text;
  assert.doesNotMatch(await watch(), /nothing is decided/);
  state = JobState.FAILED;
  assert.match(await watch(), /^the job is failed: nothing is decided on it until it is retried\n/);
  state = JobState.RUNNING;
  assert.match(
    await watch(),
    /^the job is running: nothing is decided on it until it needs another attempt\n/,
  );
});

test("a job without an attempt says whether one may still come", async (t) => {
  let job = { id: JOB_ID, state: JobState.PENDING, message: "all are busy" };
  const url = await setup(t, { jobs: { getJob: () => ({ job }), getJobTimeline: () => ({ attempts: [] }) } });
  const timeline = async () => (await cli(["timeline", JOB_ID], { url })).stderr.text;
  assert.equal(await timeline(), `no attempt yet; see why with: hodei explain ${JOB_ID}\n`);
  job = { id: JOB_ID, state: JobState.CANCELLED, message: "cancelled before it started" };
  assert.equal(await timeline(), "it was never given to a worker: cancelled before it started\n");
});

test("assign gives a job to a worker, or says what is in the way", async (t) => {
  const url = await setup(t, {
    scheduler: {
      assignJob: ({ jobId }) => {
        if (jobId === JOB_ID) return { attemptId: "a-1" };
        throw new ConnectError("assign job: has 2 of 4 cores free, the job needs 3", Code.FailedPrecondition);
      },
    },
  });
  const done = await cli(["assign", JOB_ID, WORKER_ID], { url });
  assert.equal(done.stdout.text, `job ${JOB_ID} goes to worker ${WORKER_ID}, attempt a-1\n`);
  const refused = await cli(["assign", "aaaa", "bbbb"], { url });
  assert.equal(refused.exitCode, 5);
  assert.match(refused.stderr.text, /the job needs 3/);
  assert.equal((await cli(["assign", JOB_ID], { url })).exitCode, 2);
});

test("timeline shows the parts of an attempt whose worker was made for it", async (t) => {
  const made = {
    attemptId: "a-1",
    number: 1,
    workerId: WORKER_ID,
    queuedAt: at(0),
    provisioningAt: at(1),
    createdAt: at(3),
    registeredAt: at(4),
    scheduledAt: at(5),
    startedAt: at(6),
    firstByteAt: at(7),
    finishedAt: at(16),
  };
  const found = {
    number: 2,
    workerId: WORKER_ID,
    queuedAt: at(20),
    provisioningAt: at(1),
    scheduledAt: at(22),
  };
  const url = await setup(t, { jobs: { getJobTimeline: () => ({ attempts: [made, found] }) } });
  const text = (await cli(["timeline", JOB_ID], { url })).stdout.text;
  for (const expected of [
    /attempt 1 on worker 01980000-\S+, waiting since 2023-11-14T22:13:20\.000Z/,
    /waiting +\+0 ms +1\.0 s +█/,
    /creating a worker +\+1\.0 s +2\.0 s/,
    /connecting it +\+3\.0 s +1\.0 s/,
    /giving it the job +\+4\.0 s +1\.0 s/,
    /starting +\+5\.0 s +1\.0 s/,
    /to first output +\+6\.0 s +1\.0 s/,
    /running +\+6\.0 s +10\.0 s +█+\n/,
  ]) {
    assert.match(text, expected);
  }
  const view = JSON.parse((await cli(["timeline", JOB_ID, "-o", "json"], { url })).stdout.text) as {
    parts: { name: string; durationMs: number; isOpen: boolean; fromAt: string }[];
  }[];
  assert.deepEqual(
    view[1]?.parts.map(({ name, isOpen }) => [name, isOpen]),
    [
      ["waiting", false],
      ["starting", true],
    ],
  );
  assert.equal(view[0]?.parts[1]?.durationMs, 2000);
});

test("explain --watch goes on while the server is away for a moment", async (t) => {
  const first = await startFakeServer({ scheduler: { getSchedulingDecision: () => waiting } });
  const run = startCli(["explain", "--watch", JOB_ID], { url: first.url });
  await eventually(() => run.stdout.text.includes("all workers that fit are busy"));
  await first.close();
  const port = Number(new URL(first.url).port);
  const again = await startFakeServer(
    { scheduler: { getSchedulingDecision: () => ({ ...waiting, state: JobState.RUNNING }) } },
    port,
  );
  t.after(again.close);
  const { exitCode, stderr } = await run.result;
  assert.equal(exitCode, 0, stderr.text);
});
