/** Workers, their tokens and sessions. */

import { sql, type Kysely, type Selectable } from "kysely";
import type { Pool } from "pg";
import type { Worker } from "../../core/worker.ts";
import { isUuid, MAX_SESSIONS_PER_WORKER, newWorker, takenChange } from "../store-rules.ts";
import type {
  NewWorker,
  Page,
  PageRequest,
  RegisterOutcome,
  Registration,
  WorkerChange,
  WorkerFilter,
} from "../store.ts";
import { columnText, plainText, type Tables, type WorkersTable } from "./database.ts";
import { pageOf, requireCursor } from "./job-reads.ts";

type Db = Kysely<Tables>;

export async function insertWorker(db: Db, worker: NewWorker): Promise<Worker> {
  await db
    .insertInto("workers")
    .values({
      id: worker.id,
      name: columnText(worker.name),
      state: "creating",
      provider: columnText(worker.provider),
      pool: columnText(worker.pool),
      created_at: worker.nowMs,
      message: "",
      cordoned: false,
      takes_one_job: worker.takesOneJob ?? false,
      token_hash: worker.token?.hash ?? null,
      token_expires_at: worker.token?.expiresAtMs ?? null,
    })
    .execute();
  return newWorker(worker);
}

export async function setTokenExpiry(db: Db, workerId: string, expiresAtMs: number): Promise<void> {
  if (!isUuid(workerId)) return;
  await db
    .updateTable("workers")
    .set({ token_expires_at: expiresAtMs })
    .where("id", "=", workerId)
    .where("token_hash", "is not", null)
    .execute();
}

/** Under the lock of the worker's row, so that of two rivals for one token the second sees the first. */
export async function registerWorker(db: Db, registration: Registration): Promise<RegisterOutcome> {
  return db.transaction().execute(async (transaction) => {
    const row = await transaction
      .selectFrom("workers")
      .selectAll()
      .where("token_hash", "=", registration.tokenHash)
      .forUpdate()
      .executeTakeFirst();
    if (!row) return { ok: false, refusal: "unknown_token" };
    const refusal = refuseRegistration(row, registration);
    if (refusal) return { ok: false, refusal };
    const info = { ...registration.info, workerId: row.id };
    const registered: Selectable<WorkersTable> = {
      ...row,
      state: row.state === "creating" ? "connecting" : row.state,
      info,
      registered_at: row.registered_at ?? registration.nowMs,
      last_heartbeat_at: registration.nowMs,
    };
    await sql`
      UPDATE workers SET state = ${registered.state}, info = ${JSON.stringify(info)}::json,
        registered_at = ${registered.registered_at}, last_heartbeat_at = ${registered.last_heartbeat_at},
        token_used_key = ${registration.registrationKey}
      WHERE id = ${row.id}`.execute(transaction);
    await addSession(transaction, row.id, registration.sessionTokenHash);
    return { ok: true, worker: workerOfRow(registered) };
  });
}

function refuseRegistration(
  row: Selectable<WorkersTable>,
  registration: Registration,
): Exclude<RegisterOutcome, { ok: true }>["refusal"] | null {
  const { info, registrationKey, nowMs } = registration;
  if (info.workerId !== "" && info.workerId !== row.id) return "wrong_worker";
  const isRepeat = row.token_used_key === registrationKey;
  if (row.token_used_key !== null && !isRepeat) return "used_token";
  if (row.state === "terminated") return "expired_token";
  return !isRepeat && (row.token_expires_at ?? 0) < nowMs ? "expired_token" : null;
}

/**
 * A worker whose answer was lost registers again, and either answer may be the one that reaches it,
 * so the sessions of both are valid.
 */
async function addSession(db: Db, workerId: string, tokenHash: string): Promise<void> {
  await sql`
    INSERT INTO worker_sessions (token_hash, worker_id) VALUES (${tokenHash}, ${workerId})
    ON CONFLICT (token_hash) DO NOTHING`.execute(db);
  await sql`
    DELETE FROM worker_sessions WHERE worker_id = ${workerId} AND number <= (
      SELECT number FROM worker_sessions WHERE worker_id = ${workerId}
      ORDER BY number DESC OFFSET ${sql.lit(MAX_SESSIONS_PER_WORKER)} LIMIT 1)`.execute(db);
}

const WORKER_COLUMNS = [
  "workers.id",
  "workers.name",
  "workers.state",
  "workers.provider",
  "workers.pool",
  "workers.created_at",
  "workers.registered_at",
  "workers.last_heartbeat_at",
  "workers.message",
  "workers.info",
  "workers.usage",
  "workers.made_at",
  "workers.cordoned",
  "workers.takes_one_job",
] as const;

type WorkerRow = Omit<Selectable<WorkersTable>, "token_hash" | "token_expires_at" | "token_used_key">;

