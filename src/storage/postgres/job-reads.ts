/** Reading jobs, attempts and events. */

import { sql, type Kysely, type RawBuilder, type SqlBool } from "kysely";
import { AppError } from "../../base/errors.ts";
import { isFinal, type Attempt, type Job, type JobEventRecord } from "../../core/job.ts";
import { waitKey } from "../../core/plan.ts";
import {
  isUuid,
  PREFIX_EXAMPLES,
  queuedEvent,
  storedIdempotencyKey,
  uuidRange,
  withWaitReason,
} from "../store-rules.ts";
import type { JobFilter, LiveAttempt, Page, PageRequest, ResolvedId, SealedLog } from "../store.ts";
import { columnText, type Tables } from "./database.ts";
import { labelColumn } from "./insert-jobs.ts";
import { attemptOfBody, JOB_COLUMNS, jobOfRow } from "./job-rows.ts";

type Db = Kysely<Tables>;

/** Only a pending job waits, so only for those is the reason looked up; the first that is there counts. */
const WAIT_REASON = sql<string | null>`CASE WHEN jobs.state = 'pending' THEN coalesce(
  ${reasonOf(sql`${sql.lit(waitKey.queue(""))} || jobs.queue`)},
  ${reasonOf(sql`${sql.lit(waitKey.concurrency(""))} || jobs.concurrency_key`)},
  ${reasonOf(sql`jobs.placement_key`)}) END`;

function reasonOf(key: RawBuilder<unknown>): RawBuilder<string | null> {
  return sql`(SELECT reason FROM wait_reasons WHERE key_hash = sha256(convert_to(${key}, 'UTF8')))`;
}

function selectJobs(db: Db) {
  return db.selectFrom("jobs").select(JOB_COLUMNS).select(WAIT_REASON.as("wait_reason"));
}

export async function getJob(db: Db, jobId: string): Promise<Job | null> {
  if (!isUuid(jobId)) return null;
  const row = await selectJobs(db).where("id", "=", jobId).executeTakeFirst();
  return row ? withWaitReason(jobOfRow(row), row.wait_reason) : null;
}

/** By key as it was given, also where it is stored in another form. */
export async function findByIdempotencyKeys(db: Db, keys: readonly string[]): Promise<Map<string, string>> {
  const { rows } = await sql<{ id: string; idempotency_key: string }>`
    SELECT id, idempotency_key FROM jobs WHERE idempotency_key = ANY(${keys.map(storedIdempotencyKey)}::text[])`.execute(
    db,
  );
  const ids = new Map(rows.map((row) => [row.idempotency_key, row.id]));
  return new Map(
    keys.flatMap((key) => {
      const id = ids.get(storedIdempotencyKey(key));
      return id === undefined ? [] : [[key, id] as const];
    }),
  );
}

export async function resolveId(db: Db, table: "jobs" | "workers", prefix: string): Promise<ResolvedId> {
  const range = uuidRange(prefix);
  if (range === null) return { found: "none" };
  const rows = await db
    .selectFrom(table)
    .select("id")
    .where("id", ">=", range.low)
    .where("id", "<=", range.high)
    .orderBy("id")
    .limit(PREFIX_EXAMPLES)
    .execute();
  const ids = rows.map(({ id }) => id);
  if (ids.length > 1) return { found: "many", examples: ids };
  return ids[0] === undefined ? { found: "none" } : { found: "one", id: ids[0] };
}

export async function listJobs(db: Db, filter: JobFilter, page: PageRequest): Promise<Page<Job>> {
  if (filter.states?.length === 0 || filter.causes?.length === 0) return { items: [], nextCursor: null };
  let query = selectJobs(db)
    .orderBy("id", "desc")
    .limit(page.limit + 1);
  if (page.cursor !== null) query = query.where("id", "<", requireCursor(page.cursor));
  if (filter.states) {
    query = query.where("state", "in", [...filter.states]);
    // Says in the words of the partial indexes what the states already imply.
    if (filter.states.every((state) => isFinal(state))) query = query.where("deadline_at", "is", null);
    if (!filter.states.some((state) => isFinal(state))) query = query.where("deadline_at", "is not", null);
    if (!filter.states.includes("pending")) query = query.where("waiting_since", "is", null);
    if (filter.states.every((state) => state === "pending"))
      query = query.where("waiting_since", "is not", null);
  }
  if (filter.causes) query = query.where("cause", "in", [...filter.causes]);
  if (filter.queue !== undefined) query = query.where("queue", "=", columnText(filter.queue));
  if (filter.name !== undefined) query = query.where("name", "=", columnText(filter.name));
  if (filter.createdAfterMs !== undefined) query = query.where("created_at", ">", filter.createdAfterMs);
  if (filter.createdBeforeMs !== undefined) query = query.where("created_at", "<", filter.createdBeforeMs);
  const labels = labelColumn(filter.labels ?? {});
  if (labels !== null) query = query.where(sql<SqlBool>`labels @> ${labels}::jsonb`);
  const rows = await query.execute();
  return pageOf(
    rows.map((row) => withWaitReason(jobOfRow(row), row.wait_reason)),
    page.limit,
  );
}

