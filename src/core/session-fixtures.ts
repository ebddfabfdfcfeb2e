/** A worker, a job and a result as tests need them, and what a runner says of them. */

import { definitionWith, type AttemptResult, type Job, type JobDefinition } from "./job.ts";
import { newJob } from "./new-job.ts";
import type { RunnerAttempt, RunnerToAgent } from "./runner-link.ts";
import type { WorkerInfo } from "./worker.ts";

export const sampleDefinition: JobDefinition = definitionWith({
  name: "sample",
  command: { kind: "shell", cmd: "true", args: [] },
});

export const sampleWorker: WorkerInfo = {
  workerId: "w-1",
  name: "worker",
  version: "0.1.0",
  hostname: "host",
  ipAddress: "127.0.0.1",
  capacity: { cpuMillis: 4_000, memoryBytes: 2 ** 33, diskBytes: 2 ** 40, gpu: 0, jobs: 4 },
  capabilities: [],
  labels: {},
  taints: [],
};

export function sampleResult(changes: Partial<AttemptResult> = {}): AttemptResult {
  return {
    state: "succeeded",
    cause: null,
    exitCode: 0,
    signal: null,
    message: "",
    startedAtMs: 1_000,
    finishedAtMs: 2_000,
    usage: { peakMemoryBytes: 0, cpuMicros: 0, ioReadBytes: 0, ioWriteBytes: 0, leftoverProcesses: 0 },
    steps: [],
    outputs: {},
    summary: "",
    logEnd: 0,
    ...changes,
  };
}

/** A job as it is right after it was assigned as attempt `attemptId`. */
export function sampleJob(changes: Partial<Job> = {}): Job {
  return {
    ...newJob({ id: "j-1", definition: sampleDefinition, nowMs: 0 }),
    state: "scheduled",
    deadlineAtMs: 30_000,
    attemptId: "a-1",
    attemptCount: 1,
    workerId: "w-1",
    version: 2,
    ...changes,
  };
}

/** What a runner says that holds these. */
export function runnerHello(
  runnerId: string,
  attempts: readonly Omit<RunnerAttempt, "jobId">[],
): Extract<RunnerToAgent, { type: "hello" }> {
  const ofJob = attempts.map((attempt) => ({ ...attempt, jobId: "j-1" }));
  return { type: "hello", runnerId, pid: 1, version: "", capabilities: [], attempts: ofJob };
}
