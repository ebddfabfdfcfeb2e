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
import type { Effect, Trace } from "./witness-job.ts";

export interface JobFacts {
  planned: StormJob;
  job: Job;
  events: readonly JobEvent[];
  trace: Trace;
  /** By number of the attempt. */
  logs: ReadonlyMap<number, AttemptLog>;
}

/** What is wrong, in words; empty if nothing is. */
export function checkJob(facts: JobFacts): string[] {
  const { planned, job, trace, logs } = facts;
  const problems = [...checkEnd(facts), ...checkOverlap(trace), ...checkPauses(planned, trace.effects)];
  for (const attempt of job.attempts) {
    const log = logs.get(attempt.number);
    const effects = trace.effects.filter((effect) => effect.attempt === attempt.number);
    const found = log ? checkAttempt({ name: planned.name, attempt, log, effects }) : ["it has no log"];
    problems.push(...found.map((problem) => `attempt ${attempt.number} (${describe(attempt)}): ${problem}`));
  }
  const known = new Set(job.attempts.map(({ number }) => number));
  for (const { attempt } of trace.effects) {
    if (!known.has(attempt)) problems.push(`attempt ${attempt} ran, of which the server knows nothing`);
  }
  return [...new Set(problems)];
}

function checkEnd({ planned, job, events }: JobFacts): string[] {
  const problems: string[] = [];
  if (!FINAL_STATES.includes(job.state)) return [`it never ended: ${JobState[job.state]}, ${job.message}`];
  const ends = events.filter(({ state }) => FINAL_STATES.includes(state)).length;
  if (ends !== 1) problems.push(`it ended ${ends} times`);
  if (!isExpectedEnd(planned, job)) {
    problems.push(
      `it ended as ${JobState[job.state]}, ${Cause[job.cause]} ${job.exitCode ?? ""} ${job.message}`,
    );
  }
  const attempt = planned.cancelledAtAttempt;
  if (attempt !== null && job.attemptCount > attempt) {
    problems.push(`attempt ${job.attemptCount} was made after the cancel at attempt ${attempt}`);
  }
  return problems;
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

/** Two attempts that were alive at once, by the word of the second or by the times of both. */
function checkOverlap({ effects, violations }: Trace): string[] {
  const problems = [...violations];
  for (const { attempt, kind, atMs } of effects) {
    if (kind !== "begin") continue;
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
