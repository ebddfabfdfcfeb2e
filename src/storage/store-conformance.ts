/** What every store promises, as tests. See `store.ts`; each implementation runs this suite. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../base/clock.ts";
import { systemRandom, uuidV7 } from "../base/random.ts";
import type { JobInput } from "../core/job-change.ts";
import { placementKey, JOB_DEFAULTS, type AttemptResult, type Job, type JobDefinition } from "../core/job.ts";
import { START_CONFIRM_MS } from "../core/lease.ts";
import type { WorkerInfo } from "../core/worker.ts";
import type { AppliedInput, NewJob, Registration, Store } from "./store.ts";

export interface OpenedStore {
  store: Store;
  /** A second store on the same data, as another server has it. */
  second: Store;
  close(): Promise<void>;
}

/** Registers the suite. `open` gives a store that may already hold data of other tests. */
export function storeConformance(name: string, open: () => Promise<OpenedStore>): void {
  describe(`${name} store`, () => {
    let opened: OpenedStore;
    before(async () => {
      opened = await open();
    });
    after(async () => {
      await opened?.close();
    });
    const store = () => opened.store;
    submissionTests(store);
    inputTests(store, () => opened.second);
    readingTests(store);
    schedulingTests(store);
    workerTests(store, () => opened.second);
    logTests(store);
    oddityTests(store);
  });
}

const T0 = 1_800_000_000_000;

export function newId(): string {
  return uuidV7(systemClock, systemRandom);
}

export function definitionOf(changes: Partial<JobDefinition> = {}): JobDefinition {
  return {
    name: "build",
    command: { kind: "shell", cmd: "make", args: ["all"] },
    steps: [],
    env: {},
    workingDirectory: "",
    resources: { cpuMillis: 100, memoryBytes: 0, diskBytes: 0, gpu: 0 },
    selector: {},
    timeoutMs: JOB_DEFAULTS.timeoutMs,
    queueTimeoutMs: JOB_DEFAULTS.queueTimeoutMs,
    graceMs: JOB_DEFAULTS.graceMs,
    leaseMs: JOB_DEFAULTS.leaseMs,
    retry: { maxRetries: 0, maxInfrastructureRetries: 2, backoffMs: 1_000, maxBackoffMs: 60_000, exitCodes: [] },
    priority: 0,
    queue: "default",
    labels: {},
    ...changes,
  };
}

export function newJobOf(changes: Partial<JobDefinition> = {}, record: Partial<NewJob> = {}): NewJob {
  return { id: newId(), definition: definitionOf(changes), idempotencyKey: null, nowMs: T0, ...record };
}

async function submit(store: Store, changes: Partial<JobDefinition> = {}, record: Partial<NewJob> = {}): Promise<string> {
  const added = newJobOf(changes, record);
  const [inserted] = await store.insertJobs([added]);
  assert.deepEqual(inserted, { jobId: added.id, created: true });
  return added.id;
}

async function apply(store: Store, jobId: string, input: JobInput, nowMs = T0): Promise<AppliedInput> {
  return store.applyInput({ jobId, input, nowMs });
}

async function applyOk(store: Store, jobId: string, input: JobInput, nowMs = T0): Promise<Job> {
  const applied = await apply(store, jobId, input, nowMs);
  assert.ok(applied.ok, `${input.type} was refused: ${applied.ok ? "" : applied.refusal}`);
  return applied.job;
}

async function startJob(store: Store, jobId: string, workerId = newId()): Promise<string> {
  const attemptId = newId();
  await applyOk(store, jobId, { type: "assign", attemptId, workerId });
  await applyOk(store, jobId, { type: "start", attemptId, startedAtMs: T0 + 5 });
  return attemptId;
}

export function resultOf(changes: Partial<AttemptResult> = {}): AttemptResult {
  return {
    state: "succeeded",
    cause: null,
    exitCode: 0,
    signal: null,
    message: "",
    startedAtMs: T0 + 5,
    finishedAtMs: T0 + 50,
    usage: { peakMemoryBytes: 1, cpuMicros: 2, ioReadBytes: 3, ioWriteBytes: 4, leftoverProcesses: 0 },
    steps: [],
    outputs: { version: "1.2" },
    summary: "# done",
    logEnd: 42,
    ...changes,
  };
}

