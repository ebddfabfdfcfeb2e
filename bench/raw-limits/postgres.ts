/** How many rows PostgreSQL takes, without anything of Hodei around it. */

import pg from "pg";
import { openTestDatabase } from "../../src/storage/test-database.ts";
import { type BenchRow, callsPerSecond, medianOf } from "../bench-row.ts";

const ROWS_PER_STATEMENT = 1_000;
const CONNECTIONS = 8;

export const groupedInserts: BenchRow = {
  name: "raw: rows inserted, 1,000 in a statement",
  target: "",
  rawName: "PostgreSQL through pg",
  run: async () => ({
    value: null,
    raw: await rowsPerSecond({ rowsPerStatement: ROWS_PER_STATEMENT }),
    unit: "rows/s",
  }),
};

export const singleInserts: BenchRow = {
  name: "raw: rows inserted one by one, 8 connections",
  target: "",
  rawName: "PostgreSQL through pg",
  run: async () => ({ value: null, raw: await rowsPerSecond({ rowsPerStatement: 1 }), unit: "rows/s" }),
};

/** Rows of about the size of a job, each statement a transaction of its own. */
export async function rowsPerSecond(options: { rowsPerStatement: number }): Promise<number> {
  const { rowsPerStatement } = options;
  const database = await openTestDatabase();
  const pool = new pg.Pool({ ...database.connection, max: CONNECTIONS });
  // `end` resolves before the last connection is gone: the server may still close it while it stops.
  pool.on("error", () => {});
  const payloads = Array.from({ length: rowsPerStatement }, (_, index) =>
    JSON.stringify({ index, text: "a".repeat(400) }),
  );
  try {
    await pool.query(
      "CREATE TABLE bench_rows (id bigserial PRIMARY KEY, definition jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now())",
    );
    const statement = {
      name: "insert",
      text: "INSERT INTO bench_rows (definition) SELECT unnest($1::jsonb[])",
      values: [payloads],
    };
    const call = () => pool.query(statement);
    const callers = rowsPerStatement === 1 ? CONNECTIONS : 2;
    await callsPerSecond({ callers, durationMs: 500, call });
    return await medianOf(
      3,
      async () => rowsPerStatement * (await callsPerSecond({ callers, durationMs: 1_500, call })),
    );
  } finally {
    await pool.end();
    await database.close();
  }
}
