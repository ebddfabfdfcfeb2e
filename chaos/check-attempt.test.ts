import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { AttemptSchema, Cause, JobState } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { checkAttempt, type AttemptFacts } from "./check-attempt.ts";

/** An attempt that printed three lines to stdout and two to stderr, and ended well. */
function setup(
  changes: { stdout?: string; stderr?: string; system?: string; isComplete?: boolean } = {},
  end: { state: JobState; cause?: Cause; isCutShort?: boolean } = { state: JobState.SUCCEEDED },
): AttemptFacts {
  const { stdout = lines("o", 3), stderr = lines("e", 2), system = "", isComplete = true } = changes;
  const at = (kind: "begin" | "beat" | "end", out: number, err: number) => ({
    kind,
    attempt: 1,
    atMs: 1_000 + out,
    out,
    err,
  });
  const effects = [at("begin", 0, 0), at("beat", 2, 1), at("beat", 3, 2)];
  if (!end.isCutShort) effects.push(at("end", 3, 2));
  return {
    name: "job-1",
    attempt: create(AttemptSchema, { number: 1, state: end.state, cause: end.cause ?? Cause.UNSPECIFIED }),
    log: { stdout: Buffer.from(stdout), stderr: Buffer.from(stderr), system, isComplete },
    effects,
  };
}

function lines(letter: string, count: number): string {
  return Array.from({ length: count }, (_, index) => `${letter} ${index + 1} of job-1 attempt 1\n`).join("");
}

const CANCELLED = { state: JobState.CANCELLED, cause: Cause.CANCELLED, isCutShort: true };
const LOST = { state: JobState.FAILED, cause: Cause.WORKER_LOST, isCutShort: true };
const NOTE = '{"reason":"worker_lost","bytes":null,"limit_bytes":null}';

test("a log with every line once and in order is in order", () => {
  assert.deepEqual(checkAttempt(setup()), []);
});

test("a line that is missing is found at the end, in the middle and at the beginning", () => {
  const [first = "", second = "", third = ""] = lines("o", 3)
    .split("\n")
    .map((line) => `${line}\n`);
  for (const stdout of [first + second, first + third, second + third, ""]) {
    assert.notDeepEqual(checkAttempt(setup({ stdout })), [], JSON.stringify(stdout));
  }
});

test("a line that is repeated or out of order is found", () => {
  const [first = "", second = "", third = ""] = lines("e", 3)
    .split("\n")
    .map((line) => `${line}\n`);
  for (const stderr of [
    first + first + second,
    second + first,
    first + second + third,
    first + second + second,
  ]) {
    assert.notDeepEqual(checkAttempt(setup({ stderr })), [], JSON.stringify(stderr));
  }
});

test("a line of another attempt or job is found", () => {
  const ofAnother = lines("o", 3).replace("o 2 of job-1 attempt 1", "o 2 of job-1 attempt 2");
  assert.match(checkAttempt(setup({ stdout: ofAnother })).join(), /should be/);
  assert.match(
    checkAttempt(setup({ stdout: lines("o", 3).replaceAll("job-1", "job-2") })).join(),
    /should be/,
  );
});

test("a log that never becomes complete is found", () => {
  assert.deepEqual(checkAttempt(setup({ isComplete: false })), ["its log was never completed"]);
});

test("an attempt that was killed may lack what it had not printed, and nothing else", () => {
  assert.deepEqual(checkAttempt(setup({}, CANCELLED)), []);
  assert.deepEqual(checkAttempt(setup({ stdout: `${lines("o", 3)}o 4 of jo` }, CANCELLED)), []);
  assert.deepEqual(checkAttempt(setup({ stdout: lines("o", 2) }, CANCELLED)), [
    "1 lines that it had printed are missing",
  ]);
});

test("an attempt whose worker was lost may lack lines if its log says so", () => {
  assert.deepEqual(checkAttempt(setup({ stdout: lines("o", 1), system: NOTE }, LOST)), []);
  assert.deepEqual(checkAttempt(setup({ stdout: "", stderr: "" }, LOST)), []);
  assert.match(checkAttempt(setup({ stdout: lines("o", 1) }, LOST)).join(), /does not say so/);
  assert.match(
    checkAttempt(setup({ stdout: lines("o", 3).slice(23), system: NOTE }, LOST)).join(),
    /should be/,
  );
});