function submissionTests(store: () => Store): void {
  test("a submitted job reads back as it was defined, pending, with version 1", async () => {
    const added = newJobOf({ env: { A: "ä€😀" }, selector: { os: "linux" }, priority: -3, labels: { team: "x" } });
    await store().insertJobs([added]);
    const job = await store().getJob(added.id);
    assert.deepEqual(job?.definition, added.definition);
    assert.equal(job?.state, "pending");
    assert.equal(job?.version, 1);
    assert.equal(job?.attemptId, null);
    assert.equal(job?.createdAtMs, T0);
    assert.equal(job?.deadlineAtMs, T0 + JOB_DEFAULTS.queueTimeoutMs);
    assert.equal(job?.placementKey, placementKey(added.definition));
    assert.deepEqual(job?.outputs, {});
  });

  test("a submission of many jobs answers in the order of the call", async () => {
    const added = Array.from({ length: 500 }, (_, index) => newJobOf({ name: `many-${index}` }));
    const inserted = await store().insertJobs(added);
    assert.deepEqual(inserted, added.map(({ id }) => ({ jobId: id, created: true })));
    assert.equal((await store().getJob(added[321]?.id ?? ""))?.definition.name, "many-321");
  });

  test("an empty submission is answered with nothing", async () => {
    assert.deepEqual(await store().insertJobs([]), []);
  });

  test("a known idempotency key gives the older job and creates none", async () => {
    const key = `key-${newId()}`;
    const first = await submit(store(), {}, { idempotencyKey: key });
    const again = newJobOf({}, { idempotencyKey: key });
    const other = newJobOf();
    assert.deepEqual(await store().insertJobs([other, again]), [
      { jobId: other.id, created: true },
      { jobId: first, created: false },
    ]);
    assert.equal(await store().getJob(again.id), null);
  });

  test("of two jobs with one idempotency key in a submission the first is created", async () => {
    const key = `key-${newId()}`;
    const [first, second] = [newJobOf({}, { idempotencyKey: key }), newJobOf({}, { idempotencyKey: key })];
    assert.deepEqual(await store().insertJobs([first, second]), [
      { jobId: first.id, created: true },
      { jobId: first.id, created: false },
    ]);
  });

  test("racing submissions with one idempotency key create one job", async () => {
    const key = `key-${newId()}`;
    const calls = Array.from({ length: 40 }, () => store().insertJobs([newJobOf({}, { idempotencyKey: key })]));
    const answers = (await Promise.all(calls)).flat();
    assert.equal(answers.filter(({ created }) => created).length, 1);
    assert.equal(new Set(answers.map(({ jobId }) => jobId)).size, 1);
  });

  test("a repeated submission of the same ids creates nothing twice", async () => {
    const added = newJobOf();
    await store().insertJobs([added]);
    assert.deepEqual(await store().insertJobs([added]), [{ jobId: added.id, created: false }]);
  });

  test("an id that is no UUID is refused, and the submissions beside it are stored", async () => {
    const good = newJobOf();
    const [bad, ok] = await Promise.allSettled([store().insertJobs([newJobOf({}, { id: "x" })]), store().insertJobs([good])]);
    assert.equal(bad.status, "rejected");
    assert.equal(ok.status, "fulfilled");
    assert.notEqual(await store().getJob(good.id), null);
  });
}

