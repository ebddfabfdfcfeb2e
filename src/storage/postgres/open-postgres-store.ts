/**
 * The store on PostgreSQL 15 to 18.
 *
 * Submissions, inputs and heartbeats go through batchers: what arrives while a statement is under
 * way shares the next one. If a group is refused because of its data, its members are tried one by
 * one, so a bad one fails alone.
 */

import type { Kysely } from "kysely";
import type { Pool } from "pg";
import { Batcher } from "../../base/batcher.ts";
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
  isSafeToRepeat,
  mayBeOneOfMany,
  openDatabase,
  poolConfig,
  type Database,
  type PostgresConnection,
  type Tables,
} from "./database.ts";
import { insertJobs } from "./insert-jobs.ts";
import * as jobs from "./job-reads.ts";
import * as scheduling from "./scheduling-reads.ts";
import * as workers from "./workers.ts";

export interface PostgresStoreOptions {
  connection: PostgresConnection;
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
  const { connection, random, log, poolSize = DEFAULT_POOL_SIZE } = options;
  await attempting("open database", () => migrate(poolConfig(connection), log));
  const database = openDatabase(connection, { poolSize, log });
  try {
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
/** A submission of more jobs than this fills a statement by itself. */
const LARGE_SUBMISSION_JOBS = 20;

/** A part of the store, and when the calls of it that wait for a statement have been answered. */
interface Part<Methods extends keyof Store> {
  methods: Pick<Store, Methods>;
  idle(): Promise<void>;
}

function createStore(database: Database, random: Random): Store {
  const { pool, db } = database;
  const jobWrites = writeJobs(pool, random);
  const workerWrites = writeWorkers(pool);
  let closed: Promise<void> | null = null;
  const close = async () => {
    await Promise.all([jobWrites.idle(), workerWrites.idle()]);
    await pool.end();
  };
  return {
    ...jobWrites.methods,
    ...workerWrites.methods,
    ...readJobs(db),
    ...readForScheduling(database),
    ...workerCalls(db),
    ...logCalls(db),
    async version() {
      const { rows } = await attempting("read version", () =>
        pool.query<{ version: string }>("SELECT current_setting('server_version') AS version"),
      );
      return `PostgreSQL ${rows[0]?.version.split(" ")[0]}`;
    },
    async ping() {
      await attempting("ping database", () => pool.query("SELECT 1"));
    },
    close: () => (closed ??= attempting("close database", close)),
  };
}

function writeJobs(pool: Pool, random: Random): Part<"insertJobs" | "applyInput"> {
  const inputs = group<JobInputRecord, AppliedInput>({
    what: "change job",
    maxGroup: MAX_INPUTS_PER_GROUP,
    run: (records) => applyInputs({ pool, random }, records),
  });
  const submissions = group<readonly NewJob[], InsertedJob[]>({
    what: "insert jobs",
    maxGroup: MAX_SUBMISSIONS_PER_GROUP,
    run: (calls) =>
      runTogether(calls, async (several) => splitLike(several, await insertJobs(pool, several.flat()))),
  });
  return {
    methods: {
      async insertJobs(added) {
        for (const { id } of added) requireUuid(id, "job id");
        if (added.length <= LARGE_SUBMISSION_JOBS) return submissions.call(added);
        return attempting("insert jobs", () => repeatOnce(() => insertJobs(pool, added)));
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

function writeWorkers(pool: Pool): Part<"changeWorker"> {
  const heartbeats = group<WorkerChange, null>({
    what: "change worker",
    maxGroup: MAX_HEARTBEATS_PER_GROUP,
    run: (changes) =>
      runTogether(changes, async (several) => {
        await workers.changeWorkers(pool, several);
        return several.map(() => null);
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

function readJobs(db: Kysely<Tables>) {
  return {
    getJob: (jobId) => attempting("read job", () => jobs.getJob(db, jobId)),
    resolveJobId: (prefix) => attempting("resolve job id", () => jobs.resolveId(db, "jobs", prefix)),
    listJobs: (filter, page) => attempting("list jobs", () => jobs.listJobs(db, filter, page)),
    listAttempts: (jobId) => attempting("list attempts", () => jobs.listAttempts(db, jobId)),
    latestAttempts: (jobIds) => attempting("read attempts", () => jobs.latestAttempts(db, jobIds)),
    getAttempt: (attemptId) => attempting("read attempt", () => jobs.getAttempt(db, attemptId)),
    listEvents: (jobId, after) => attempting("list events", () => jobs.listEvents(db, jobId, after)),
    listLiveAttempts: (workerId) => attempting("list attempts", () => jobs.listLiveAttempts(db, workerId)),
  } satisfies Partial<Store>;
}

function readForScheduling({ pool }: Database) {
  return {
    listPending: (options) => attempting("list pending jobs", () => scheduling.listPending(pool, options)),
    nextPendingAtMs: (nowMs) =>
      attempting("read pending jobs", () => scheduling.nextPendingAtMs(pool, nowMs)),
    setWaitReasons: (reasons) =>
      attempting("store wait reasons", () => scheduling.setWaitReasons(pool, reasons)),
    listDue: (options) => attempting("list due jobs", () => scheduling.listDue(pool, options)),
  } satisfies Partial<Store>;
}

function workerCalls(db: Kysely<Tables>) {
  return {
    async insertWorker(worker) {
      requireUuid(worker.id, "worker id");
      return attempting(`insert worker ${worker.id}`, () => workers.insertWorker(db, worker));
    },
    setTokenExpiry: (workerId, expiresAtMs) =>
      attempting("set token expiry", () => workers.setTokenExpiry(db, workerId, expiresAtMs)),
    registerWorker: (registration) =>
      attempting("register worker", () => workers.registerWorker(db, registration)),
    findWorkerBySession: (hash) => attempting("find worker", () => workers.findWorkerBySession(db, hash)),
    getWorker: (workerId) => attempting("read worker", () => workers.getWorker(db, workerId)),
    resolveWorkerId: (prefix) => attempting("resolve worker id", () => jobs.resolveId(db, "workers", prefix)),
    listWorkers: (options, page) => attempting("list workers", () => workers.listWorkers(db, options, page)),
  } satisfies Partial<Store>;
}

function logCalls(db: Kysely<Tables>) {
  return {
    setSealedLog: (log) => attempting("store sealed log", () => jobs.setSealedLog(db, log)),
    getSealedLog: (attemptId) => attempting("read sealed log", () => jobs.getSealedLog(db, attemptId)),
    listUnsealed: (limit) => attempting("list unsealed logs", () => jobs.listUnsealed(db, limit)),
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

/** For statements that take effect as a whole or not at all. */
async function runTogether<Input, Output>(
  inputs: Input[],
  run: (inputs: Input[]) => Promise<Output[]>,
): Promise<Settled<Output>[]> {
  try {
    return (await repeatOnce(() => run(inputs))).map((value) => ({ value }));
  } catch (error) {
    if (inputs.length === 1 || !mayBeOneOfMany(error)) return inputs.map(() => ({ error }));
  }
  const settled: Settled<Output>[] = [];
  for (const input of inputs) settled.push(...(await runTogether([input], run)));
  return settled;
}

async function repeatOnce<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isSafeToRepeat(error)) throw error;
    return work();
  }
}

function splitLike<T>(calls: readonly (readonly unknown[])[], results: readonly T[]): T[][] {
  let end = 0;
  return calls.map(({ length }) => results.slice(end, (end += length)));
}
