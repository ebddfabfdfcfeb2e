/** What the scheduler and the loops that watch deadlines ask for, round after round. */

import type { Pool } from "pg";
import type { JobState, Resources } from "../../core/job.ts";
import type { DueJob, PendingJob } from "../store.ts";

interface PendingRow {
  id: string;
  placement_key: string;
  priority: number;
  waiting_since: number;
  definition: { resources: Resources; selector: Record<string, string> };
}

const LIST_PENDING = `
  SELECT id, placement_key, priority, waiting_since, definition FROM jobs
  WHERE waiting_since IS NOT NULL AND not_before <= $1 AND placement_key <> ALL($2::text[])
  ORDER BY priority DESC, waiting_since, id LIMIT $3`;

export async function listPending(
  pool: Pool,
  options: { limit: number; nowMs: number; withoutKeys: readonly string[] },
): Promise<PendingJob[]> {
  const { rows } = await pool.query<PendingRow>({
    name: "list_pending",
    text: LIST_PENDING,
    values: [options.nowMs, [...options.withoutKeys], options.limit],
  });
  return rows.map((row) => ({
    id: row.id,
    placementKey: row.placement_key,
    resources: row.definition.resources,
    selector: row.definition.selector,
    priority: row.priority,
    pendingSinceMs: row.waiting_since,
  }));
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
 * A reason belongs to a placement key, not to a job: ten thousand alike jobs that wait are one row,
 * and storing why they wait never stands in the way of one that is being started.
 */
const SET_REASONS = `
  INSERT INTO wait_reasons (key_hash, placement_key, reason)
  SELECT sha256(convert_to(key, 'UTF8')), key, reason FROM unnest($1::text[], $2::text[]) AS r (key, reason)
  ORDER BY 1
  ON CONFLICT (key_hash) DO UPDATE SET reason = excluded.reason
  WHERE wait_reasons.reason IS DISTINCT FROM excluded.reason`;

const NUL_OR_HALF_PAIR = /\0|\p{Surrogate}/gu;

export async function setWaitReasons(pool: Pool, reasons: ReadonlyMap<string, string>): Promise<void> {
  if (reasons.size === 0) return;
  const texts = [...reasons.values()].map((reason) => reason.replaceAll(NUL_OR_HALF_PAIR, "\ufffd"));
  await pool.query({ name: "set_wait_reasons", text: SET_REASONS, values: [[...reasons.keys()], texts] });
}

/** Reasons of keys that no job waits with any more would pile up for ever. */
export async function forgetOldWaitReasons(pool: Pool): Promise<void> {
  await pool.query(`
    DELETE FROM wait_reasons w WHERE NOT EXISTS (
      SELECT FROM jobs j WHERE j.waiting_since IS NOT NULL AND j.placement_key = w.placement_key)`);
}