function inputTests(store: () => Store, second: () => Store): void {
  test("a job goes from assigned to succeeded, with its attempt and its events", async () => {
    const jobId = await submit(store());
    const workerId = newId();
    const attemptId = newId();
    const assigned = await applyOk(store(), jobId, { type: "assign", attemptId, workerId });
    assert.equal(assigned.state, "scheduled");
    assert.equal(assigned.deadlineAtMs, T0 + START_CONFIRM_MS);
    await applyOk(store(), jobId, { type: "start", attemptId, startedAtMs: T0 + 5 });
    await applyOk(store(), jobId, { type: "progress", attemptId, progress: { percent: 40, message: "half" } });
    const done = await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() }, T0 + 60);
    assert.equal(done.state, "succeeded");

    const job = await store().getJob(jobId);
    assert.deepEqual(job, done);
    assert.deepEqual(job?.outputs, { version: "1.2" });
    assert.equal(job?.deadlineAtMs, null);
    const [attempt, ...others] = await store().listAttempts(jobId);
    assert.deepEqual(others, []);
    assert.equal(attempt?.state, "succeeded");
    assert.equal(attempt?.logBytes, 42);
    assert.deepEqual(attempt, await store().getAttempt(attemptId));
    const events = await store().listEvents(jobId, 0);
    assert.deepEqual(events.map(({ type }) => type), ["queued", "assigned", "started", "progress", "succeeded"]);
    assert.deepEqual(events.map(({ sequence }) => sequence), [1, 2, 3, 4, 5]);
    assert.equal(events[0]?.atMs, T0);
    assert.deepEqual(await store().listEvents(jobId, 3), events.slice(3));
  });

  test("inputs of unknown jobs are refused as not found", async () => {
    for (const jobId of [newId(), "no-uuid"]) {
      assert.deepEqual(await apply(store(), jobId, { type: "cancel", reason: "" }), {
        ok: false,
        refusal: "not_found",
        job: null,
      });
    }
  });

  test("an input of a stale attempt is refused and changes nothing", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const refused = await apply(store(), jobId, { type: "finish", attemptId: newId(), result: resultOf() });
    assert.equal(refused.ok, false);
    assert.equal(!refused.ok && refused.refusal, "stale_attempt");
    const job = await store().getJob(jobId);
    assert.equal(job?.state, "running");
    assert.equal(job?.attemptId, attemptId);
    assert.equal((await store().listEvents(jobId, 0)).length, 3);
  });

  test("a second finish is refused as already final", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() });
    const again = await apply(store(), jobId, { type: "finish", attemptId, result: resultOf({ exitCode: 1 }) });
    assert.equal(!again.ok && again.refusal, "already_final");
    assert.equal((await store().getJob(jobId))?.exitCode, 0);
  });

  test("inputs of one job that arrive together keep their order", async () => {
    const jobId = await submit(store());
    const attemptId = newId();
    const inputs: JobInput[] = [
      { type: "assign", attemptId, workerId: newId() },
      { type: "start", attemptId, startedAtMs: T0 },
      ...Array.from({ length: 100 }, (_, index) => ({
        type: "progress" as const,
        attemptId,
        progress: { percent: index, message: `step ${index}` },
      })),
      { type: "finish", attemptId, result: resultOf() },
    ];
    const applied = await Promise.all(inputs.map((input) => apply(store(), jobId, input)));
    assert.ok(applied.every(({ ok }) => ok));
    assert.deepEqual(applied.map((one) => one.job?.version), inputs.map((_, index) => index + 2));
    const events = await store().listEvents(jobId, 0);
    assert.deepEqual(events.map(({ sequence }) => sequence), Array.from({ length: 104 }, (_, index) => index + 1));
    assert.equal(events.at(-1)?.type, "succeeded");
    assert.equal((await store().getJob(jobId))?.progress?.percent, 99);
  });

  test("a hundred jobs take their inputs at the same time", async () => {
    const jobs = Array.from({ length: 100 }, () => newJobOf());
    await store().insertJobs(jobs);
    const workerId = newId();
    const lives = jobs.map(async ({ id }) => {
      const attemptId = await startJob(store(), id, workerId);
      return applyOk(store(), id, { type: "finish", attemptId, result: resultOf() });
    });
    const done = await Promise.all(lives);
    assert.ok(done.every(({ state, version }) => state === "succeeded" && version === 4));
  });

  test("of two servers that assign one job at the same time exactly one wins", async () => {
    const jobs = Array.from({ length: 30 }, () => newJobOf());
    await store().insertJobs(jobs);
    const races = jobs.map(({ id }) => {
      const assign = (by: Store) => apply(by, id, { type: "assign", attemptId: newId(), workerId: newId() });
      return Promise.all([assign(store()), assign(second())]);
    });
    for (const [index, answers] of (await Promise.all(races)).entries()) {
      assert.equal(answers.filter(({ ok }) => ok).length, 1);
      const winner = answers.find(({ ok }) => ok);
      const jobId = jobs[index]?.id ?? "";
      assert.equal((await store().getJob(jobId))?.attemptId, winner?.job?.attemptId);
      assert.equal((await store().listAttempts(jobId)).length, 1);
    }
  });

  test("changes of one job by two servers at once all take effect, each with a version of its own", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const calls = Array.from({ length: 100 }, (_, index) =>
      apply(index % 2 === 0 ? store() : second(), jobId, {
        type: "progress",
        attemptId,
        progress: { percent: index, message: "" },
      }),
    );
    const versions = (await Promise.all(calls)).map((applied) => (applied.ok ? applied.job.version : -1));
    assert.deepEqual(versions.toSorted((a, b) => a - b), Array.from({ length: 100 }, (_, index) => index + 4));
    assert.equal((await store().listEvents(jobId, 3)).length, 100);
  });

  test("a lost attempt is followed by another one, and both are kept", async () => {
    const jobId = await submit(store());
    const first = await startJob(store(), jobId);
    const waiting = await applyOk(store(), jobId, { type: "lose", attemptId: first, cause: "worker_lost", message: "gone" }, T0 + 10);
    assert.equal(waiting.state, "pending");
    assert.ok(waiting.notBeforeMs > T0 + 10);
    const attemptId = newId();
    const early = await apply(store(), jobId, { type: "assign", attemptId, workerId: newId() }, T0 + 11);
    assert.equal(early.ok, false);
    await applyOk(store(), jobId, { type: "assign", attemptId, workerId: newId() }, waiting.notBeforeMs);
    const attempts = await store().listAttempts(jobId);
    assert.deepEqual(attempts.map(({ id, number, state }) => [id, number, state]), [
      [first, 1, "failed"],
      [attemptId, 2, "scheduled"],
    ]);
    const latest = await store().latestAttempts([jobId, newId()]);
    assert.deepEqual([...latest.entries()].map(([id, attempt]) => [id, attempt.id]), [[jobId, attemptId]]);
  });
}

