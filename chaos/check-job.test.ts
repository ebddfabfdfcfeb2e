import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  AttemptSchema,
  Cause,
  JobEventSchema,
  JobSchema,
  JobState,
} from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { checkJob, type JobFacts } from "./check-job.ts";
import type { StormJob } from "./job-load.ts";
import type { Trace } from "./witness-job.ts";

const NOTE = '{"reason":"worker_lost","bytes":null,"limit_bytes":null}';

/** A job whose first attempt was lost after 2 s, and whose second one succeeded. */
function setup(
  changes: { planned?: Partial<StormJob>; trace?: Partial<Trace>; state?: JobState; ends?: number } = {},
): JobFacts {
  const { state = JobState.SUCCEEDED, ends = 1 } = changes;
  const lost = { number: 1, state: JobState.FAILED, cause: Cause.WORKER_LOST };
  const attempts = [create(AttemptSchema, lost), create(AttemptSchema, { number: 2, state })];
  const log = (attempt: number, system: string) => ({
    stdout: Buffer.from(`o 1 of job-1 attempt ${attempt}\n`),
    stderr: Buffer.from(""),
    system,
    isComplete: true,
  });
  return {
    planned: {
      kind: "steady",
      name: "job-1",
      directory: "/nowhere",
      definition: {},
      expected: { state: "succeeded" },
      failsWhenLost: false,
      act: { type: "none" },
      jobId: "1",
      cancelledAtAttempt: null,
      pauses: [],
      wasHit: false,
      ...changes.planned,
    },
    job: create(JobSchema, { state, attempts, attemptCount: 2 }),
    events: [JobState.PENDING, ...Array<JobState>(ends).fill(state)].map((after) =>
      create(JobEventSchema, { state: after }),
    ),
    trace: {
      effects: [
        { kind: "begin", attempt: 1, atMs: 1_000, out: 0, err: 0 },
        { kind: "beat", attempt: 1, atMs: 3_000, out: 1, err: 0 },
        { kind: "begin", attempt: 2, atMs: 5_000, out: 0, err: 0 },
        { kind: "beat", attempt: 2, atMs: 6_000, out: 1, err: 0 },
        { kind: "end", attempt: 2, atMs: 7_000, out: 1, err: 0 },
      ],
      violations: [],
      holders: [],
      ...changes.trace,
    },
    logs: new Map([
      [1, log(1, NOTE)],
      [2, log(2, "")],
    ]),
  };
}

/** What was found, as `kind: text`. */
function found(facts: JobFacts): string[] {
  return checkJob(facts).map(({ kind, text }) => `${kind}: ${text}`);
}

test("a job with one lost attempt and one good one is in order", () => {
  assert.deepEqual(found(setup()), []);
});

test("two attempts alive at once are found, by their times and by the word of the second", () => {
  const facts = setup();
  const late = { kind: "beat" as const, attempt: 1, atMs: 5_500, out: 1, err: 0 };
  const effects = [...facts.trace.effects, late];
  assert.deepEqual(found(setup({ trace: { effects } })), [
    "twice: attempt 1 was alive after attempt 2 had begun",
  ]);
  const violations = ["attempt 2 found process 7 of attempt 1 alive"];
  assert.deepEqual(found(setup({ trace: { violations } })), [`twice: ${violations[0]}`]);
});

test("an attempt of which the server knows nothing is found", () => {
  const facts = setup();
  const effects = [
    ...facts.trace.effects,
    { kind: "begin" as const, attempt: 3, atMs: 9_000, out: 0, err: 0 },
  ];
  assert.deepEqual(found(setup({ trace: { effects } })), [
    "twice: attempt 3 ran, of which the server knows nothing",
  ]);
});

test("an attempt that began twice is found", () => {
  const facts = setup();
  const again = { kind: "begin" as const, attempt: 2, atMs: 5_500, out: 0, err: 0 };
  assert.deepEqual(found(setup({ trace: { effects: [...facts.trace.effects, again] } })), [
    "twice: attempt 2 began again",
  ]);
});

test("a success without the end of the job is found, and a log that lacks a line", () => {
  const effects = setup().trace.effects.filter(({ kind }) => kind !== "end");
  assert.deepEqual(found(setup({ trace: { effects } })), ["state: it succeeded and never came to its end"]);
  const facts = setup();
  facts.logs.get(2)?.stdout.write("x");
  assert.match(found(facts).join(), /^log: attempt 2 \(SUCCEEDED\): line 1 of o should be/);
});

test("a job that did not end, or ended twice, or otherwise than it should, is found", () => {
  assert.match(found(setup({ state: JobState.RUNNING })).join(), /never ended: RUNNING/);
  assert.match(found(setup({ ends: 2 })).join(), /ended 2 times/);
  assert.match(found(setup({ state: JobState.FAILED })).join(), /ended as FAILED/);
  assert.match(found(setup({ state: JobState.CANCELLED })).join(), /ended as CANCELLED/);
  assert.match(found(setup({ planned: { expected: { state: "timed_out" } } })).join(), /ended as SUCCEEDED/);
});

test("a cancel that the server took lets no further attempt begin", () => {
  assert.deepEqual(found(setup({ planned: { cancelledAtAttempt: 2 } })), []);
  assert.match(found(setup({ planned: { cancelledAtAttempt: 1 } })).join(), /made after the cancel/);
});

test("what a job does while it is paused is found", () => {
  const pause = (fromMs: number, untilMs: number) => ({ pauses: [{ attempt: 2, fromMs, untilMs }] });
  assert.deepEqual(found(setup({ planned: pause(5_050, 5_950) })), []);
  assert.match(found(setup({ planned: pause(5_050, 6_050) })).join(), /while it was paused/);
});
