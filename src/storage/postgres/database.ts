/** The connections to PostgreSQL, its tables as Kysely sees them, and what its errors mean. */

import { Kysely, PostgresDialect, type PostgresPool } from "kysely";
import { Pool, types, type PoolConfig } from "pg";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage, systemErrorCode, type ErrorCode } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Attempt, Cause, JobDefinition, JobEventRecord, JobState } from "../../core/job.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import type { WorkerInfo, WorkerState, WorkerUsage } from "../../core/worker.ts";
import type { SealedLog } from "../store.ts";
import type { JobBody } from "./job-rows.ts";
import { isConnectionLost, isUnreachable } from "./repeat.ts";

/** A URL, or the directory of a Unix socket (or a host) with port, user and database. */
export type PostgresConnection =
  | { connectionString: string }
  | { host: string; port: number; user: string; database: string; password?: string };

export interface JobsTable {
  id: string;
  state: JobState;
  cause: Cause | null;
  queue: string;
  name: string;
  placement_key: string;
  priority: number;
  created_at: number;
  /** Null unless the job is pending. */
  waiting_since: number | null;
  not_before: number;
  deadline_at: number | null;
  attempt_id: string | null;
  worker_id: string | null;
  version: number;
  labels: unknown;
  idempotency_key: string | null;
  concurrency_key: string | null;
  concurrency_limit: number | null;
  preemptible: boolean;
  definition: JobDefinition;
  /** Null for a job to which nothing has happened yet. */
  body: JobBody | null;
}

export interface AttemptsTable {
  id: string;
  job_id: string;
  number: number;
  worker_id: string;
  ended: boolean;
  body: Attempt;
  sealed_log: SealedLog | null;
}

export interface WorkersTable {
  id: string;
  name: string;
  state: WorkerState;
  provider: string;
  pool: string;
  created_at: number;
  registered_at: number | null;
  last_heartbeat_at: number | null;
  message: string;
  info: WorkerInfo | null;
  usage: WorkerUsage | null;
  token_hash: string | null;
  token_expires_at: number | null;
  token_used_key: string | null;
  made_at: number | null;
  cordoned: boolean;
  takes_one_job: boolean;
}

export interface PoolsTable {
  name: string;
  definition: PoolDefinition;
  created_at: number;
  updated_at: number;
  is_deleting: boolean;
}

export interface QueuesTable {
  name: string;
  weight: number;
  max_running: number | null;
  max_pending: number | null;
  paused: boolean;
}

export interface Tables {
  jobs: JobsTable;
  attempts: AttemptsTable;
  job_events: { job_id: string; sequence: number; body: JobEventRecord };
  /** `placement_key` is any wait key. */
  wait_reasons: { key_hash: Uint8Array; placement_key: string; reason: string };
  workers: WorkersTable;
  worker_sessions: { token_hash: string; worker_id: string; number: number };
  pools: PoolsTable;
  queues: QueuesTable;
}

export interface Database {
  pool: Pool;
  db: Kysely<Tables>;
  clock: Clock;
}

/** Also the longest wait for a connection that others use. */
const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 30_000;
/** Longer than the server's own, so that its answer, which says more, comes first. */
const QUERY_TIMEOUT_MS = 35_000;
const IDLE_TIMEOUT_MS = 60_000;

export function poolConfig(connection: PostgresConnection): PoolConfig {
  return {
    ...connection,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    keepAlive: true,
    fallback_application_name: "hodei",
    types: { getTypeParser: parserOf as typeof types.getTypeParser },
  };
}

const BIGINT_OID = 20;

/** Every bigint here is a time or a count, far below 2^53. */
function parserOf(oid: number, format: "text" | "binary" = "text"): unknown {
  if (oid === BIGINT_OID && format === "text") return Number;
  return types.getTypeParser(oid, format);
}

/**
 * Sets what only the store's own statements want. They all reach for few rows by an index. A table
 * that was empty when a statement was planned looks cheapest to read as a whole, and the plan stays
 * in use while the table grows a thousandfold; so whole reads are made to look expensive.
 */
const SESSION_SETTINGS = `SET enable_seqscan = off; SET jit = off; SET statement_timeout = ${STATEMENT_TIMEOUT_MS}`;

