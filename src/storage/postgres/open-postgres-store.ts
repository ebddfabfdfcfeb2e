/**
 * The store on PostgreSQL 15 to 18.
 *
 * Submissions, inputs and heartbeats go through batchers: what arrives while a statement is under
 * way shares the next one. If a group is refused because of its data, its members are tried one by
 * one, so a bad one fails alone. While the database is away a call waits for it a few seconds.
 */

import { Batcher } from "../../base/batcher.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { migrate } from "../migrations/migrate.ts";
import { isUuid, requireUuid } from "../store-rules.ts";
import type { AppliedInput, InsertedJob, JobInputRecord, NewJob, Store, WorkerChange } from "../store.ts";
import { applyInputs, type Settled } from "./apply-inputs.ts";
import {
  attempting,
  databaseError,
  mayBeOneOfMany,
  openDatabase,
  poolConfig,
  type Database,
  type PostgresConnection,
} from "./database.ts";
import { insertJobs } from "./insert-jobs.ts";
import * as jobs from "./job-reads.ts";
import * as configured from "./pools-and-queues.ts";
import { repeating } from "./repeat.ts";
import * as scheduling from "./scheduling-reads.ts";
import * as workers from "./workers.ts";

export interface PostgresStoreOptions {
  connection: PostgresConnection;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Connections at most; 10 by default. */
  poolSize?: number;
}

/**
 * Migrates the database and connects. Rejects with `failed_precondition` if PostgreSQL is older
 * than 15 or the database was migrated by a newer Hodei, with `unavailable` if it does not answer.
 */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<Store> {
  const { connection, clock, random, log, poolSize = DEFAULT_POOL_SIZE } = options;
  await attempting("open database", () => migrate(poolConfig(connection), log));
  const database = openDatabase(connection, { poolSize, clock, log });
  try {
    await scheduling.forgetHeldReasons(database.pool);
    await scheduling.forgetOldWaitReasons(database.pool);
  } catch (error) {
    // Only tidiness: another start will do it.
    log.warn({ err: error }, "old wait reasons were not removed");
  }
  return createStore(database, random);
}

const DEFAULT_POOL_SIZE = 10;
const MAX_WAITING_CALLS = 20_000;
const MAX_INPUTS_PER_GROUP = 64;
const MAX_HEARTBEATS_PER_GROUP = 500;
const MAX_SUBMISSIONS_PER_GROUP = 200;
const FORGET_REASONS_INTERVAL_MS = 10 * 60_000;
/** A submission of more jobs than this fills a statement by itself. */
const LARGE_SUBMISSION_JOBS = 20;

/** A part of the store, and when the calls of it that wait for a statement have been answered. */
interface Part<Methods extends keyof Store> {
  methods: Pick<Store, Methods>;
  idle(): Promise<void>;
}

function createStore(database: Database, random: Random): Store {
  const { pool } = database;
  const call = repeatedCalls(database.clock);
  const jobWrites = writeJobs(database, random);
  const workerWrites = writeWorkers(database);
  let closed: Promise<void> | null = null;
  const close = async () => {
    await Promise.all([jobWrites.idle(), workerWrites.idle()]);
    await pool.end();
  };
  return {
    ...jobWrites.methods,
    ...workerWrites.methods,
    ...readJobs(database, call),
    ...readForScheduling(database, call),
    ...workerCalls(database, call),
    ...configurationCalls(database, call),
    ...logCalls(database, call),
    async version() {
      const { rows } = await call("read version", () =>
        pool.query<{ version: string }>("SELECT current_setting('server_version') AS version"),
      );
      return `PostgreSQL ${rows[0]?.version.split(" ")[0]}`;
    },
    async ping() {
      // Whoever asks wants to know how it is now.
      await attempting("ping database", () => pool.query("SELECT 1"));
    },
    close: () => (closed ??= attempting("close database", close)),
  };
}

type Call = <T>(what: string, work: () => Promise<T>) => Promise<T>;

/** For calls that may take effect twice. */
function repeatedCalls(clock: Clock): Call {
  return (what, work) => attempting(what, () => repeating(work, { clock, isIdempotent: true }));
}

