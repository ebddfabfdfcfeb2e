/** Pools and queues as somebody configured them: few rows, read as a whole. */

import type { Pool } from "pg";
import type { PoolDefinition, QueueConfig, StoredPool } from "../../core/pool.ts";
import { compareText } from "../store-rules.ts";
import { columnText, jsonList, type PoolsTable, type QueuesTable } from "./database.ts";

export async function listPools(pool: Pool): Promise<StoredPool[]> {
  const { rows } = await pool.query<PoolsTable>("SELECT * FROM pools");
  return rows
    .map((row) => ({
      definition: row.definition,
      createdAtMs: row.created_at,
      updatedAtMs: row.updated_at,
      isDeleting: row.is_deleting,
    }))
    .toSorted((a, b) => compareText(a.definition.name, b.definition.name));
}

const PUT_POOLS = `
  INSERT INTO pools (name, definition, created_at, updated_at, is_deleting)
  SELECT name, definition, $3, $3, false
  FROM ROWS FROM (unnest($1::text[]), json_array_elements($2::json)) AS p (name, definition)
  ORDER BY name
  ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at,
    is_deleting = false`;

/** Of two with one name the last counts. */
export async function putPools(pool: Pool, pools: readonly PoolDefinition[], nowMs: number): Promise<void> {
  const byName = new Map(pools.map((definition) => [columnText(definition.name), definition]));
  const definitions = [...byName.values()].map((definition) => JSON.stringify(definition));
  await pool.query(PUT_POOLS, [[...byName.keys()], jsonList(definitions), nowMs]);
}

export async function markPoolsDeleting(pool: Pool, names: readonly string[], nowMs: number): Promise<void> {
  await pool.query(
    "UPDATE pools SET is_deleting = true, updated_at = $2 WHERE name = ANY($1::text[]) AND NOT is_deleting",
    [names.map(columnText), nowMs],
  );
}

export async function removePool(pool: Pool, name: string): Promise<void> {
  await pool.query("DELETE FROM pools WHERE name = $1 AND is_deleting", [columnText(name)]);
}

export async function listQueues(pool: Pool): Promise<QueueConfig[]> {
  const { rows } = await pool.query<QueuesTable>("SELECT * FROM queues");
  return rows
    .map((row) => ({
      name: row.name,
      weight: row.weight,
      maxRunning: row.max_running,
      maxPending: row.max_pending,
      paused: row.paused,
    }))
    .toSorted((a, b) => compareText(a.name, b.name));
}

const CONFIGURE_QUEUES = `
  WITH forgotten AS (DELETE FROM queues WHERE name = ANY($6::text[]))
  INSERT INTO queues (name, weight, max_running, max_pending, paused)
  SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[]) ORDER BY 1
  ON CONFLICT (name) DO UPDATE SET weight = excluded.weight, max_running = excluded.max_running,
    max_pending = excluded.max_pending, paused = excluded.paused`;

/** One in both lists is forgotten: a statement must not write a row twice. */
export async function configureQueues(
  pool: Pool,
  change: { set: readonly QueueConfig[]; reset: readonly string[] },
): Promise<void> {
  const reset = new Set(change.reset.map(columnText));
  const byName = new Map(change.set.map((queue) => [columnText(queue.name), queue]));
  for (const name of reset) byName.delete(name);
  const queues = [...byName.values()];
  await pool.query(CONFIGURE_QUEUES, [
    [...byName.keys()],
    queues.map(({ weight }) => weight),
    queues.map(({ maxRunning }) => maxRunning),
    queues.map(({ maxPending }) => maxPending),
    queues.map(({ paused }) => paused),
    [...reset],
  ]);
}
