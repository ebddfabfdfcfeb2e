/** Holds what the server says of a job against what the job did. Pure, as is check-attempt.ts. */

import {
  Cause,
  JobState,
  type Attempt,
  type Job,
  type JobEvent,
} from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { checkAttempt } from "./check-attempt.ts";
import { FINAL_STATES, type AttemptLog } from "./cluster-client.ts";
import type { StormJob } from "./job-load.ts";
import { violation, type Violation } from "./violation.ts";
import type { Effect, Trace } from "./witness-job.ts";

export interface JobFacts {
  planned: StormJob;
  job: Job;
  events: readonly JobEvent[];
  trace: Trace;
  /** By number of the attempt. */
  logs: ReadonlyMap<number, AttemptLog>;
}

/** What is wrong; empty if nothing is. */
export function checkJob(facts: JobFacts): Violation[] {
  const { planned, job, trace } = facts;
  return [
    ...checkEnd(facts),
    ...checkAttempts(trace, job).map((text) => violation("twice", text)),
    ...checkPauses(planned, trace.effects).map((text) => violation("state", text)),
    ...job.attempts.flatMap((attempt) =>
      checkLog(facts, attempt).map((text) =>
        violation("log", `attempt ${attempt.number} (${describe(attempt)}): ${text}`),
      ),
    ),
  ];
}

function checkLog({ planned, trace, logs }: JobFacts, attempt: Attempt): string[] {
  const log = logs.get(attempt.number);
  if (!log) return ["it has no log"];
  const effects = trace.effects.filter((effect) => effect.attempt === attempt.number);
  return checkAttempt({ name: planned.name, attempt, log, effects });
}

function checkEnd({ planned, job, events, trace }: JobFacts): Violation[] {
  if (!FINAL_STATES.includes(job.state)) {
    return [violation("lost", `it never ended: ${JobState[job.state]}, ${job.message}`)];
  }
  const problems: string[] = [];
  const ends = events.filter(({ state }) => FINAL_STATES.includes(state)).length;
  if (ends !== 1) problems.push(`it ended ${ends} times`);
  if (!isExpectedEnd(planned, job)) {
    const cause = `${Cause[job.cause]} ${job.exitCode ?? ""} ${job.message}`;
    problems.push(`it ended as ${JobState[job.state]}, ${cause}`);
  }
  const hasEnded = trace.effects.some(({ kind, attempt }) => kind === "end" && attempt === job.attemptCount);
  if (job.state === JobState.SUCCEEDED && !hasEnded) problems.push("it succeeded and never came to its end");
  const attempt = planned.cancelledAtAttempt;
  if (attempt !== null && job.attemptCount > attempt) {
    problems.push(`attempt ${job.attemptCount} was made after the cancel at attempt ${attempt}`);
  }
  return problems.map((text) => violation("state", text));
}

function isExpectedEnd(planned: StormJob, job: Job): boolean {
  const { expected, wasHit, cancelledAtAttempt, failsWhenLost } = planned;
  if (cancelledAtAttempt !== null && job.state === JobState.CANCELLED) return true;
  // The killed process ends its shell with a signal, or with the code that stands for one.
  if (
    wasHit &&
    job.state === JobState.FAILED &&
    (job.cause === Cause.SIGNAL || job.cause === Cause.EXIT_CODE)
  ) {
    return true;
  }
  if (failsWhenLost && job.state === JobState.FAILED && job.cause === Cause.WORKER_LOST) return true;
  switch (expected.state) {
    case "succeeded":
      return job.state === JobState.SUCCEEDED;
    case "timed_out":
      return job.state === JobState.TIMED_OUT;
    case "failed":
      return (
        job.state === JobState.FAILED && job.cause === Cause.EXIT_CODE && job.exitCode === expected.exitCode
      );
  }
}

/**
 * Each attempt begins at most once and is known, and no two are alive at once, by the times of both or
 * by what the later one saw.
 */
function checkAttempts({ effects, violations }: Trace, job: Job): string[] {
  const problems = [...violations];
  const begun = new Set<number>();
  for (const { attempt, kind, atMs } of effects) {
    if (kind !== "begin") continue;
    if (begun.has(attempt)) problems.push(`attempt ${attempt} began again`);
    begun.add(attempt);
    if (!job.attempts.some(({ number }) => number === attempt)) {
      problems.push(`attempt ${attempt} ran, of which the server knows nothing`);
    }
    const late = effects.find((effect) => effect.attempt < attempt && effect.atMs > atMs);
    if (late) problems.push(`attempt ${late.attempt} was alive after attempt ${attempt} had begun`);
  }
  return problems;
}

/** The freeze is confirmed before the answer, and the clock of traces has steps of 10 ms. */
const CLOCK_STEP_MS = 10;

function checkPauses({ pauses }: StormJob, effects: readonly Effect[]): string[] {
  return pauses.flatMap(({ attempt, fromMs, untilMs }) => {
    const stirred = effects.filter(
      (effect) =>
        effect.attempt === attempt &&
        effect.atMs > fromMs + CLOCK_STEP_MS &&
        effect.atMs < untilMs - CLOCK_STEP_MS,
    );
    return stirred.length === 0 ? [] : [`it did something ${stirred.length} times while it was paused`];
  });
}

function describe(attempt: Attempt): string {
  const cause = attempt.cause === Cause.UNSPECIFIED ? "" : `, ${Cause[attempt.cause]}`;
  return `${JobState[attempt.state]}${cause}`;
}
