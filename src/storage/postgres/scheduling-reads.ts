/** What the scheduler and the loops that watch deadlines ask for, round after round. */

import type { Pool } from "pg";
import type { Job, JobState } from "../../core/job.ts";
import { placementOfKey } from "../../core/placement-key.ts";
import { waitKey } from "../../core/plan.ts";
import { compareText, inPendingOrder } from "../store-rules.ts";
import type { ActiveJob, DueJob, PendingJob, PendingQuery, QueueBacklog } from "../store.ts";
import { columnText, plainText } from "./database.ts";

interface PendingRow {
  id: string;
  queue: string;
  placement_key: string;
  concurrency_key: string | null;
  concurrency_limit: number | null;
  preemptible: boolean;
  priority: number;
  waiting_since: number;
}

/**
 * Goes from the name of one queue to the next in the index, whatever lies between, and reads of each
 * queue the first jobs in the order of the index. Definitions, which may be long, are not read: what
 * the scheduler needs of them is in the columns.
 *
 * While PostgreSQL knows nothing of a table that grew a moment ago, it would rather collect all jobs
 * of a queue by another index and sort them. Two things keep it from that: the names are asked for in
 * the order that only this index has, and behind its own SELECT it takes the limit for a small part.
 *
 * What is left out is asked for by a SELECT, of which it makes a hash table. An array it would go
 * through for each row: with ten thousand kinds of jobs that wait, that took more than a second.
 */
export const LIST_PENDING = `
  WITH RECURSIVE waiting (queue) AS (
    (SELECT queue FROM jobs WHERE waiting_since IS NOT NULL
      ORDER BY queue, priority DESC, waiting_since, id LIMIT 1)
    UNION ALL
    SELECT (
      SELECT j.queue FROM jobs j WHERE j.waiting_since IS NOT NULL AND j.queue > w.queue
      ORDER BY j.queue, j.priority DESC, j.waiting_since, j.id LIMIT 1)
    FROM waiting w WHERE w.queue IS NOT NULL
  )
  SELECT first.* FROM waiting w CROSS JOIN LATERAL (
    SELECT j.id, j.queue, j.placement_key, j.concurrency_key, j.concurrency_limit, j.preemptible,
      j.priority, j.waiting_since
    FROM jobs j
    WHERE j.waiting_since IS NOT NULL AND j.queue = w.queue AND j.not_before <= $1
      AND j.placement_key NOT IN (SELECT unnest($3::text[]))
      AND (j.concurrency_key IS NULL OR j.concurrency_key NOT IN (SELECT unnest($4::text[])))
    ORDER BY j.priority DESC, j.waiting_since, j.id LIMIT (SELECT $2::bigint)
  ) first
  WHERE w.queue <> ALL($5::text[])`;

export async function listPending(pool: Pool, query: PendingQuery): Promise<PendingJob[]> {
  const { rows } = await pool.query<PendingRow>({
    name: "list_pending",
    text: LIST_PENDING,
    values: pendingParameters(query),
  });
  return inPendingOrder(rows.map(pendingJobOfRow));
}

export function pendingParameters(query: PendingQuery): unknown[] {
  return [
    query.nowMs,
    query.perQueue,
    query.withoutKeys,
    query.withoutConcurrencyKeys.map(columnText),
    query.withoutQueues.map(columnText),
  ];
}

/** Queue and concurrency key as in their columns, so that they are equal wherever the scheduler sees them. */
function pendingJobOfRow(row: PendingRow): PendingJob {
  const { concurrency_key: key, concurrency_limit: limit } = row;
  return {
    id: row.id,
    queue: row.queue,
    priority: row.priority,
    pendingSinceMs: row.waiting_since,
    placementKey: row.placement_key,
    placement: { ...placementOfKey(row.placement_key), preemptible: row.preemptible },
    concurrency: key === null || limit === null ? null : { key, limit },
  };
}

/**
 * PostgreSQL cannot know that few jobs are at work while many wait and many have ended. The order and
 * a limit, of which it does not see that it is none, make it take the index that holds only those.
 */
export const LIST_ACTIVE = `
  SELECT id, queue, concurrency_key, version FROM jobs
  WHERE waiting_since IS NULL AND deadline_at IS NOT NULL ORDER BY id LIMIT (SELECT NULL::bigint)`;

export async function listActive(pool: Pool): Promise<ActiveJob[]> {
  const { rows } = await pool.query<{
    id: string;
    queue: string;
    concurrency_key: string | null;
    version: number;
  }>({ name: "list_active", text: LIST_ACTIVE });
  return rows.map((row) => ({
    jobId: row.id,
    queue: row.queue,
    concurrencyKey: row.concurrency_key,
    version: row.version,
  }));
}

export const LIST_BACKLOGS = `
  SELECT queue, count(*) AS pending, min(waiting_since) AS oldest FROM jobs
  WHERE waiting_since IS NOT NULL GROUP BY queue`;

