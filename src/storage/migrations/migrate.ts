/**
 * Brings a database to the form that this version of Hodei expects: forward only, and safe when
 * several servers start at once.
 */

import { Kysely, Migrator, PostgresDialect, sql, type Migration } from "kysely";
import { Pool, type PoolConfig } from "pg";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { surviveBrokenConnections } from "../postgres/database.ts";
import { initial } from "./0001-initial.ts";
import { scheduling } from "./0002-scheduling.ts";
import { workersForOneJob } from "./0003-workers-for-one-job.ts";

/** In order. A migration that was released is never changed or removed. */
const MIGRATIONS: Readonly<Record<string, Migration>> = {
  "0001_initial": initial,
  "0002_scheduling": scheduling,
  "0003_workers_for_one_job": workersForOneJob,
};

/** A lock of PostgreSQL that only migrating servers take; any number that nothing else uses. */
const MIGRATION_LOCK = 5_247_081_930_112;
const MIN_SERVER_VERSION = 150_000;

/**
 * Rejects with `failed_precondition` for a server that is too old, and for a database that a newer
 * Hodei has migrated: its tables may mean something that this version does not know.
 */
export async function migrate(connection: PoolConfig, log: Logger): Promise<void> {
  // Two connections: one holds the lock while Kysely's Migrator works on the other.
  const pool = new Pool({ ...connection, max: 2 });
  surviveBrokenConnections(pool, log);
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  try {
    if (await isUpToDate(db)) return;
    await db.connection().execute(async (holder) => {
      await sql`SELECT pg_advisory_lock(${MIGRATION_LOCK}::bigint)`.execute(holder);
      try {
        if (!(await isUpToDate(holder))) await runMigrations(db, log);
      } finally {
        await sql`SELECT pg_advisory_unlock(${MIGRATION_LOCK}::bigint)`.execute(holder);
      }
    });
  } finally {
    await db.destroy();
  }
}

async function isUpToDate(db: Kysely<unknown>): Promise<boolean> {
  const facts = await sql<{ number: number; version: string; table: string | null }>`
    SELECT current_setting('server_version_num')::int AS number,
      current_setting('server_version') AS version,
      to_regclass('kysely_migration')::text AS table`.execute(db);
  const { number = 0, version = "", table = null } = facts.rows[0] ?? {};
  if (number < MIN_SERVER_VERSION) {
    throw new AppError(
      "failed_precondition",
      `open database: PostgreSQL 15 or newer is needed, and this server is PostgreSQL ${version}`,
    );
  }
  if (table === null) return false;
  const done = await sql<{ name: string }>`SELECT name FROM kysely_migration ORDER BY name`.execute(db);
  refuseNewer(done.rows.map(({ name }) => name));
  return done.rows.length === Object.keys(MIGRATIONS).length;
}

function refuseNewer(done: readonly string[]): void {
  const unknown = done.filter((name) => !(name in MIGRATIONS));
  if (unknown.length === 0) return;
  throw new AppError(
    "failed_precondition",
    `open database: it was migrated by a newer version of Hodei (${unknown.join(", ")} is unknown here); start that version or a later one`,
  );
}

async function runMigrations(db: Kysely<unknown>, log: Logger): Promise<void> {
  const migrator = new Migrator({
    db,
    provider: { getMigrations: () => Promise.resolve({ ...MIGRATIONS }) },
  });
  const { error, results } = await migrator.migrateToLatest();
  for (const { migrationName, status } of results ?? []) {
    log.info({ migration: migrationName, status }, "database migrated");
  }
  if (error) throw new AppError("internal", `migrate database: ${errorMessage(error)}`, { cause: error });
}