function readingTests(store: () => Store): void {
  test("unknown and malformed ids are not found", async () => {
    for (const id of [newId(), "", "zz", "' OR 1=1"]) {
      assert.equal(await store().getJob(id), null);
      assert.equal(await store().getAttempt(id), null);
      assert.equal(await store().getWorker(id), null);
      assert.equal(await store().getSealedLog(id), null);
      assert.deepEqual(await store().listAttempts(id), []);
      assert.deepEqual(await store().listEvents(id, 0), []);
      assert.deepEqual(await store().listLiveAttempts(id), []);
      assert.deepEqual([...(await store().latestAttempts([id]))], []);
    }
  });

  test("what is returned is a copy", async () => {
    const jobId = await submit(store(), { env: { A: "1" } });
    const job = (await store().getJob(jobId)) as Job;
    job.definition.env["A"] = "changed";
    assert.equal((await store().getJob(jobId))?.definition.env["A"], "1");
  });

  test("pages hold every job once, newest first", async () => {
    const queue = `paged-${newId()}`;
    const jobs = Array.from({ length: 25 }, () => newJobOf({ queue }));
    await store().insertJobs(jobs);
    const seen: string[] = [];
    const sizes: number[] = [];
    let cursor: string | null = null;
    do {
      const page = await store().listJobs({ queue }, { limit: 10, cursor });
      seen.push(...page.items.map(({ id }) => id));
      sizes.push(page.items.length);
      cursor = page.nextCursor;
    } while (cursor !== null);
    assert.deepEqual(seen, jobs.map(({ id }) => id).toSorted().toReversed());
    assert.deepEqual(sizes, [10, 10, 5]);
    const exact = await store().listJobs({ queue }, { limit: 25, cursor: null });
    assert.equal(exact.nextCursor, null);
  });

  test("a malformed cursor is refused as an invalid argument", async () => {
    await assert.rejects(store().listJobs({}, { limit: 1, cursor: "x" }), { code: "invalid_argument" });
    await assert.rejects(store().listWorkers({ includeTerminated: true }, { limit: 1, cursor: "x" }), {
      code: "invalid_argument",
    });
  });

  test("each filter selects, and filters are joined by and", async () => {
    const queue = `filtered-${newId()}`;
    const plain = await submit(store(), { queue, name: "plain" });
    const labelled = await submit(store(), { queue, name: "labelled", labels: { a: "1", b: "2" } }, { nowMs: T0 + 100 });
    const failed = await submit(store(), { queue, name: "failing", labels: { a: "1" } });
    await applyOk(store(), failed, { type: "reject", cause: "invalid", message: "no" });
    const list = async (filter: Parameters<Store["listJobs"]>[0]) =>
      (await store().listJobs({ queue, ...filter }, { limit: 10, cursor: null })).items.map(({ id }) => id).toSorted();
    const sorted = (...ids: string[]) => ids.toSorted();
    assert.deepEqual(await list({}), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ states: ["pending"] }), sorted(plain, labelled));
    assert.deepEqual(await list({ states: ["failed", "timed_out"] }), [failed]);
    assert.deepEqual(await list({ states: ["failed", "pending"] }), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ states: [] }), []);
    assert.deepEqual(await list({ causes: ["invalid", "timeout"] }), [failed]);
    assert.deepEqual(await list({ causes: ["timeout"] }), []);
    assert.deepEqual(await list({ name: "plain" }), [plain]);
    assert.deepEqual(await list({ labels: { a: "1" } }), sorted(labelled, failed));
    assert.deepEqual(await list({ labels: { a: "1", b: "2" } }), [labelled]);
    assert.deepEqual(await list({ labels: { a: "2" } }), []);
    assert.deepEqual(await list({ labels: {} }), sorted(plain, labelled, failed));
    assert.deepEqual(await list({ labels: { a: "1" }, states: ["pending"] }), [labelled]);
    assert.deepEqual(await list({ createdAfterMs: T0 }), [labelled]);
    assert.deepEqual(await list({ createdBeforeMs: T0 + 100 }), sorted(plain, failed));
  });

  test("a prefix resolves to one id, to none, or to at most five examples", async () => {
    const start = newId().slice(0, 8);
    const ids = Array.from({ length: 7 }, (_, index) => `${start}-aaaa-7aaa-8aaa-aaaaaaaaaa0${index}`);
    const alone = `${start}-bbbb-7bbb-8bbb-bbbbbbbbbbbb`;
    await store().insertJobs([...ids, alone].map((id) => newJobOf({}, { id })));
    assert.deepEqual(await store().resolveJobId(`${start}-b`), { found: "one", id: alone });
    assert.deepEqual(await store().resolveJobId(alone), { found: "one", id: alone });
    assert.deepEqual(await store().resolveJobId(`${start}-aaaa-7aaa-8aaa-aaaaaaaaaa03`), { found: "one", id: ids[3] });
    const many = await store().resolveJobId(`${start}-aaaa`);
    assert.equal(many.found, "many");
    assert.deepEqual(many.found === "many" && many.examples, ids.slice(0, 5));
    for (const prefix of [`${start}-c`, `${start}b`, "----", "0-0-0-0", `${alone}0`]) {
      assert.deepEqual(await store().resolveJobId(prefix), { found: "none" });
    }
  });
}