function writeJobs(database: Database, random: Random): Part<"insertJobs" | "applyInput"> {
  const { pool, clock } = database;
  const call = repeatedCalls(clock);
  const inputs = group<JobInputRecord, AppliedInput>({
    what: "change job",
    maxGroup: MAX_INPUTS_PER_GROUP,
    run: (records) => applyInputs({ pool, clock, random }, records),
  });
  const submissions = group<readonly NewJob[], InsertedJob[]>({
    what: "insert jobs",
    maxGroup: MAX_SUBMISSIONS_PER_GROUP,
    run: (calls) =>
      runTogether(calls, {
        clock,
        run: async (several) => splitLike(several, await insertJobs(pool, several.flat())),
      }),
  });
  return {
    methods: {
      async insertJobs(added) {
        for (const { id } of added) requireUuid(id, "job id");
        if (added.length <= LARGE_SUBMISSION_JOBS) return submissions.call(added);
        return call("insert jobs", () => insertJobs(pool, added));
      },
      async applyInput(record) {
        const { input, jobId } = record;
        if (input.type === "assign") {
          requireUuid(input.attemptId, "attempt id");
          requireUuid(input.workerId, "worker id");
        }
        if (!isUuid(jobId)) return { ok: false, refusal: "not_found", job: null };
        return inputs.call(record);
      },
    },
    async idle() {
      await Promise.all([inputs.idle(), submissions.idle()]);
    },
  };
}

function writeWorkers({ pool, clock }: Database): Part<"changeWorker"> {
  const heartbeats = group<WorkerChange, null>({
    what: "change worker",
    maxGroup: MAX_HEARTBEATS_PER_GROUP,
    run: (changes) =>
      runTogether(changes, {
        clock,
        run: async (several) => {
          await workers.changeWorkers(pool, several);
          return several.map(() => null);
        },
      }),
  });
  return {
    methods: {
      async changeWorker(change) {
        await heartbeats.call(change);
      },
    },
    idle: () => heartbeats.idle(),
  };
}

function readJobs({ db }: Database, call: Call) {
  return {
    findByIdempotencyKeys: (keys) =>
      call("find jobs by idempotency key", () => jobs.findByIdempotencyKeys(db, keys)),
    getJob: (jobId) => call("read job", () => jobs.getJob(db, jobId)),
    resolveJobId: (prefix) => call("resolve job id", () => jobs.resolveId(db, "jobs", prefix)),
    listJobs: (filter, page) => call("list jobs", () => jobs.listJobs(db, filter, page)),
    listAttempts: (jobId) => call("list attempts", () => jobs.listAttempts(db, jobId)),
    latestAttempts: (jobIds) => call("read attempts", () => jobs.latestAttempts(db, jobIds)),
    getAttempt: (attemptId) => call("read attempt", () => jobs.getAttempt(db, attemptId)),
    listEvents: (jobId, after) => call("list events", () => jobs.listEvents(db, jobId, after)),
    listLiveAttempts: (workerId) => call("list attempts", () => jobs.listLiveAttempts(db, workerId)),
  } satisfies Partial<Store>;
}

function readForScheduling({ pool, clock }: Database, call: Call) {
  let forgetAtMs = clock.monotonicMs() + FORGET_REASONS_INTERVAL_MS;
  return {
    listPending: (query) => call("list pending jobs", () => scheduling.listPending(pool, query)),
    listActive: () => call("list active jobs", () => scheduling.listActive(pool)),
    listBacklogs: () => call("count waiting jobs", () => scheduling.listBacklogs(pool)),
    countAhead: (job) => call("count waiting jobs", () => scheduling.countAhead(pool, job)),
    nextPendingAtMs: (nowMs) => call("read pending jobs", () => scheduling.nextPendingAtMs(pool, nowMs)),
    async setWaitReasons(reasons) {
      await call("store wait reasons", () => scheduling.setWaitReasons(pool, reasons));
      if (clock.monotonicMs() < forgetAtMs) return;
      forgetAtMs = clock.monotonicMs() + FORGET_REASONS_INTERVAL_MS;
      await call("forget old wait reasons", () => scheduling.forgetOldWaitReasons(pool));
    },
    listDue: (options) => call("list due jobs", () => scheduling.listDue(pool, options)),
  } satisfies Partial<Store>;
}

