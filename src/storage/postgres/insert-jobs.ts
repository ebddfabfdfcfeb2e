/** Submissions: one statement for thousands of jobs, from any number of calls. */

import type { Pool } from "pg";
import { placementKey } from "../../core/placement.ts";
import { storedIdempotencyKey } from "../store-rules.ts";
import type { InsertedJob, NewJob } from "../store.ts";
import { columnText, jsonList } from "./database.ts";
import { definitionBody } from "./job-rows.ts";

/**
 * A conflict of the idempotency key, or of the id when a call is repeated whose answer was lost,
 * leaves the older row as it is. The statement waits for a rival insertion of the same key to end,
 * so the look-up after it finds the row.
 */
export async function insertJobs(pool: Pool, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  if (jobs.length === 0) return [];
  const inserted = await pool.query<{ id: string }>({
    name: "insert_jobs",
    text: INSERT,
    values: columnsOf(jobs),
  });
  const created = new Set(inserted.rows.map(({ id }) => id));
  if (created.size === jobs.length) return jobs.map(({ id }) => ({ jobId: id, created: true }));
  return explainConflicts(pool, jobs, created);
}

const INSERT = `
  INSERT INTO jobs (id, state, queue, name, placement_key, priority, created_at, waiting_since, not_before,
    deadline_at, version, labels, idempotency_key, concurrency_key, concurrency_limit, preemptible, definition)
  SELECT id, 'pending', queue, name, placement_key, priority, now_ms, now_ms, now_ms,
    deadline_at, 1, labels::jsonb, idempotency_key, concurrency_key, concurrency_limit, coalesce(preemptible, false), definition
  FROM ROWS FROM (
      unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::text[], $9::text[], $10::text[], $11::bigint[], $12::boolean[]),
      json_array_elements($13::json))
    AS new (id, queue, name, placement_key, priority, now_ms, deadline_at, labels, idempotency_key,
      concurrency_key, concurrency_limit, preemptible, definition)
  ON CONFLICT DO NOTHING
  RETURNING id`;

function columnsOf(jobs: readonly NewJob[]): unknown[] {
  return [
    jobs.map(({ id }) => id),
    jobs.map(({ definition }) => columnText(definition.queue)),
    jobs.map(({ definition }) => columnText(definition.name)),
    jobs.map(({ definition }) => placementKey(definition)),
    jobs.map(({ definition }) => definition.priority),
    jobs.map(({ nowMs }) => nowMs),
    jobs.map(({ nowMs, definition }) => nowMs + definition.queueTimeoutMs),
    sparse(jobs, ({ definition }) => labelColumn(definition.labels)),
    sparse(jobs, ({ idempotencyKey }) =>
      idempotencyKey === null ? null : storedIdempotencyKey(idempotencyKey),
    ),
    sparse(jobs, ({ definition: { concurrency } }) => concurrency && columnText(concurrency.key)),
    sparse(jobs, ({ definition: { concurrency } }) => concurrency && concurrency.limit),
    sparse(jobs, ({ definition }) => definition.preemptible || null),
    jsonList(jobs.map(({ definition }) => definitionBody(definition))),
  ];
}

/** Up to the last job that has a value: `unnest` fills up with nulls, so what no job has costs nothing. */
function sparse<T>(jobs: readonly NewJob[], valueOf: (job: NewJob) => T | null): (T | null)[] {
  const values = jobs.map(valueOf);
  return values.slice(0, values.findLastIndex((value) => value !== null) + 1);
}

/** Null for no labels, so that such jobs take no room in the index of labels. */
export function labelColumn(labels: Record<string, string>): string | null {
  const entries = Object.entries(labels);
  if (entries.length === 0) return null;
  return JSON.stringify(
    Object.fromEntries(entries.map(([key, value]) => [columnText(key), columnText(value)])),
  );
}

async function explainConflicts(
  pool: Pool,
  jobs: readonly NewJob[],
  created: ReadonlySet<string>,
): Promise<InsertedJob[]> {
  const keys = jobs.flatMap(({ idempotencyKey }) =>
    idempotencyKey === null ? [] : [storedIdempotencyKey(idempotencyKey)],
  );
  const known = await pool.query<{ id: string; idempotency_key: string }>(
    "SELECT id, idempotency_key FROM jobs WHERE idempotency_key = ANY($1::text[])",
    [keys],
  );
  const idOfKey = new Map(known.rows.map((row) => [row.idempotency_key, row.id]));
  const claimed = new Set<string>();
  return jobs.map(({ id, idempotencyKey }) => {
    const holder = idempotencyKey === null ? undefined : idOfKey.get(storedIdempotencyKey(idempotencyKey));
    const jobId = holder ?? id;
    const isFirst = jobId === id && created.has(id) && !claimed.has(id);
    claimed.add(id);
    return { jobId, created: isFirst };
  });
}