function schedulingTests(store: () => Store): void {
  /** Jobs of other tests are left out by priority: those of a test here come first. */
  const listOwn = async (options: { nowMs?: number; withoutKeys?: string[]; ids: readonly string[] }) => {
    const { nowMs = T0, withoutKeys = [], ids } = options;
    const listed = await store().listPending({ limit: 10_000, nowMs, withoutKeys });
    return listed.filter(({ id }) => ids.includes(id)).map(({ id }) => id);
  };

  test("pending jobs are listed by priority, then by how long they wait", async () => {
    const old = await submit(store(), {}, { nowMs: T0 - 1_000 });
    const young = await submit(store(), {}, { nowMs: T0 - 500 });
    const urgent = await submit(store(), { priority: 5 }, { nowMs: T0 });
    const humble = await submit(store(), { priority: -5 }, { nowMs: T0 - 2_000 });
    const ids = [old, young, urgent, humble];
    assert.deepEqual(await listOwn({ ids }), [urgent, old, young, humble]);
    const listed = await store().listPending({ limit: 10_000, nowMs: T0, withoutKeys: [] });
    assert.deepEqual(listed.find(({ id }) => id === urgent), {
      id: urgent,
      placementKey: placementKey(definitionOf()),
      resources: definitionOf().resources,
      selector: {},
      priority: 5,
      pendingSinceMs: T0,
    });
    assert.equal((await store().listPending({ limit: 2, nowMs: T0, withoutKeys: [] })).length, 2);
  });

  test("placement keys can be left out, and assigned jobs are not pending", async () => {
    const gpu = { resources: { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 4 } };
    const ids = [await submit(store(), gpu), await submit(store()), await submit(store())];
    await startJob(store(), ids[2] as string);
    assert.deepEqual(new Set(await listOwn({ ids })), new Set(ids.slice(0, 2)));
    assert.deepEqual(await listOwn({ ids, withoutKeys: [placementKey(definitionOf(gpu))] }), [ids[1]]);
  });

  test("a job that waits for its retry is listed when its time has come, and that time is known", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const waiting = await applyOk(store(), jobId, { type: "lose", attemptId, cause: "worker_lost", message: "" }, T0 + 10);
    assert.deepEqual(await listOwn({ ids: [jobId], nowMs: waiting.notBeforeMs - 1 }), []);
    assert.deepEqual(await listOwn({ ids: [jobId], nowMs: waiting.notBeforeMs }), [jobId]);
    const next = await store().nextPendingAtMs(waiting.notBeforeMs - 1);
    assert.equal(next, waiting.notBeforeMs);
    assert.equal(await store().nextPendingAtMs(T0 + 10 ** 11), null);
  });

  test("the reason why a job waits shows while it waits, and does not count as a change", async () => {
    const selector = { host: newId() };
    const key = placementKey(definitionOf({ selector }));
    const jobId = await submit(store(), { selector });
    await store().setWaitReasons(new Map([[key, "no worker"]]));
    assert.equal((await store().getJob(jobId))?.message, "no worker");
    await store().setWaitReasons(new Map([[key, "every worker is busy"], ["other", "x"]]));
    await store().setWaitReasons(new Map());
    const job = await store().getJob(jobId);
    assert.equal(job?.message, "every worker is busy");
    assert.equal(job?.version, 1);
    const { items } = await store().listJobs({ states: ["pending"] }, { limit: 1_000, cursor: null });
    assert.equal(items.find(({ id }) => id === jobId)?.message, "every worker is busy");
    await startJob(store(), jobId);
    assert.equal((await store().getJob(jobId))?.message, "");
  });

  test("jobs past their deadline are listed, longest first", async () => {
    const early = await submit(store(), { queueTimeoutMs: 1_000 }, { nowMs: T0 - 10 ** 9 });
    const late = await submit(store(), { queueTimeoutMs: 2_000 }, { nowMs: T0 - 10 ** 9 });
    const at = T0 - 10 ** 9;
    assert.deepEqual((await store().listDue({ nowMs: at + 1_000, limit: 10 })).map(({ jobId }) => jobId), []);
    const due = await store().listDue({ nowMs: at + 2_001, limit: 10 });
    assert.deepEqual(due.map(({ jobId }) => jobId), [early, late]);
    assert.deepEqual(due[0], { jobId: early, state: "pending", attemptId: null, workerId: null, deadlineAtMs: at + 1_000 });
    assert.equal((await store().listDue({ nowMs: at + 2_001, limit: 1 })).length, 1);
    for (const jobId of [early, late]) await applyOk(store(), jobId, { type: "reject", cause: "queue_timeout", message: "" });
    assert.deepEqual(await store().listDue({ nowMs: at + 2_001, limit: 10 }), []);
  });

  test("the live attempts of a worker come with their jobs, oldest first", async () => {
    const workerId = newId();
    const jobs = [await submit(store()), await submit(store()), await submit(store())];
    const attempts = [];
    for (const jobId of jobs) attempts.push(await startJob(store(), jobId, workerId));
    await applyOk(store(), jobs[1] as string, { type: "finish", attemptId: attempts[1] as string, result: resultOf() });
    const live = await store().listLiveAttempts(workerId);
    // Ids of one millisecond are in the order of chance.
    assert.deepEqual(live.map(({ attempt }) => attempt.id), [attempts[0], attempts[2]].toSorted());
    for (const { attempt, job } of live) {
      assert.equal(job.attemptId, attempt.id);
      assert.deepEqual(job, await store().getJob(attempt.jobId));
    }
  });
}

