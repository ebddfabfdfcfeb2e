/**
 * The first tables. What is filtered or sorted is a column; the rest of a job or attempt is one
 * `json` value, which unlike `jsonb` keeps any string a user can write, also one with NUL or with
 * half of a surrogate pair. Times are milliseconds since the Unix epoch. `waiting_since` is set exactly
 * while a job is pending, `deadline_at` while it has not ended.
 */

import { sql, type Kysely, type Migration } from "kysely";

export const initial: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    for (const statement of STATEMENTS) await sql.raw(statement).execute(db);
  },
};

const STATEMENTS = [
  `CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    state text NOT NULL,
    cause text,
    queue text NOT NULL,
    name text NOT NULL,
    placement_key text NOT NULL,
    priority bigint NOT NULL,
    created_at bigint NOT NULL,
    waiting_since bigint,
    not_before bigint NOT NULL,
    deadline_at bigint,
    attempt_id uuid,
    worker_id uuid,
    version bigint NOT NULL,
    labels jsonb,
    idempotency_key text,
    definition json NOT NULL,
    body json
  ) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05)`,
  `CREATE UNIQUE INDEX jobs_idempotency_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL`,
  // Not "WHERE state = 'pending'": while the planner knows nothing of a table that grew a moment ago
  // it takes that for rare, and sorts everything; that a value is there it takes for common.
  `CREATE INDEX jobs_waiting ON jobs (priority DESC, waiting_since, id) WHERE waiting_since IS NOT NULL`,
  // New jobs may start at once and are not in this index: only those that wait for a retry are.
  `CREATE INDEX jobs_not_before ON jobs (not_before) WHERE not_before > waiting_since`,
  `CREATE INDEX jobs_active ON jobs (id) WHERE waiting_since IS NULL AND deadline_at IS NOT NULL`,
  `CREATE INDEX jobs_deadline ON jobs (deadline_at) WHERE deadline_at IS NOT NULL`,
  `CREATE INDEX jobs_ended_state ON jobs (state, id) WHERE deadline_at IS NULL`,
  `CREATE INDEX jobs_cause ON jobs (cause, id) WHERE cause IS NOT NULL`,
  `CREATE INDEX jobs_queue ON jobs (queue, id)`,
  `CREATE INDEX jobs_name ON jobs (name, id)`,
  `CREATE INDEX jobs_labels ON jobs USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL`,

  `CREATE TABLE attempts (
    id uuid PRIMARY KEY,
    job_id uuid NOT NULL,
    number bigint NOT NULL,
    worker_id uuid NOT NULL,
    ended boolean NOT NULL,
    body json NOT NULL,
    sealed_log json
  ) WITH (fillfactor = 85)`,
  `CREATE UNIQUE INDEX attempts_job ON attempts (job_id, number)`,
  `CREATE INDEX attempts_live ON attempts (worker_id, id) WHERE NOT ended`,
  `CREATE INDEX attempts_unsealed ON attempts (id) WHERE ended AND sealed_log IS NULL`,

  `CREATE TABLE job_events (
    job_id uuid NOT NULL,
    sequence bigint NOT NULL,
    body json NOT NULL,
    PRIMARY KEY (job_id, sequence)
  )`,

  // By the SHA-256 of the placement key, which may be too long for an index entry.
  `CREATE TABLE wait_reasons (
    key_hash bytea PRIMARY KEY,
    placement_key text NOT NULL,
    reason text NOT NULL
  )`,

  `CREATE TABLE workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL,
    provider text NOT NULL,
    pool text NOT NULL,
    created_at bigint NOT NULL,
    registered_at bigint,
    last_heartbeat_at bigint,
    message text NOT NULL DEFAULT '',
    info json,
    usage json,
    token_hash text,
    token_expires_at bigint,
    token_used_key text
  ) WITH (fillfactor = 60)`,
  `CREATE UNIQUE INDEX workers_token ON workers (token_hash) WHERE token_hash IS NOT NULL`,
  `CREATE INDEX workers_present ON workers (id) WHERE state <> 'terminated'`,

  `CREATE TABLE worker_sessions (
    token_hash text PRIMARY KEY,
    worker_id uuid NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    number bigint GENERATED ALWAYS AS IDENTITY
  )`,
  `CREATE INDEX worker_sessions_worker ON worker_sessions (worker_id, number)`,
];
