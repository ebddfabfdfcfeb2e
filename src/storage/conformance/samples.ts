/** Jobs and changes as tests need them. */

import assert from "node:assert/strict";
import { systemClock } from "../../base/clock.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import { definitionWith, type AttemptResult, type Job, type JobDefinition } from "../../core/job.ts";
import { sampleResult } from "../../core/session-fixtures.ts";
import type { AppliedInput, NewJob, Store } from "../store.ts";

export const T0 = 1_800_000_000_000;

export function newId(): string {
  return uuidV7(systemClock, systemRandom);
}

export function definitionOf(changes: Partial<JobDefinition> = {}): JobDefinition {
  return definitionWith({
    name: "build",
    command: { kind: "shell", cmd: "make", args: ["all"] },
    resources: { cpuMillis: 100, memoryBytes: 0, diskBytes: 0, gpu: 0 },
    retry: { maxBackoffMs: 60_000 },
    ...changes,
  });
}

export function newJobOf(changes: Partial<JobDefinition> = {}, record: Partial<NewJob> = {}): NewJob {
  return { id: newId(), definition: definitionOf(changes), idempotencyKey: null, nowMs: T0, ...record };
}

export async function submit(
  store: Store,
  changes: Partial<JobDefinition> = {},
  record: Partial<NewJob> = {},
): Promise<string> {
  const added = newJobOf(changes, record);
  const [inserted] = await store.insertJobs([added]);
  assert.deepEqual(inserted, { jobId: added.id, created: true });
  return added.id;
}

export async function apply(store: Store, jobId: string, input: JobInput, nowMs = T0): Promise<AppliedInput> {
  return store.applyInput({ jobId, input, nowMs });
}

export async function applyOk(store: Store, jobId: string, input: JobInput, nowMs = T0): Promise<Job> {
  const applied = await apply(store, jobId, input, nowMs);
  assert.ok(applied.ok, `${input.type} was refused: ${applied.ok ? "" : applied.refusal}`);
  return applied.job;
}

export async function startJob(store: Store, jobId: string, workerId = newId()): Promise<string> {
  const attemptId = newId();
  await applyOk(store, jobId, { type: "assign", attemptId, workerId });
  await applyOk(store, jobId, { type: "start", attemptId, startedAtMs: T0 + 5 });
  return attemptId;
}

export function resultOf(changes: Partial<AttemptResult> = {}): AttemptResult {
  return sampleResult({
    startedAtMs: T0 + 5,
    finishedAtMs: T0 + 50,
    usage: { peakMemoryBytes: 1, cpuMicros: 2, ioReadBytes: 3, ioWriteBytes: 4, leftoverProcesses: 0 },
    outputs: { version: "1.2" },
    summary: "# done",
    logEnd: 42,
    ...changes,
  });
}
