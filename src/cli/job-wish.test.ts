import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { eventually } from "../base/eventually.ts";
import { JobState, type Job } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { WorkerState } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { cli, startCli, startFakeServer, type FakeServices } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";
const WORKER_ID = "01980000-0000-7000-8000-000000000002";

async function setup(t: { after(run: () => Promise<void>): void }, services: FakeServices): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

type View = Partial<Pick<Job, "state" | "pauseWanted" | "message">>;

/** A job that goes through these states once it was asked. */
function jobThrough(...views: View[]): FakeServices {
  const answer = (view: View) => ({ job: { id: JOB_ID, definition: { name: "x" }, ...view } });
  return {
    jobs: {
      pauseJob: () => answer({ state: JobState.RUNNING, pauseWanted: true }),
      resumeJob: () => answer({ state: JobState.PAUSED }),
      async *watchJob() {
        for (const view of views) yield answer(view);
        await new Promise(() => {});
      },
    },
  };
}

test("pause waits until the worker has done it", async (t) => {
  const url = await setup(
    t,
    jobThrough(
      { state: JobState.RUNNING, pauseWanted: true },
      { state: JobState.UNREACHABLE, pauseWanted: true },
      { state: JobState.PAUSED, pauseWanted: true },
    ),
  );
  const text = await cli(["pause", "01980000"], { url });
  assert.equal(text.exitCode, 0, text.stderr.text);
  assert.equal(text.stdout.text, `${JOB_ID}  paused\n`);
  const json = await cli(["pause", "01980000", "01980000", "-o", "json"], { url });
  assert.deepEqual(
    (JSON.parse(json.stdout.text) as { state: string }[]).map(({ state }) => state),
    ["paused", "paused"],
  );
});

test("a pause that the worker refuses says why, and exits with 5", async (t) => {
  const refused = { state: JobState.RUNNING, pauseWanted: false, message: "could not be paused: no freezer" };
  const url = await setup(t, jobThrough({ state: JobState.RUNNING, pauseWanted: true }, refused));
  const run = await cli(["pause", JOB_ID], { url });
  assert.equal(run.exitCode, 5);
  assert.equal(run.stderr.text, `hodei: pause job ${JOB_ID}: could not be paused: no freezer\n`);
});

test("a job that ends while its pause is awaited, or does not run, is exit code 5", async (t) => {
  const url = await setup(t, jobThrough({ state: JobState.SUCCEEDED }));
  const ended = await cli(["pause", JOB_ID], { url });
  assert.equal(ended.exitCode, 5);
  assert.match(ended.stderr.text, /it has ended meanwhile and is succeeded/);

  const refusing = await setup(t, {
    jobs: {
      resumeJob: () => {
        throw new ConnectError(
          `resume job ${JOB_ID}: it is running, and only a paused job can be resumed`,
          Code.FailedPrecondition,
        );
      },
    },
  });
  const notPaused = await cli(["resume", JOB_ID], { url: refusing });
  assert.equal(notPaused.exitCode, 5);
  assert.match(notPaused.stderr.text, /only a paused job can be resumed/);
});

test("with --no-wait it is only asked for, and a wait has its limit", async (t) => {
  const url = await setup(t, jobThrough({ state: JobState.RUNNING, pauseWanted: true }));
  const asked = await cli(["pause", "--no-wait", JOB_ID], { url });
  assert.equal(asked.exitCode, 0);
  assert.equal(asked.stdout.text, `${JOB_ID}  running\n`);
  const late = await cli(["pause", "--timeout", "100ms", JOB_ID], { url });
  assert.equal(late.exitCode, 4);
  assert.match(late.stderr.text, /has not done it within 100ms\nhint: the wish is kept/);
});

test("resume waits until the job runs again", async (t) => {
  const url = await setup(t, jobThrough({ state: JobState.PAUSED }, { state: JobState.RUNNING }));
  const run = await cli(["resume", JOB_ID], { url });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.equal(run.stdout.text, `${JOB_ID}  running\n`);
});

test("workers drain tells all workers, and with --wait says what they still run until they are gone", async (t) => {
  const told: string[] = [];
  let runs = 2;
  const worker = (state: WorkerState, attempts: number) => ({
    worker: {
      info: { workerId: WORKER_ID },
      state,
      attemptIds: Array.from({ length: attempts }, () => JOB_ID),
    },
  });
  const url = await setup(t, {
    workers: {
      drainWorker: ({ workerId, reason }) => {
        if (workerId === "ffff") throw new ConnectError("no such worker", Code.NotFound);
        told.push(reason);
        return worker(WorkerState.DRAINING, runs);
      },
      getWorkerInfo: () =>
        runs > 0 ? worker(WorkerState.DRAINING, runs) : worker(WorkerState.TERMINATED, 0),
    },
  });
  const short = await cli(["workers", "drain", "01980000", "--reason", "upgrade"], { url });
  assert.equal(short.stdout.text, `${WORKER_ID}  draining  2 jobs still run\n`);
  assert.deepEqual(told, ["upgrade"]);

  const run = startCli(["workers", "drain", "ffff", "01980000", "--wait"], { url });
  await eventually(() => run.stderr.text.includes("1 worker drains, 2 jobs still run\n"));
  runs = 1;
  await eventually(() => run.stderr.text.includes("1 worker drains, 1 job still runs\n"));
  runs = 0;
  const { exitCode, stdout } = await run.result;
  assert.equal(exitCode, 3, "the worker that is not there is reported");
  assert.equal(stdout.text, `${WORKER_ID}  terminated\n`);
});

test("a drain that takes too long ends with 124, and its options need the word", async (t) => {
  const worker = { info: { workerId: WORKER_ID }, state: WorkerState.DRAINING, attemptIds: [JOB_ID] };
  const url = await setup(t, {
    workers: { drainWorker: () => ({ worker }), getWorkerInfo: () => ({ worker }) },
  });
  const late = await cli(["workers", "drain", WORKER_ID, "--wait", "--timeout", "50ms"], { url });
  assert.equal(late.exitCode, 124);
  assert.match(late.stderr.text, /not gone after 50ms: 1 worker drains, 1 job still runs/);
  assert.equal((await cli(["workers", "drain"], { url })).exitCode, 2);
  const without = await cli(["workers", "--wait"], { url });
  assert.equal(without.exitCode, 2);
  assert.match(without.stderr.text, /unknown option .--wait./);
});
