/**
 * An empty database for a test file: a fresh one on the server of `HODEI_TEST_DATABASE_URL`, or a
 * PostgreSQL of its own in a temporary directory. For tests and benchmarks only.
 */

import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { systemClock } from "../base/clock.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { startEmbeddedPostgres } from "./embedded-postgres.ts";
import { endPostmaster, readPidFile } from "./embedded/postmaster.ts";
import { isAbandoned } from "./embedded/users.ts";
import type { PostgresConnection } from "./postgres/database.ts";

export interface TestDatabase {
  connection: PostgresConnection;
  /** Drops the database. Connections to it must be closed before. May be called twice. */
  close(): Promise<void>;
}

export async function openTestDatabase(): Promise<TestDatabase> {
  const url = process.env["HODEI_TEST_DATABASE_URL"];
  return url === undefined || url === "" ? openEmbedded() : createOn(url);
}

const DIRECTORY_PREFIX = "hodei-db-";

async function openEmbedded(): Promise<TestDatabase> {
  await removeAbandoned();
  const directory = mkdtempSync(join(tmpdir(), DIRECTORY_PREFIX));
  // As root the database runs as another user, who must get in.
  chmodSync(directory, 0o755);
  try {
    const postgres = await startEmbeddedPostgres({
      directory,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    return {
      connection: postgres.connection,
      async close() {
        await postgres.stop();
        rmSync(directory, { recursive: true, force: true });
      },
    };
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

/** A test run that was killed leaves its database running, as a server does. */
async function removeAbandoned(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const home = join(tmpdir(), name, "postgres");
    if (!name.startsWith(DIRECTORY_PREFIX) || !isAbandoned(home)) continue;
    const data = join(home, "data");
    const left = readPidFile(data);
    if (left) await endPostmaster(left.pid, { data, clock: systemClock });
    // Another test file may be at it too, which makes a directory look filled while it is removed.
    rmSync(join(tmpdir(), name), { recursive: true, force: true, maxRetries: 5 });
  }
}

async function createOn(url: string): Promise<TestDatabase> {
  const name = `hodei_test_${Buffer.from(systemRandom.bytes(8)).toString("hex")}`;
  await runOn(url, `CREATE DATABASE ${name}`);
  const own = new URL(url);
  own.pathname = `/${name}`;
  return {
    connection: { connectionString: own.href },
    close: () => runOn(url, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`),
  };
}

async function runOn(url: string, statement: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
