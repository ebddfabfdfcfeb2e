/** The store in memory, for the simulation and for tests. Nothing that it returns is shared. */

import { AppError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { changeJob } from "../../core/job-change.ts";
import { isFinal, type Attempt, type Job, type JobEventRecord } from "../../core/job.ts";
import { newJob } from "../../core/new-job.ts";
import type { Worker } from "../../core/worker.ts";
import {
  compareText,
  emptySealedLog,
  inPendingOrder,
  isUuid,
  newWorker,
  queuedEvent,
  requireUuid,
  takenChange,
  uuidRange,
  withWaitReason,
  MAX_SESSIONS_PER_WORKER,
  PREFIX_EXAMPLES,
  storedIdempotencyKey,
} from "../store-rules.ts";
import type {
  ActiveJob,
  AppliedInput,
  DueJob,
  InsertedJob,
  JobFilter,
  JobInputRecord,
  LiveAttempt,
  NewJob,
  NewWorker,
  WorkerFilter,
  Page,
  PageRequest,
  PendingJob,
  PendingQuery,
  QueueBacklog,
  RegisterOutcome,
  Registration,
  ResolvedId,
  SealedLog,
  Store,
  WorkerChange,
} from "../store.ts";
import { MemoryConfiguration } from "./memory-configuration.ts";
import { backlogsOf, firstPending, pendingJob, waitReasonOf } from "./pending-jobs.ts";

export function createMemoryStore(options: { random: Random }): Store {
  return new MemoryStore(options.random);
}

interface StoredWorker {
  worker: Worker;
  token: { hash: string; expiresAtMs: number; usedWithKey: string | null } | null;
  /** Newest last. */
  sessions: string[];
}

class MemoryStore extends MemoryConfiguration implements Store {
  readonly #random: Random;
  readonly #jobs = new Map<string, Job>();
  readonly #idempotency = new Map<string, string>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #attemptsOfJob = new Map<string, Attempt["id"][]>();
  readonly #events = new Map<string, JobEventRecord[]>();
  readonly #waitReasons = new Map<string, string>();
  readonly #workers = new Map<string, StoredWorker>();
  readonly #sealed = new Map<string, SealedLog>();
  #isClosed = false;

  constructor(random: Random) {
    super();
    this.#random = random;
  }

  async insertJobs(jobs: readonly NewJob[]): Promise<InsertedJob[]> {
    this.assertOpen("insert jobs");
    for (const { id } of jobs) requireUuid(id, "job id");
    return jobs.map((record) => {
      const key = record.idempotencyKey === null ? null : storedIdempotencyKey(record.idempotencyKey);
      const older = key === null ? undefined : this.#idempotency.get(key);
      if (older !== undefined) return { jobId: older, created: false };
      if (this.#jobs.has(record.id)) return { jobId: record.id, created: false };
      this.#jobs.set(record.id, structuredClone(newJob(record)));
      if (key !== null) this.#idempotency.set(key, record.id);
      return { jobId: record.id, created: true };
    });
  }

  async findByIdempotencyKeys(keys: readonly string[]): Promise<Map<string, string>> {
    this.assertOpen("find jobs by idempotency key");
    const found = new Map<string, string>();
    for (const key of keys) {
      const jobId = this.#idempotency.get(storedIdempotencyKey(key));
      if (jobId !== undefined) found.set(key, jobId);
    }
    return found;
  }

  async applyInput(record: JobInputRecord): Promise<AppliedInput> {
    this.assertOpen("change job");
    if (record.input.type === "assign") {
      requireUuid(record.input.attemptId, "attempt id");
      requireUuid(record.input.workerId, "worker id");
    }
    const job = this.#jobs.get(record.jobId);
    if (!job) return { ok: false, refusal: "not_found", job: null };
    const change = changeJob(job, structuredClone(record.input), {
      nowMs: record.nowMs,
      jitter: this.#random.fraction(),
      attempt: job.attemptId === null ? null : (this.#attempts.get(job.attemptId) ?? null),
    });
    if (!change.ok) return structuredClone(change);
    this.#jobs.set(job.id, change.job);
    if (change.attempt) this.#storeAttempt(change.attempt);
    const empty = emptySealedLog(record);
    if (empty) this.#sealed.set(empty.attemptId, empty);
    const events = this.#events.get(job.id) ?? [];
    events.push(change.event);
    this.#events.set(job.id, events);
    return structuredClone({ ok: true, job: change.job, event: change.event });
  }

  #storeAttempt(attempt: Attempt): void {
    if (!this.#attempts.has(attempt.id)) {
      const ids = this.#attemptsOfJob.get(attempt.jobId) ?? [];
      this.#attemptsOfJob.set(attempt.jobId, [...ids, attempt.id]);
    }
    this.#attempts.set(attempt.id, attempt);
  }

  async getJob(jobId: string): Promise<Job | null> {
    this.assertOpen("read job");
    const job = this.#jobs.get(jobId);
    return job ? this.#shown(job) : null;
  }

  #shown(job: Job): Job {
    const reason = waitReasonOf(pendingJob(job), this.#waitReasons);
    return structuredClone(withWaitReason(job, reason));
  }

  async resolveJobId(prefix: string): Promise<ResolvedId> {
    this.assertOpen("resolve job id");
    return resolve(this.#jobs.keys(), prefix);
  }

  async listJobs(filter: JobFilter, page: PageRequest): Promise<Page<Job>> {
    this.assertOpen("list jobs");
    const jobs = [...this.#jobs.values()].filter((job) => matches(job, filter));
    const { items, nextCursor } = newestFirst(jobs, page);
    return { items: items.map((job) => this.#shown(job)), nextCursor };
  }

  async listAttempts(jobId: string): Promise<Attempt[]> {
    this.assertOpen("list attempts");
    const ids = this.#attemptsOfJob.get(jobId) ?? [];
    return structuredClone(ids.map((id) => this.#attempts.get(id) as Attempt));
  }

  async latestAttempts(jobIds: readonly string[]): Promise<Map<string, Attempt>> {
    this.assertOpen("read attempts");
    const found = new Map<string, Attempt>();
    for (const jobId of jobIds) {
      const attempt = this.#attempts.get(this.#jobs.get(jobId)?.attemptId ?? "");
      if (attempt) found.set(jobId, structuredClone(attempt));
    }
    return found;
  }

  async getAttempt(attemptId: string): Promise<Attempt | null> {
    this.assertOpen("read attempt");
    return structuredClone(this.#attempts.get(attemptId) ?? null);
  }

  async listEvents(jobId: string, afterSequence: number): Promise<JobEventRecord[]> {
    this.assertOpen("list events");
    const job = this.#jobs.get(jobId);
    if (!job) return [];
    const events = [queuedEvent(job), ...(this.#events.get(jobId) ?? [])];
    return structuredClone(events.filter(({ sequence }) => sequence > afterSequence));
  }

  async listPending(query: PendingQuery): Promise<PendingJob[]> {
    this.assertOpen("list pending jobs");
    const mayStart = this.#pending().filter(({ notBeforeMs }) => notBeforeMs <= query.nowMs);
    return structuredClone(firstPending(mayStart.map(pendingJob), query));
  }

  #pending(): Job[] {
    return [...this.#jobs.values()].filter(({ state }) => state === "pending");
  }

  async listActive(): Promise<ActiveJob[]> {
    this.assertOpen("list active jobs");
    return [...this.#jobs.values()]
      .filter(({ state }) => state !== "pending" && !isFinal(state))
      .map(({ id, definition, version }) => ({
        jobId: id,
        queue: definition.queue,
        concurrencyKey: definition.concurrency?.key ?? null,
        version,
      }));
  }

  async listBacklogs(): Promise<QueueBacklog[]> {
    this.assertOpen("count waiting jobs");
    return backlogsOf(this.#pending().map(pendingJob));
  }

  async countAhead(job: Job): Promise<number> {
    this.assertOpen("count waiting jobs");
    if (job.state !== "pending") return 0;
    const asked = pendingJob(job);
    const others = this.#pending().filter(({ id }) => id !== job.id);
    const inQueue = others.map(pendingJob).filter(({ queue }) => queue === asked.queue);
    return inPendingOrder([asked, ...inQueue]).indexOf(asked);
  }

  async nextPendingAtMs(nowMs: number): Promise<number | null> {
    this.assertOpen("read pending jobs");
    let next: number | null = null;
    for (const job of this.#jobs.values()) {
      if (job.state !== "pending" || job.notBeforeMs <= nowMs) continue;
      next = Math.min(next ?? job.notBeforeMs, job.notBeforeMs);
    }
    return next;
  }

  async setWaitReasons(reasons: ReadonlyMap<string, string>): Promise<void> {
    this.assertOpen("store wait reasons");
    for (const [key, reason] of reasons) {
      if (reason === "") this.#waitReasons.delete(key);
      else this.#waitReasons.set(key, reason);
    }
  }

  async listDue(options: { nowMs: number; limit: number }): Promise<DueJob[]> {
    this.assertOpen("list due jobs");
    return [...this.#jobs.values()]
      .filter((job) => job.deadlineAtMs !== null && job.deadlineAtMs < options.nowMs)
      .map((job) => ({
        jobId: job.id,
        state: job.state,
        attemptId: job.attemptId,
        workerId: job.workerId,
        deadlineAtMs: job.deadlineAtMs ?? 0,
      }))
      .toSorted((a, b) => a.deadlineAtMs - b.deadlineAtMs || compareText(a.jobId, b.jobId))
      .slice(0, options.limit);
  }

  async listLiveAttempts(workerId: string): Promise<LiveAttempt[]> {
    this.assertOpen("list attempts");
    return [...this.#attempts.values()]
      .filter((attempt) => attempt.workerId === workerId && !isFinal(attempt.state))
      .toSorted((a, b) => compareText(a.id, b.id))
      .map((attempt) => structuredClone({ attempt, job: this.#jobs.get(attempt.jobId) as Job }));
  }

  async insertWorker(worker: NewWorker): Promise<Worker> {
    this.assertOpen("insert worker");
    requireUuid(worker.id, "worker id");
    const isKnownToken = [...this.#workers.values()].some(
      ({ token }) => token && token.hash === worker.token?.hash,
    );
    if (this.#workers.has(worker.id) || isKnownToken) {
      throw new AppError("already_exists", `insert worker ${worker.id}: there is one with this id or token`);
    }
    const stored: StoredWorker = {
      worker: newWorker(worker),
      token: worker.token && { ...worker.token, usedWithKey: null },
      sessions: [],
    };
    this.#workers.set(worker.id, stored);
    return structuredClone(stored.worker);
  }

  async setTokenExpiry(workerId: string, expiresAtMs: number): Promise<void> {
    this.assertOpen("set token expiry");
    const token = this.#workers.get(workerId)?.token;
    if (token) token.expiresAtMs = expiresAtMs;
  }

  async registerWorker(registration: Registration): Promise<RegisterOutcome> {
    this.assertOpen("register worker");
    const { tokenHash, registrationKey, sessionTokenHash, info, nowMs } = registration;
    const stored = [...this.#workers.values()].find(({ token }) => token?.hash === tokenHash);
    if (!stored?.token) return { ok: false, refusal: "unknown_token" };
    const { token, worker } = stored;
    if (info.workerId !== "" && info.workerId !== worker.id) return { ok: false, refusal: "wrong_worker" };
    const isRepeat = token.usedWithKey === registrationKey;
    if (token.usedWithKey !== null && !isRepeat) return { ok: false, refusal: "used_token" };
    if (worker.state === "terminated" || (!isRepeat && token.expiresAtMs < nowMs)) {
      return { ok: false, refusal: "expired_token" };
    }
    token.usedWithKey = registrationKey;
    stored.sessions = [...stored.sessions, sessionTokenHash].slice(-MAX_SESSIONS_PER_WORKER);
    stored.worker = {
      ...worker,
      state: worker.state === "creating" ? "connecting" : worker.state,
      info: structuredClone({ ...info, workerId: worker.id }),
      registeredAtMs: worker.registeredAtMs ?? nowMs,
      lastHeartbeatAtMs: nowMs,
    };
    return { ok: true, worker: structuredClone(stored.worker) };
  }

  async findWorkerBySession(sessionTokenHash: string): Promise<Worker | null> {
    this.assertOpen("find worker");
    const found = [...this.#workers.values()].find(({ sessions }) => sessions.includes(sessionTokenHash));
    return found && found.worker.state !== "terminated" ? structuredClone(found.worker) : null;
  }

  async changeWorker(change: WorkerChange): Promise<void> {
    this.assertOpen("change worker");
    const stored = this.#workers.get(change.workerId);
    if (!stored || stored.worker.state === "terminated") return;
    const { workerId: _, ...changes } = structuredClone(takenChange(stored.worker.state, change));
    stored.worker = { ...stored.worker, ...changes };
  }

  async getWorker(workerId: string): Promise<Worker | null> {
    this.assertOpen("read worker");
    return structuredClone(this.#workers.get(workerId)?.worker ?? null);
  }

  async resolveWorkerId(prefix: string): Promise<ResolvedId> {
    this.assertOpen("resolve worker id");
    return resolve(this.#workers.keys(), prefix);
  }

  async listWorkers(filter: WorkerFilter, page: PageRequest): Promise<Page<Worker>> {
    this.assertOpen("list workers");
    const workers = [...this.#workers.values()]
      .map(({ worker }) => worker)
      .filter(({ state }) => filter.includeTerminated || state !== "terminated")
      .filter(({ lastHeartbeatAtMs: heardAtMs }) => {
        if (filter.heardBeforeMs === undefined) return true;
        return heardAtMs !== null && heardAtMs < filter.heardBeforeMs;
      });
    return structuredClone(newestFirst(workers, page));
  }

  async setSealedLog(log: SealedLog): Promise<void> {
    this.assertOpen("store sealed log");
    if (!this.#attempts.has(log.attemptId)) {
      throw new AppError(
        "not_found",
        `store sealed log of attempt ${log.attemptId}: there is no such attempt`,
      );
    }
    this.#sealed.set(log.attemptId, { ...log });
  }

  async getSealedLog(attemptId: string): Promise<SealedLog | null> {
    this.assertOpen("read sealed log");
    return structuredClone(this.#sealed.get(attemptId) ?? null);
  }

  async listUnsealed(limit: number): Promise<Attempt[]> {
    this.assertOpen("list unsealed logs");
    return structuredClone(
      [...this.#attempts.values()]
        .filter((attempt) => isFinal(attempt.state) && !this.#sealed.has(attempt.id))
        .toSorted((a, b) => compareText(a.id, b.id))
        .slice(0, limit),
    );
  }

  async version(): Promise<string> {
    this.assertOpen("read version");
    return "memory";
  }

  async ping(): Promise<void> {
    this.assertOpen("ping");
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  protected assertOpen(what: string): void {
    if (this.#isClosed) throw new AppError("unavailable", `${what}: the store is closed`);
  }
}

function resolve(ids: Iterable<string>, prefix: string): ResolvedId {
  if (uuidRange(prefix) === null) return { found: "none" };
  const found = [...ids].filter((id) => id.startsWith(prefix)).toSorted(compareText);
  if (found.length === 0) return { found: "none" };
  if (found.length === 1) return { found: "one", id: found[0] as string };
  return { found: "many", examples: found.slice(0, PREFIX_EXAMPLES) };
}

function newestFirst<T extends { id: string }>(all: readonly T[], page: PageRequest): Page<T> {
  const { cursor, limit } = page;
  if (cursor !== null && !isUuid(cursor))
    throw new AppError("invalid_argument", "the page cursor is not valid");
  const rest = all
    .filter(({ id }) => cursor === null || id < cursor)
    .toSorted((a, b) => compareText(b.id, a.id));
  const items = rest.slice(0, limit);
  return { items, nextCursor: rest.length > limit ? (items.at(-1)?.id ?? null) : null };
}

function matches(job: Job, filter: JobFilter): boolean {
  const { definition } = job;
  return (
    (filter.states === undefined || filter.states.includes(job.state)) &&
    (filter.causes === undefined || (job.cause !== null && filter.causes.includes(job.cause))) &&
    (filter.queue === undefined || definition.queue === filter.queue) &&
    (filter.name === undefined || definition.name === filter.name) &&
    (filter.createdAfterMs === undefined || job.createdAtMs > filter.createdAfterMs) &&
    (filter.createdBeforeMs === undefined || job.createdAtMs < filter.createdBeforeMs) &&
    Object.entries(filter.labels ?? {}).every(([key, value]) => definition.labels[key] === value)
  );
}