function infoOf(changes: Partial<WorkerInfo> = {}): WorkerInfo {
  return {
    workerId: "",
    name: "w",
    version: "0.1.0",
    hostname: "host",
    ipAddress: "127.0.0.1",
    capacity: { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 0, jobs: 4 },
    capabilities: ["bash"],
    labels: { os: "linux" },
    taints: [],
    ...changes,
  };
}

function workerTests(store: () => Store, second: () => Store): void {
  const insert = async (expiresAtMs = T0 + 1_000) => {
    const id = newId();
    const tokenHash = `token-${id}`;
    await store().insertWorker({ id, name: "w", provider: "fake", pool: "p", nowMs: T0, token: { hash: tokenHash, expiresAtMs } });
    return { id, tokenHash };
  };
  const registrationOf = (tokenHash: string, changes: Partial<Registration> = {}): Registration => ({
    tokenHash,
    registrationKey: "key",
    sessionTokenHash: `session-${newId()}`,
    info: infoOf(),
    nowMs: T0,
    ...changes,
  });

  test("a new worker is being created and has not registered", async () => {
    const { id } = await insert();
    assert.deepEqual(await store().getWorker(id), {
      id, name: "w", state: "creating", provider: "fake", pool: "p", info: null, usage: null,
      createdAtMs: T0, registeredAtMs: null, lastHeartbeatAtMs: null, message: "",
    });
    await assert.rejects(
      store().insertWorker({ id, name: "w", provider: "fake", pool: "p", nowMs: T0, token: null }),
      { code: "already_exists" },
    );
  });

  test("a token registers its worker once, and the session finds it", async () => {
    const { id, tokenHash } = await insert();
    const registration = registrationOf(tokenHash, { info: infoOf({ workerId: id }) });
    const outcome = await store().registerWorker(registration);
    assert.ok(outcome.ok);
    assert.equal(outcome.worker.id, id);
    assert.equal(outcome.worker.state, "connecting");
    assert.equal(outcome.worker.registeredAtMs, T0);
    assert.deepEqual(outcome.worker.info?.labels, { os: "linux" });
    assert.deepEqual(await store().findWorkerBySession(registration.sessionTokenHash), outcome.worker);
    assert.equal(await store().findWorkerBySession("unknown"), null);
    const other = await store().registerWorker(registrationOf(tokenHash, { registrationKey: "another" }));
    assert.deepEqual(other, { ok: false, refusal: "used_token" });
  });

  test("the same registration key may register again, also late, and both sessions are valid", async () => {
    const { id, tokenHash } = await insert();
    const first = registrationOf(tokenHash);
    const again = registrationOf(tokenHash, { nowMs: T0 + 10 ** 6 });
    assert.ok((await store().registerWorker(first)).ok);
    const outcome = await store().registerWorker(again);
    assert.ok(outcome.ok);
    assert.equal(outcome.worker.registeredAtMs, T0);
    for (const { sessionTokenHash } of [first, again]) {
      assert.equal((await store().findWorkerBySession(sessionTokenHash))?.id, id);
    }
  });

  test("only the newest sessions of a worker stay valid", async () => {
    const { tokenHash } = await insert();
    const registrations = Array.from({ length: 10 }, () => registrationOf(tokenHash));
    for (const registration of registrations) await store().registerWorker(registration);
    const found = await Promise.all(
      registrations.map(({ sessionTokenHash }) => store().findWorkerBySession(sessionTokenHash)),
    );
    assert.deepEqual(found.map((worker) => worker !== null), [...Array(6).fill(false), ...Array(4).fill(true)]);
  });

  test("calls with one key that race all register; of different keys one wins", async () => {
    const same = await insert();
    const together = await Promise.all(
      [store(), second(), store()].map((by) => by.registerWorker(registrationOf(same.tokenHash))),
    );
    assert.ok(together.every(({ ok }) => ok));
    const contested = await insert();
    const rivals = await Promise.all(
      [store(), second(), store(), second()].map((by, index) =>
        by.registerWorker(registrationOf(contested.tokenHash, { registrationKey: `rival-${index}` })),
      ),
    );
    assert.equal(rivals.filter(({ ok }) => ok).length, 1);
    assert.equal(rivals.filter((one) => !one.ok && one.refusal === "used_token").length, 3);
  });

  test("unknown, expired and other workers' tokens are refused", async () => {
    const { id, tokenHash } = await insert(T0 + 1_000);
    assert.deepEqual(await store().registerWorker(registrationOf("never")), { ok: false, refusal: "unknown_token" });
    assert.deepEqual(await store().registerWorker(registrationOf(tokenHash, { info: infoOf({ workerId: newId() }) })), {
      ok: false,
      refusal: "wrong_worker",
    });
    const late = registrationOf(tokenHash, { nowMs: T0 + 1_001 });
    assert.deepEqual(await store().registerWorker(late), { ok: false, refusal: "expired_token" });
    await store().setTokenExpiry(id, T0 + 1_001);
    assert.ok((await store().registerWorker(late)).ok);
  });

  test("a terminated worker can neither register nor be found nor be changed", async () => {
    const { id, tokenHash } = await insert();
    const registration = registrationOf(tokenHash);
    await store().registerWorker(registration);
    await store().changeWorker({ workerId: id, state: "terminated", message: "idle" });
    await store().changeWorker({ workerId: id, state: "ready" });
    const worker = await store().getWorker(id);
    assert.equal(worker?.state, "terminated");
    assert.equal(worker?.message, "idle");
    assert.equal(await store().findWorkerBySession(registration.sessionTokenHash), null);
    assert.deepEqual(await store().registerWorker(registration), { ok: false, refusal: "expired_token" });
  });

  test("a change sets what it names and leaves the rest", async () => {
    const { id } = await insert();
    const usage = { cpuMillis: 1, memoryBytes: 2, diskFreeBytes: 3, loadMillis: 4, measuredAtMs: T0, eventLoopDelayMaxMicros: 5 };
    await store().changeWorker({ workerId: id, state: "ready", message: "fine", usage, lastHeartbeatAtMs: T0 + 7 });
    await store().changeWorker({ workerId: id, info: infoOf({ name: "n" }) });
    const worker = await store().getWorker(id);
    assert.equal(worker?.state, "ready");
    assert.equal(worker?.message, "fine");
    assert.deepEqual(worker?.usage, usage);
    assert.equal(worker?.lastHeartbeatAtMs, T0 + 7);
    assert.equal(worker?.info?.name, "n");
    await store().changeWorker({ workerId: id, usage: null, message: "" });
    assert.equal((await store().getWorker(id))?.usage, null);
    assert.equal((await store().getWorker(id))?.message, "");
    await store().changeWorker({ workerId: newId(), state: "ready" });
    await store().changeWorker({ workerId: "no-uuid", state: "ready" });
  });

  test("changes of many workers at once each take effect, in order", async () => {
    const workers = await Promise.all(Array.from({ length: 20 }, () => insert()));
    await Promise.all(
      workers.flatMap(({ id }, index) => [
        store().changeWorker({ workerId: id, state: "ready", lastHeartbeatAtMs: T0 + index }),
        store().changeWorker({ workerId: id, state: index % 2 === 0 ? "busy" : "terminated" }),
        store().changeWorker({ workerId: id, message: "last" }),
      ]),
    );
    for (const [index, { id }] of workers.entries()) {
      const worker = await store().getWorker(id);
      assert.equal(worker?.state, index % 2 === 0 ? "busy" : "terminated");
      assert.equal(worker?.message, index % 2 === 0 ? "last" : "");
      assert.equal(worker?.lastHeartbeatAtMs, T0 + index);
    }
  });

  test("workers are listed newest first, terminated ones on request", async () => {
    const [first, middle, last] = [await insert(), await insert(), await insert()];
    await store().changeWorker({ workerId: middle.id, state: "terminated" });
    const list = async (includeTerminated: boolean) => {
      const { items } = await store().listWorkers({ includeTerminated }, { limit: 1_000, cursor: null });
      return items.map(({ id }) => id).filter((id) => [first.id, middle.id, last.id].includes(id));
    };
    const newest = [first.id, middle.id, last.id].toSorted().toReversed();
    assert.deepEqual(await list(true), newest);
    assert.deepEqual(await list(false), newest.filter((id) => id !== middle.id));
    const page = await store().listWorkers({ includeTerminated: true }, { limit: 1, cursor: null });
    assert.equal(page.items.length, 1);
    assert.equal(page.nextCursor, page.items[0]?.id);
    assert.deepEqual(await store().resolveWorkerId(last.id), { found: "one", id: last.id });
  });
}

