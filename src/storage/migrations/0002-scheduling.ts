/**
 * What scheduling between queues, concurrency keys, pools and static workers need. The server before
 * still runs on this: the columns that it does not know have defaults or may be null.
 */

import { sql, type Kysely, type Migration } from "kysely";

export const scheduling: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
  },
};

const STATEMENTS = [
  // The index comes first, because what alters a table keeps also its readers away until the end of
  // the migration. It holds only jobs that wait, so it costs little more than reading the table once.
  `CREATE INDEX jobs_waiting_in_queue ON jobs (queue, priority DESC, waiting_since, id)
    WHERE waiting_since IS NOT NULL`,
  `DROP INDEX jobs_waiting`,
  `ALTER TABLE jobs ADD COLUMN concurrency_key text, ADD COLUMN concurrency_limit bigint,
    ADD COLUMN preemptible boolean NOT NULL DEFAULT false`,

  `ALTER TABLE workers ADD COLUMN made_at bigint, ADD COLUMN cordoned boolean NOT NULL DEFAULT false`,

  `CREATE TABLE pools (
    name text PRIMARY KEY,
    definition json NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    is_deleting boolean NOT NULL
  )`,

  `CREATE TABLE queues (
    name text PRIMARY KEY,
    weight bigint NOT NULL,
    max_running bigint,
    max_pending bigint,
    paused boolean NOT NULL
  )`,
];
