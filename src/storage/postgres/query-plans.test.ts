/** That what the scheduler asks for round after round stays cheap, by what PostgreSQL says it reads. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Pool } from "pg";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import type { JobState } from "../../core/job.ts";
import { definitionOf } from "../conformance/samples.ts";
import { migrate } from "../migrations/migrate.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { openDatabase, poolConfig } from "./database.ts";
import {
  COUNT_AHEAD,
  LIST_ACTIVE,
  LIST_BACKLOGS,
  LIST_PENDING,
  pendingParameters,
} from "./scheduling-reads.ts";

interface Plan {
  "Node Type": string;
  "Index Name"?: string;
  "Index Cond"?: string;
  Filter?: string;
  "Actual Rows": number;
  "Actual Loops": number;
  "Rows Removed by Filter"?: number;
  Plans?: Plan[];
}

const JOBS = 20_000;
const ACTIVE_JOBS = 200;
const WAITING_INDEX = "jobs_waiting_in_queue";

for (const queues of [1, 200]) {
  describe(`with ${JOBS} waiting and as many ended jobs in ${queues} queues`, () => {
    let database: TestDatabase;
    let pool: Pool;
    before(async () => {
      database = await openTestDatabase();
      await migrate(poolConfig(database.connection), silentLogger);
      const options = { poolSize: 1, clock: systemClock, log: silentLogger };
      ({ pool } = openDatabase(database.connection, options));
      await fill(pool, queues);
    });
    after(async () => {
      await pool?.end();
      await database.close();
    });

    // Before PostgreSQL has counted what is in the table, and after it.
    for (const isAnalyzed of [false, true]) {
      const when = isAnalyzed ? "in a table that is known" : "in a table that grew a moment ago";

      test(`pending jobs are read in the order of the index, no more than are wanted, ${when}`, async () => {
        if (isAnalyzed) await pool.query("VACUUM ANALYZE jobs");
        for (const perQueue of [1, 50, 1_000]) {
          for (const mode of ["force_custom_plan", "force_generic_plan"]) {
            await pool.query(`SET plan_cache_mode = ${mode}`);
            const plan = await explain(pool, LIST_PENDING, pendingParameters(queryOf(perQueue)));
            const used = nodesOf(plan);
            const sorts = used.filter((node) => /Sort|Seq Scan|Bitmap/.test(node["Node Type"]));
            assert.deepEqual(sorts, [], `perQueue ${perQueue}, ${mode}`);
            assert.deepEqual(indexesOf(used), [WAITING_INDEX]);
            // A key is looked up, not compared with each that is left out.
            const filters = used.flatMap(({ Filter: filter }) => filter ?? []);
            assert.match(filters.join(), /hashed SubPlan \d+.*hashed SubPlan/);
            const wanted = queues * Math.min(perQueue, JOBS / queues);
            // Every fourth job is left out and so read beyond those, and a name is read for each queue.
            assert.ok(
              rowsRead(used) <= wanted * 1.5 + 3 * queues + 3,
              `read ${rowsRead(used)}, wanted ${wanted}`,
            );
          }
        }
      });

      test(`jobs ahead are counted in two ranges of the index, ${when}`, async () => {
        const ageMs = JOBS / 2;
        const plan = await explain(pool, COUNT_AHEAD, [
          "queue-0",
          1,
          ageMs,
          "00000000-0000-0000-0000-000000000000",
        ]);
        const used = nodesOf(plan);
        assert.deepEqual(indexesOf(used), [WAITING_INDEX]);
        assert.ok(used.every(({ "Rows Removed by Filter": removed = 0 }) => removed === 0));
        const conditions = used.flatMap(({ "Index Cond": condition }) => condition ?? []);
        assert.equal(conditions.length, 2);
        for (const condition of conditions) assert.match(condition, /queue.*priority/);
      });

      test(`jobs at work and queues with waiting jobs are read by an index, ${when}`, async () => {
        const active = nodesOf(await explain(pool, LIST_ACTIVE, []));
        assert.deepEqual(indexesOf(active), ["jobs_active"]);
        assert.equal(rowsRead(active), ACTIVE_JOBS);
        const backlogs = nodesOf(await explain(pool, LIST_BACKLOGS, []));
        assert.deepEqual(indexesOf(backlogs), [WAITING_INDEX]);
        assert.ok(backlogs.every((node) => !/Sort|Seq Scan/.test(node["Node Type"])));
      });
    }
  });
}

const LEFT_OUT = "[3,0,0,0,[]]";

function queryOf(perQueue: number) {
  const withoutKeys = [LEFT_OUT, "[99,0,0,0,[]]"];
  return { nowMs: JOBS, perQueue, withoutKeys, withoutQueues: ["none"], withoutConcurrencyKeys: ["held"] };
}

async function fill(pool: Pool, queues: number): Promise<void> {
  // Otherwise the table could become known before its time.
  await pool.query("ALTER TABLE jobs SET (autovacuum_enabled = off)");
  await insert(pool, { queues, state: "pending", count: JOBS, waitingSince: "i", deadline: "i + 1000000" });
  await insert(pool, { queues, state: "succeeded", count: JOBS, waitingSince: "NULL", deadline: "NULL" });
  await insert(pool, { queues, state: "running", count: ACTIVE_JOBS, waitingSince: "NULL", deadline: "i" });
}

async function insert(
  pool: Pool,
  jobs: { queues: number; state: JobState; count: number; waitingSince: string; deadline: string },
): Promise<void> {
  const { queues, state, count, waitingSince, deadline } = jobs;
  await pool.query(
    `INSERT INTO jobs (id, state, queue, name, placement_key, priority, created_at, waiting_since,
      not_before, deadline_at, version, definition)
    SELECT gen_random_uuid(), '${state}', 'queue-' || (i % ${queues}), 'build',
      '[' || (i / ${queues} % 4) || ',0,0,0,[]]', i / ${queues} % 3, i, ${waitingSince}, i, ${deadline}, 1, $1
    FROM generate_series(1, ${count}) AS i`,
    [JSON.stringify(definitionOf())],
  );
}

/** Through a prepared statement, as the store has it. */
async function explain(pool: Pool, text: string, parameters: unknown[]): Promise<Plan> {
  const prepared = await pool.connect();
  try {
    await prepared.query(`PREPARE asked AS ${text}`);
    const literals = parameters.map(literalOf).join(", ");
    const { rows } = await prepared.query<{ "QUERY PLAN": [{ Plan: Plan }] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked${parameters.length === 0 ? "" : `(${literals})`}`,
    );
    return (rows[0] as { "QUERY PLAN": [{ Plan: Plan }] })["QUERY PLAN"][0].Plan;
  } finally {
    await prepared.query("DEALLOCATE ALL");
    prepared.release();
  }
}

function literalOf(value: unknown): string {
  return Array.isArray(value) ? `ARRAY[${value.map(literalOf).join(", ")}]::text[]` : `'${String(value)}'`;
}

function nodesOf(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

function indexesOf(nodes: readonly Plan[]): string[] {
  return [...new Set(nodes.flatMap((node) => node["Index Name"] ?? []))];
}

function rowsRead(nodes: readonly Plan[]): number {
  const scans = nodes.filter((node) => node["Index Name"] !== undefined);
  const rows = scans.map((node) => node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0));
  return rows.reduce((sum, count, index) => sum + count * (scans[index]?.["Actual Loops"] ?? 0), 0);
}