function workerOfRow(row: WorkerRow): Worker {
  return {
    id: row.id,
    name: row.name,
    state: row.state,
    provider: row.provider,
    pool: row.pool,
    info: row.info,
    usage: row.usage,
    createdAtMs: row.created_at,
    madeAtMs: row.made_at,
    registeredAtMs: row.registered_at,
    lastHeartbeatAtMs: row.last_heartbeat_at,
    message: row.message,
    cordoned: row.cordoned,
    takesOneJob: row.takes_one_job,
  };
}

export async function findWorkerBySession(db: Db, sessionTokenHash: string): Promise<Worker | null> {
  const row = await db
    .selectFrom("worker_sessions")
    .innerJoin("workers", "workers.id", "worker_sessions.worker_id")
    .select(WORKER_COLUMNS)
    .where("worker_sessions.token_hash", "=", sessionTokenHash)
    .where("workers.state", "<>", "terminated")
    .executeTakeFirst();
  return row ? workerOfRow(row) : null;
}

export async function getWorker(db: Db, workerId: string): Promise<Worker | null> {
  if (!isUuid(workerId)) return null;
  const row = await db
    .selectFrom("workers")
    .select(WORKER_COLUMNS)
    .where("id", "=", workerId)
    .executeTakeFirst();
  return row ? workerOfRow(row) : null;
}

export async function listWorkers(db: Db, filter: WorkerFilter, page: PageRequest): Promise<Page<Worker>> {
  let query = db
    .selectFrom("workers")
    .select(WORKER_COLUMNS)
    .orderBy("id", "desc")
    .limit(page.limit + 1);
  if (page.cursor !== null) query = query.where("id", "<", requireCursor(page.cursor));
  // Written out, not as a parameter: only so is it seen to be the condition of the index.
  if (!filter.includeTerminated) query = query.where("state", "<>", sql.lit("terminated"));
  if (filter.heardBeforeMs !== undefined) query = query.where("last_heartbeat_at", "<", filter.heardBeforeMs);
  return pageOf((await query.execute()).map(workerOfRow), page.limit);
}

/** `keepsWorkerState` of store-rules.ts, in SQL. */
const KEEPS_STATE = `(c.state IS NOT NULL AND c.state <> 'terminated' AND
  (w.state = 'broken' OR (w.state = 'draining' AND c.state <> 'broken')))`;

/** The rows are locked in the order of their ids, so that two groups cannot wait for each other. */
const CHANGE_WORKERS = `
  WITH locked AS (
    SELECT id FROM workers WHERE id = ANY($1::uuid[]) AND state <> 'terminated' ORDER BY id FOR UPDATE
  )
  UPDATE workers w SET
    state = CASE WHEN keeps(w.state, c.state) THEN w.state ELSE coalesce(c.state, w.state) END,
    message = CASE WHEN keeps(w.state, c.state) THEN w.message ELSE coalesce(c.message, w.message) END,
    info = coalesce(c.info::json, w.info),
    usage = CASE WHEN c.sets_usage THEN c.usage::json ELSE w.usage END,
    last_heartbeat_at = coalesce(c.last_heartbeat_at, w.last_heartbeat_at),
    made_at = coalesce(c.made_at, w.made_at),
    cordoned = coalesce(c.cordoned, w.cordoned)
  FROM locked JOIN unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::bigint[],
      $8::bigint[], $9::boolean[])
    AS c (id, state, message, info, sets_usage, usage, last_heartbeat_at, made_at, cordoned) ON c.id = locked.id
  WHERE w.id = locked.id`.replaceAll("keeps(w.state, c.state)", KEEPS_STATE);

/** Changes of one worker apply in their order; those after its end are left out. */
export async function changeWorkers(pool: Pool, changes: readonly WorkerChange[]): Promise<void> {
  const merged = mergeChanges(changes);
  await pool.query({
    name: "change_workers",
    text: CHANGE_WORKERS,
    values: [
      merged.map(({ workerId }) => workerId),
      merged.map(({ state }) => state ?? null),
      merged.map(({ message }) => (message === undefined ? null : plainText(message))),
      merged.map(({ info }) => (info === undefined ? null : JSON.stringify(info))),
      merged.map(({ usage }) => usage !== undefined),
      merged.map(({ usage }) => (usage ? JSON.stringify(usage) : null)),
      merged.map(({ lastHeartbeatAtMs }) => lastHeartbeatAtMs ?? null),
      merged.map(({ madeAtMs }) => madeAtMs ?? null),
      merged.map(({ cordoned }) => cordoned ?? null),
    ],
  });
}

function mergeChanges(changes: readonly WorkerChange[]): WorkerChange[] {
  const merged = new Map<string, WorkerChange>();
  for (const change of changes) {
    if (!isUuid(change.workerId)) continue;
    const before = merged.get(change.workerId);
    if (before?.state === "terminated") continue;
    merged.set(change.workerId, { ...before, ...takenChange(before?.state, change) });
  }
  return [...merged.values()];
}
