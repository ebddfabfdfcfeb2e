/** A worker itself knows that it takes one job, because its pool may change or go while it lives. */

import { sql, type Kysely, type Migration } from "kysely";

export const workersForOneJob: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    await sql`ALTER TABLE workers ADD COLUMN takes_one_job boolean NOT NULL DEFAULT false`.execute(db);
    await sql`UPDATE workers SET takes_one_job = true FROM pools
      WHERE pools.name = workers.pool AND workers.state <> 'terminated'
        AND (pools.definition ->> 'ephemeral')::boolean`.execute(db);
  },
};
