/** Puts together how an attempt ended, from all that is known of its end. */

import type { AttemptResult, Cause, FinalJobState } from "../core/job.ts";
import { describeSize } from "../core/log-gap.ts";
import type { JobFiles } from "./job/job-files.ts";
import type { Failure, SequenceEnd } from "./step-sequence.ts";
import type { TreeUsage } from "./tree/process-tree.ts";

/** The end of an attempt that came from outside of its commands. */
export interface Ending {
  kind: "cancelled" | "timed_out" | "lease_lost" | "log_quota";
  message: string;
}

const ENDINGS: { readonly [K in Ending["kind"]]: { state: FinalJobState; cause: Cause } } = {
  cancelled: { state: "cancelled", cause: "cancelled" },
  timed_out: { state: "timed_out", cause: "timeout" },
  lease_lost: { state: "failed", cause: "worker_lost" },
  log_quota: { state: "failed", cause: "log_quota" },
};

export interface EndFacts {
  sequence: SequenceEnd;
  ending: Ending | null;
  files: JobFiles;
  usage: TreeUsage;
  leftovers: number;
  lostLogBytes: number;
  startedAtMs: number | null;
  finishedAtMs: number;
  logEnd: number;
}

export function makeResult(facts: EndFacts): AttemptResult {
  const { usage, files } = facts;
  const verdict = verdictOf(facts);
  const notes = [...files.problems];
  if (facts.lostLogBytes > 0)
    notes.push(`${describeSize(facts.lostLogBytes)} of log could not be written to the worker's disk`);
  return {
    state: verdict.state,
    cause: verdict.cause,
    exitCode: verdict.exitCode,
    signal: verdict.signal,
    message: [verdict.message, ...notes].filter((text) => text !== "").join("; "),
    startedAtMs: facts.startedAtMs,
    finishedAtMs: facts.finishedAtMs,
    usage: {
      peakMemoryBytes: usage.peakMemoryBytes,
      cpuMicros: usage.cpuMicros,
      ioReadBytes: usage.ioReadBytes,
      ioWriteBytes: usage.ioWriteBytes,
      leftoverProcesses: facts.leftovers,
    },
    steps: facts.sequence.steps,
    outputs: files.outputs,
    summary: files.summary,
    logEnd: facts.logEnd,
  };
}

type Verdict = Omit<Failure, "cause"> & { cause: Cause | null };

function verdictOf({ sequence, ending, usage }: EndFacts): Verdict {
  const { failure, lastExit } = sequence;
  if (ending !== null) {
    const exit = { exitCode: lastExit?.exitCode ?? null, signal: lastExit?.signal ?? null };
    return { ...ENDINGS[ending.kind], ...exit, message: ending.message };
  }
  if (failure !== null) {
    const isOutOfMemory = usage.oomKills > 0 && (failure.cause === "signal" || failure.cause === "exit_code");
    if (!isOutOfMemory) return failure;
    return {
      ...failure,
      cause: "out_of_memory",
      message: `out of memory: the kernel killed a process (${failure.message})`,
    };
  }
  return { state: "succeeded", cause: null, exitCode: lastExit?.exitCode ?? null, signal: null, message: "" };
}

/** For what went wrong on the worker before or between the commands. */
export function sequenceEndOfError(
  message: string,
  cause: "server_error" | "worker_lost" = "server_error",
): SequenceEnd {
  const failure: Failure = { state: "failed", cause, exitCode: null, signal: null, message };
  return { steps: [], failure, lastExit: null };
}