export async function listBacklogs(pool: Pool): Promise<QueueBacklog[]> {
  const { rows } = await pool.query<{ queue: string; pending: number; oldest: number }>({
    name: "list_backlogs",
    text: LIST_BACKLOGS,
  });
  return rows
    .map(({ queue, pending, oldest }) => ({ queue, pending, oldestPendingSinceMs: oldest }))
    .toSorted((a, b) => compareText(a.queue, b.queue));
}

/** Two ranges of the index: the jobs with a higher priority, and the older ones with the same. */
export const COUNT_AHEAD = `
  SELECT (SELECT count(*) FROM jobs WHERE waiting_since IS NOT NULL AND queue = $1 AND priority > $2)
    + (SELECT count(*) FROM jobs WHERE waiting_since IS NOT NULL AND queue = $1 AND priority = $2
        AND (waiting_since, id) < ($3, $4::uuid)) AS ahead`;

export async function countAhead(pool: Pool, job: Job): Promise<number> {
  if (job.state !== "pending") return 0;
  const { queue, priority } = job.definition;
  const { rows } = await pool.query<{ ahead: number }>({
    name: "count_ahead",
    text: COUNT_AHEAD,
    values: [columnText(queue), priority, job.pendingSinceMs, job.id],
  });
  return rows[0]?.ahead ?? 0;
}

/**
 * A job that waits for a retry has `not_before` after `waiting_since`, and only such jobs are in
 * the index. A job from a server whose clock is ahead is not found; the next regular round is for it.
 */
const NEXT_PENDING = `
  SELECT min(not_before) AS next FROM jobs
  WHERE not_before > waiting_since AND not_before > $1`;

export async function nextPendingAtMs(pool: Pool, nowMs: number): Promise<number | null> {
  const { rows } = await pool.query<{ next: number | null }>({
    name: "next_pending",
    text: NEXT_PENDING,
    values: [nowMs],
  });
  return rows[0]?.next ?? null;
}

interface DueRow {
  id: string;
  state: JobState;
  attempt_id: string | null;
  worker_id: string | null;
  deadline_at: number;
}

const LIST_DUE = `
  SELECT id, state, attempt_id, worker_id, deadline_at FROM jobs
  WHERE deadline_at IS NOT NULL AND deadline_at < $1 ORDER BY deadline_at, id LIMIT $2`;

export async function listDue(pool: Pool, options: { nowMs: number; limit: number }): Promise<DueJob[]> {
  const { rows } = await pool.query<DueRow>({
    name: "list_due",
    text: LIST_DUE,
    values: [options.nowMs, options.limit],
  });
  return rows.map((row) => ({
    jobId: row.id,
    state: row.state,
    attemptId: row.attempt_id,
    workerId: row.worker_id,
    deadlineAtMs: row.deadline_at,
  }));
}

/**
 * A reason belongs to a key, not to a job: ten thousand alike jobs that wait are one row, and storing
 * why they wait never stands in the way of one that is being started.
 */
const SET_REASONS = `
  WITH given AS (
    SELECT sha256(convert_to(key, 'UTF8')) AS key_hash, key, reason
    FROM unnest($1::text[], $2::text[]) AS r (key, reason)
  ), removed AS (
    DELETE FROM wait_reasons w USING given WHERE w.key_hash = given.key_hash AND given.reason = ''
  )
  INSERT INTO wait_reasons (key_hash, placement_key, reason)
  SELECT key_hash, key, reason FROM given WHERE reason <> '' ORDER BY 1
  ON CONFLICT (key_hash) DO UPDATE SET reason = excluded.reason
  WHERE wait_reasons.reason IS DISTINCT FROM excluded.reason`;

export async function setWaitReasons(pool: Pool, reasons: ReadonlyMap<string, string>): Promise<void> {
  if (reasons.size === 0) return;
  // Two keys may become one here, and a statement must not write a row twice.
  const plain = new Map([...reasons].map(([key, reason]) => [plainText(key), plainText(reason)]));
  await pool.query({
    name: "set_wait_reasons",
    text: SET_REASONS,
    values: [[...plain.keys()], [...plain.values()]],
  });
}

/** Reasons of keys that no job waits with any more would pile up for ever. */
export async function forgetOldWaitReasons(pool: Pool): Promise<void> {
  await pool.query(
    `DELETE FROM wait_reasons w WHERE NOT EXISTS (
      SELECT FROM jobs j
      CROSS JOIN LATERAL (VALUES (j.placement_key), ($1 || j.queue), ($2 || j.concurrency_key)) AS used (key)
      WHERE j.waiting_since IS NOT NULL AND used.key = w.placement_key)`,
    [waitKey.queue(""), waitKey.concurrency("")],
  );
}

/**
 * What holds up a queue or a concurrency key is taken back by the server that said it. If that one has
 * ended, it holds them up for ever; so the next one begins with none and says them again.
 */
export async function forgetHeldReasons(pool: Pool): Promise<void> {
  await pool.query(
    "DELETE FROM wait_reasons WHERE starts_with(placement_key, $1) OR starts_with(placement_key, $2)",
    [waitKey.queue(""), waitKey.concurrency("")],
  );
}