function logTests(store: () => Store): void {
  test("an ended attempt is unsealed until its log is sealed", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const isUnsealed = async () => (await store().listUnsealed(10_000)).some(({ id }) => id === attemptId);
    assert.equal(await isUnsealed(), false);
    await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() });
    assert.equal(await isUnsealed(), true);
    assert.equal(await store().getSealedLog(attemptId), null);
    const sealed = { attemptId, logBytes: 42, blobKey: `logs/${attemptId}`, digest: "ab" };
    await store().setSealedLog(sealed);
    await store().setSealedLog(sealed);
    assert.deepEqual(await store().getSealedLog(attemptId), sealed);
    assert.equal(await isUnsealed(), false);
    assert.equal((await store().listUnsealed(1)).length <= 1, true);
    await assert.rejects(store().setSealedLog({ ...sealed, attemptId: newId() }), { code: "not_found" });
  });
}

function oddityTests(store: () => Store): void {
  const odd = "nul:\0 half pair:\ud800 quotes:'\"\\ braces:{,} NULL";

  test("odd strings in a job survive, and do not harm the jobs beside it", async () => {
    const strange = newJobOf({ env: { [odd]: odd }, name: odd, queue: odd, labels: { [odd]: odd }, selector: { [odd]: odd } }, { idempotencyKey: odd + newId() });
    const plain = newJobOf();
    const [first] = await Promise.all([store().insertJobs([strange]), store().insertJobs([plain])]);
    assert.deepEqual(first, [{ jobId: strange.id, created: true }]);
    assert.deepEqual((await store().getJob(strange.id))?.definition, strange.definition);
    for (const filter of [{ name: odd }, { queue: odd }, { labels: { [odd]: odd } }]) {
      const { items } = await store().listJobs(filter, { limit: 10, cursor: null });
      assert.ok(items.some(({ id }) => id === strange.id));
    }
    await store().setWaitReasons(new Map([[placementKey(strange.definition), odd]]));
    assert.match((await store().getJob(strange.id))?.message ?? "", /^nul:/);
    const attemptId = await startJob(store(), strange.id);
    const finish: JobInput = { type: "finish", attemptId, result: resultOf({ message: odd, outputs: { [odd]: odd } }) };
    const [done] = await Promise.all([apply(store(), strange.id, finish), startJob(store(), plain.id)]);
    assert.ok(done.ok);
    assert.deepEqual((await store().getJob(strange.id))?.outputs, { [odd]: odd });
    assert.equal((await store().getAttempt(attemptId))?.message, odd);
  });

  test("very long names, keys and selectors are stored", async () => {
    const long = "x".repeat(100_000);
    const added = newJobOf({ name: long, queue: long, selector: { a: long }, labels: { l: long } }, { idempotencyKey: long + newId() });
    assert.deepEqual(await store().insertJobs([added]), [{ jobId: added.id, created: true }]);
    await store().setWaitReasons(new Map([[placementKey(added.definition), long]]));
    assert.equal((await store().getJob(added.id))?.definition.name, long);
  });

  test("a version and a ping answer", async () => {
    assert.match(await store().version(), /^(memory|PostgreSQL \d+\.\d+)$/);
    await store().ping();
  });
}