export function requireCursor(cursor: string): string {
  if (!isUuid(cursor)) throw new AppError("invalid_argument", "the page cursor is not valid");
  return cursor;
}

/** `rows` are up to one more than the page holds: that one says whether there is another page. */
export function pageOf<T extends { id: string }>(rows: T[], limit: number): Page<T> {
  const items = rows.slice(0, limit);
  return { items, nextCursor: rows.length > limit ? (items.at(-1)?.id ?? null) : null };
}

export async function listAttempts(db: Db, jobId: string): Promise<Attempt[]> {
  if (!isUuid(jobId)) return [];
  const rows = await db
    .selectFrom("attempts")
    .select("body")
    .where("job_id", "=", jobId)
    .orderBy("number")
    .execute();
  return rows.map(({ body }) => attemptOfBody(body));
}

export async function latestAttempts(db: Db, jobIds: readonly string[]): Promise<Map<string, Attempt>> {
  const known = jobIds.filter(isUuid);
  const { rows } = await sql<{ job_id: string; body: Attempt }>`
    SELECT a.job_id, a.body FROM jobs j JOIN attempts a ON a.id = j.attempt_id
    WHERE j.id = ANY(${known}::uuid[])`.execute(db);
  return new Map(rows.map((row) => [row.job_id, attemptOfBody(row.body)]));
}

export async function getAttempt(db: Db, attemptId: string): Promise<Attempt | null> {
  if (!isUuid(attemptId)) return null;
  const row = await db.selectFrom("attempts").select("body").where("id", "=", attemptId).executeTakeFirst();
  return row ? attemptOfBody(row.body) : null;
}

export async function listEvents(db: Db, jobId: string, afterSequence: number): Promise<JobEventRecord[]> {
  if (!isUuid(jobId)) return [];
  const stored = await db
    .selectFrom("job_events")
    .select("body")
    .where("job_id", "=", jobId)
    .where("sequence", ">", Math.trunc(afterSequence))
    .orderBy("sequence")
    .execute();
  const events = stored.map(({ body }) => body);
  if (afterSequence >= 1) return events;
  const job = await db
    .selectFrom("jobs")
    .select(["id", "created_at"])
    .where("id", "=", jobId)
    .executeTakeFirst();
  return job ? [queuedEvent({ id: job.id, createdAtMs: job.created_at }), ...events] : [];
}

export async function listLiveAttempts(db: Db, workerId: string): Promise<LiveAttempt[]> {
  if (!isUuid(workerId)) return [];
  const rows = await db
    .selectFrom("attempts")
    .innerJoin("jobs", "jobs.id", "attempts.job_id")
    .select("attempts.body as attempt")
    .select(JOB_COLUMNS.map((column) => `jobs.${column}` as const))
    .where("attempts.worker_id", "=", workerId)
    .where(sql<SqlBool>`NOT attempts.ended`)
    .orderBy("attempts.id")
    .execute();
  return rows.map(({ attempt, ...row }) => ({
    attempt: attemptOfBody(attempt),
    job: jobOfRow(row),
  }));
}

export async function setSealedLog(db: Db, log: SealedLog): Promise<void> {
  const found = isUuid(log.attemptId)
    ? await sql`UPDATE attempts SET sealed_log = ${JSON.stringify(log)}::json WHERE id = ${log.attemptId}`.execute(
        db,
      )
    : null;
  if (found?.numAffectedRows === 1n) return;
  throw new AppError("not_found", `store sealed log of attempt ${log.attemptId}: there is no such attempt`);
}

export async function getSealedLog(db: Db, attemptId: string): Promise<SealedLog | null> {
  if (!isUuid(attemptId)) return null;
  const row = await db
    .selectFrom("attempts")
    .select("sealed_log")
    .where("id", "=", attemptId)
    .executeTakeFirst();
  return row?.sealed_log ?? null;
}

export async function listUnsealed(db: Db, limit: number): Promise<Attempt[]> {
  const rows = await db
    .selectFrom("attempts")
    .select("body")
    .where(sql<SqlBool>`ended AND sealed_log IS NULL`)
    .orderBy("id")
    .limit(limit)
    .execute();
  return rows.map(({ body }) => attemptOfBody(body));
}