export function openDatabase(
  connection: PostgresConnection,
  options: { poolSize: number; clock: Clock; log: Logger; queryTimeoutMs?: number },
): Database {
  const pool = new Pool({
    ...poolConfig(connection),
    max: options.poolSize,
    query_timeout: options.queryTimeoutMs ?? QUERY_TIMEOUT_MS,
    // Awaited by the pool before the connection is used; the type leaves that out.
    onConnect: (client) => client.query(SESSION_SETTINGS) as unknown as void,
  });
  surviveBrokenConnections(pool, options.log);
  const dialect = new PostgresDialect({ pool: withoutSilentConnections(pool) });
  return { pool, db: new Kysely<Tables>({ dialect }), clock: options.clock };
}

/**
 * A connection that breaks is replaced when it is needed, and the statement it was running fails by
 * itself. But each break is an event too, of the pool for an idle connection and of the connection
 * for one in use, and an event "error" that nobody hears ends the process. When the database goes
 * away they all break, which is told once.
 */
export function surviveBrokenConnections(pool: Pool, log: Logger): void {
  let isTold = false;
  const note = (error: Error) => {
    if (!isTold) log.warn({ err: error }, "database connection failed");
    isTold = true;
  };
  pool.on("error", note);
  pool.on("connect", (client) => {
    isTold = false;
    client.on("error", note);
  });
}

/**
 * Kysely gives each connection back as if all were well with it. One whose statement had no answer
 * in time would make the next caller wait behind that statement, so it is closed, as the pool itself
 * does after each error.
 */
function withoutSilentConnections(pool: Pool): PostgresPool {
  return {
    async connect() {
      const client = await pool.connect();
      let failure: Error | undefined;
      const query = async (...query: unknown[]): Promise<unknown> => {
        try {
          return await (client.query as (...query: unknown[]) => Promise<unknown>).apply(client, query);
        } catch (error) {
          if (systemErrorCode(error) === null) failure = error as Error;
          throw error;
        }
      };
      return { query, release: () => client.release(failure) } as Awaited<
        ReturnType<PostgresPool["connect"]>
      >;
    },
    end: () => pool.end(),
  };
}

/** Runs `work`, with failures of the database told as `AppError`s that begin with `what`. */
export async function attempting<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw databaseError(what, error);
  }
}

export function databaseError(what: string, error: unknown): AppError {
  if (error instanceof AppError) return error;
  return new AppError(codeOf(error), `${what}: ${databaseMessage(error)}`, { cause: error });
}

function databaseMessage(error: unknown): string {
  // A refused connection to several addresses is an AggregateError with an empty message.
  const isEmpty = error instanceof AggregateError && error.message === "";
  const message = errorMessage(isEmpty ? error.errors[0] : error);
  if (isUnreachable(error)) return `the database cannot be reached now, try again soon (${message})`;
  return isConnectionLost(error) ? `the database went away before it answered (${message})` : message;
}

/** Possibly the fault of one call of a group, so that the others should be tried without it. */
export function mayBeOneOfMany(error: unknown): boolean {
  const { code } = databaseError("", error);
  return code !== "unavailable" && code !== "resource_exhausted";
}

function codeOf(error: unknown): ErrorCode {
  const code = systemErrorCode(error);
  if (code === null) return isConnectionMessage(errorMessage(error)) ? "unavailable" : "internal";
  if (code === "53100" || code === "53200") return "resource_exhausted";
  if (/^(08|40|53|57|58)[0-9A-Z]{3}$/.test(code)) return "unavailable";
  if (code === "23505") return "already_exists";
  if (/^22[0-9A-Z]{3}$/.test(code) || /^54[0-9A-Z]{3}$/.test(code)) return "invalid_argument";
  if (["28P01", "28000", "3D000", "42501"].includes(code)) return "failed_precondition";
  return /^E[A-Z_]+$/.test(code) ? "unavailable" : "internal";
}

/** node-postgres gives these no code. */
function isConnectionMessage(message: string): boolean {
  return /connection terminated|connection ended|timeout|client has encountered|not queryable|pool after calling end|closed the connection/i.test(
    message,
  );
}

/** A text that any column takes: PostgreSQL refuses NUL, UTF-8 half surrogate pairs, an index long values. */
export function columnText(text: string): string {
  return plainText(text.slice(0, MAX_COLUMN_CHARACTERS));
}

const MAX_COLUMN_CHARACTERS = 500;

/** A text of any length with what PostgreSQL refuses replaced. */
export function plainText(text: string): string {
  return text.replaceAll(NUL_OR_HALF_PAIR, "\ufffd");
}

const NUL_OR_HALF_PAIR = /\0|\p{Surrogate}/gu;

/**
 * JSON values as one parameter, for `json_array_elements`: an array of texts would quote every quote
 * once more, and twice the time of a submission went into that.
 */
export function jsonList(values: readonly string[]): string {
  return `[${values.join(",")}]`;
}
