import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import { sampleDefinition, sampleResult, sampleWorker } from "../../core/session-fixtures.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { StartTimes } from "./start-times.ts";

function setup() {
  const clock = new ManualClock();
  const store = createMemoryStore({ random: systemRandom });
  const reads: string[] = [];
  const counted = {
    getWorker: (workerId: string) => {
      reads.push(workerId);
      return store.getWorker(workerId);
    },
  };
  const times = new StartTimes({ store: counted, clock, log: silentLogger });
  const newId = (): string => uuidV7(clock, systemRandom);
  const queue = async (): Promise<string> => {
    const id = newId();
    const definition = {
      ...sampleDefinition,
      retry: { ...sampleDefinition.retry, maxInfrastructureRetries: 2 },
    };
    await store.insertJobs([{ id, definition, idempotencyKey: null, nowMs: clock.nowMs() }]);
    return id;
  };
  const apply = async (jobId: string, input: JobInput): Promise<Job> => {
    const applied = await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
    if (!applied.ok) throw new Error(`${input.type} was refused: ${applied.refusal}`);
    times.onJobChanged(applied.job);
    return applied.job;
  };
  /** Asked for now; made and registered after so many milliseconds each. */
  const makeWorker = async (afterMs: { made: number; registered: number }): Promise<string> => {
    const id = newId();
    const token = { hash: id, expiresAtMs: Infinity };
    await store.insertWorker({ id, name: id, provider: "test", pool: "p", nowMs: clock.nowMs(), token });
    clock.advance(afterMs.made);
    await store.changeWorker({ workerId: id, madeAtMs: clock.nowMs() });
    clock.advance(afterMs.registered);
    await store.registerWorker({
      tokenHash: id,
      registrationKey: id,
      sessionTokenHash: id,
      info: { ...sampleWorker, workerId: id },
      nowMs: clock.nowMs(),
    });
    return id;
  };
  const assign = async (jobId: string, workerId: string): Promise<string> => {
    const attemptId = newId();
    await apply(jobId, { type: "assign", attemptId, workerId });
    return attemptId;
  };
  const start = (jobId: string, attemptId: string): Promise<Job> =>
    apply(jobId, { type: "start", attemptId, startedAtMs: clock.nowMs() });
  const medians = (): Record<string, number> =>
    Object.fromEntries(times.parts().flatMap(({ name, count, p50Ms }) => (count > 0 ? [[name, p50Ms]] : [])));
  return { clock, store, times, reads, queue, apply, makeWorker, assign, start, medians };
}

test("each part of the way to the first output is measured once, on a worker made for the job", async () => {
  const { clock, times, reads, queue, makeWorker, assign, start, medians } = setup();
  const jobId = await queue();
  clock.advance(3);
  const workerId = await makeWorker({ made: 20, registered: 10 });
  clock.advance(1);
  const attemptId = await assign(jobId, workerId);
  clock.advance(5);
  const started = await start(jobId, attemptId);
  times.onJobChanged(started);
  clock.advance(7);
  times.onFirstByte(attemptId);
  clock.advance(100);
  times.onFirstByte(attemptId);
  await eventually(() => times.histogram("waiting").count > 0);
  assert.deepEqual(medians(), {
    waiting: 3,
    provisioning: 31,
    creating: 20,
    registering: 10,
    starting: 5,
    first_byte: 7,
    total: 46,
  });
  assert.ok(times.parts().every(({ count }) => count === 1));
  assert.deepEqual(reads, [workerId]);
});

test("of the jobs that a worker gets, only the first one waited for it to be made", async () => {
  const { clock, times, reads, queue, makeWorker, assign, start } = setup();
  const jobIds = [await queue(), await queue(), await queue()];
  const workerId = await makeWorker({ made: 20, registered: 10 });
  for (const jobId of jobIds) {
    const attemptId = await assign(jobId, workerId);
    clock.advance(1_000);
    await start(jobId, attemptId);
  }
  await eventually(() => times.histogram("waiting").count === 3);
  assert.equal(times.histogram("provisioning").count, 1);
  assert.deepEqual(reads, [workerId]);
});

test("log that arrives before the word of the start counts all the same", async () => {
  const { clock, times, queue, makeWorker, assign, start } = setup();
  const workerId = await makeWorker({ made: 1, registered: 1 });
  const jobId = await queue();
  const attemptId = await assign(jobId, workerId);
  clock.advance(9);
  times.onFirstByte(attemptId);
  clock.advance(2);
  await start(jobId, attemptId);
  assert.equal(times.histogram("first_byte").quantile(1), 0);
  assert.equal(times.histogram("total").quantile(1), 11);
});

test("the next attempt is measured anew, without the pause before it", async () => {
  const { clock, times, queue, apply, makeWorker, assign, start } = setup();
  const workerId = await makeWorker({ made: 1, registered: 1 });
  const jobId = await queue();
  const first = await assign(jobId, workerId);
  await start(jobId, first);
  clock.advance(60_000);
  const lost = await apply(jobId, { type: "lose", attemptId: first, cause: "worker_lost", message: "gone" });
  assert.equal(lost.state, "pending");
  clock.advance(lost.notBeforeMs - clock.nowMs() + 4);
  await start(jobId, await assign(jobId, workerId));
  await eventually(() => times.histogram("waiting").count === 2);
  assert.equal(times.histogram("waiting").quantile(1), 4);
  times.onFirstByte(first);
  assert.equal(times.histogram("first_byte").count, 0, "the first attempt is over");
});

test("an attempt that ends before it starts, or was given out by an earlier server, leaves no trace", async () => {
  const { times, queue, apply, makeWorker, assign, store, clock } = setup();
  const workerId = await makeWorker({ made: 1, registered: 1 });
  const jobId = await queue();
  const attemptId = await assign(jobId, workerId);
  await apply(jobId, { type: "finish", attemptId, result: sampleResult() });
  const later = new StartTimes({ store, clock, log: silentLogger });
  const other = await queue();
  const otherAttempt = await assign(other, workerId);
  later.onJobChanged(
    await apply(other, { type: "start", attemptId: otherAttempt, startedAtMs: clock.nowMs() }),
  );
  later.onFirstByte(otherAttempt);
  assert.ok(later.parts().every(({ count }) => count === 0));
  assert.equal(times.histogram("starting").count, 1);
});