function configurationCalls({ pool }: Database, call: Call) {
  return {
    listPools: () => call("list pools", () => configured.listPools(pool)),
    putPools: (pools, nowMs) => call("store pools", () => configured.putPools(pool, pools, nowMs)),
    markPoolsDeleting: (names, nowMs) =>
      call("mark pools as being deleted", () => configured.markPoolsDeleting(pool, names, nowMs)),
    removePool: (name) => call(`remove pool ${name}`, () => configured.removePool(pool, name)),
    listQueues: () => call("list queues", () => configured.listQueues(pool)),
    configureQueues: (change) => call("configure queues", () => configured.configureQueues(pool, change)),
  } satisfies Partial<Store>;
}

function workerCalls({ db, clock }: Database, call: Call) {
  return {
    async insertWorker(worker) {
      requireUuid(worker.id, "worker id");
      // Twice would be an error: its id is taken then.
      const insert = () => workers.insertWorker(db, worker);
      return attempting(`insert worker ${worker.id}`, () =>
        repeating(insert, { clock, isIdempotent: false }),
      );
    },
    setTokenExpiry: (workerId, expiresAtMs) =>
      call("set token expiry", () => workers.setTokenExpiry(db, workerId, expiresAtMs)),
    registerWorker: (registration) => call("register worker", () => workers.registerWorker(db, registration)),
    findWorkerBySession: (hash) => call("find worker", () => workers.findWorkerBySession(db, hash)),
    getWorker: (workerId) => call("read worker", () => workers.getWorker(db, workerId)),
    resolveWorkerId: (prefix) => call("resolve worker id", () => jobs.resolveId(db, "workers", prefix)),
    listWorkers: (options, page) => call("list workers", () => workers.listWorkers(db, options, page)),
  } satisfies Partial<Store>;
}

function logCalls({ db }: Database, call: Call) {
  return {
    setSealedLog: (log) => call("store sealed log", () => jobs.setSealedLog(db, log)),
    getSealedLog: (attemptId) => call("read sealed log", () => jobs.getSealedLog(db, attemptId)),
    listUnsealed: (limit) => call("list unsealed logs", () => jobs.listUnsealed(db, limit)),
  } satisfies Partial<Store>;
}

/** Calls that share statements, and yet each succeed or fail by themselves. */
function group<Input, Output>(options: {
  what: string;
  maxGroup: number;
  run: (inputs: Input[]) => Promise<Settled<Output>[]>;
}): { call(input: Input): Promise<Output>; idle(): Promise<void> } {
  const { what, maxGroup, run } = options;
  const batcher = new Batcher<Input, Settled<Output>>({
    run,
    maxGroup,
    maxWaiting: MAX_WAITING_CALLS,
    full: () => new AppError("resource_exhausted", `${what}: the database cannot keep up`),
  });
  return {
    async call(input) {
      const settled = await batcher.add(input);
      if ("error" in settled) throw databaseError(what, settled.error);
      return settled.value;
    },
    idle: () => batcher.idle(),
  };
}

/** For statements that take effect as a whole or not at all, and may do so twice. */
async function runTogether<Input, Output>(
  inputs: Input[],
  options: { clock: Clock; run: (inputs: Input[]) => Promise<Output[]> },
): Promise<Settled<Output>[]> {
  const { clock, run } = options;
  try {
    const outputs = await repeating(() => run(inputs), { clock, isIdempotent: true });
    return outputs.map((value) => ({ value }));
  } catch (error) {
    if (inputs.length === 1 || !mayBeOneOfMany(error)) return inputs.map(() => ({ error }));
  }
  const settled: Settled<Output>[] = [];
  for (const input of inputs) settled.push(...(await runTogether([input], options)));
  return settled;
}

function splitLike<T>(calls: readonly (readonly unknown[])[], results: readonly T[]): T[][] {
  let end = 0;
  return calls.map(({ length }) => results.slice(end, (end += length)));
}
