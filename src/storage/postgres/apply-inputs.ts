/**
 * The one place that writes the state of jobs: a group of inputs in two round trips.
 *
 * The jobs are read together with their newest attempts, `changeJob` decides in memory, and one
 * statement writes jobs, attempts and events. It locks each job's row and writes only if the
 * version is still the one that was read; where another server was faster, the job's inputs are
 * decided again from what is there now. So the outcome is that of deciding under the row lock, but
 * no lock is held while the network is waited for, and each try of the statement is all or nothing.
 */

import { isDeepStrictEqual } from "node:util";
import type { Pool } from "pg";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { changeJob } from "../../core/job-change.ts";
import { isFinal, type Attempt, type Job, type JobEventRecord } from "../../core/job.ts";
import { emptySealedLog } from "../store-rules.ts";
import type { AppliedInput, JobInputRecord, SealedLog } from "../store.ts";
import { jsonList, mayBeOneOfMany } from "./database.ts";
import { attemptOfBody, bodyOfJob, jobOfRow, JOB_COLUMNS, type JobRow } from "./job-rows.ts";
import { isConnectionLost, repeating } from "./repeat.ts";

/** Each lost race means that another server's change went through, so few suffice in practice. */
const MAX_RACES = 100;

/** The answer to one call of a group. */
export type Settled<T> = { value: T } | { error: unknown };

interface ChangingDatabase {
  pool: Pool;
  clock: Clock;
  random: Random;
}

interface NumberedInput {
  record: JobInputRecord;
  index: number;
}

/**
 * Answers each input at the same index. Inputs of one job are applied in their order. If the
 * database refuses a group for its data, its inputs are applied one by one, so that only the bad
 * one fails; what earlier rounds have written is never applied again.
 */
export async function applyInputs(
  database: ChangingDatabase,
  records: readonly JobInputRecord[],
): Promise<Settled<AppliedInput>[]> {
  const answers: Settled<AppliedInput>[] = Array.from(records, () => ({
    value: { ok: false, refusal: "not_found", job: null },
  }));
  let open: NumberedInput[] = records.map((record, index) => ({ record, index }));
  const { clock } = database;
  for (let race = 0; open.length > 0; race += 1) {
    const round = { open, answers };
    try {
      if (race === MAX_RACES) throw new AppError("unavailable", "change job: it changes too fast elsewhere");
      open = await repeating(() => applyRound(database, round), { clock, isIdempotent: false });
    } catch (error) {
      await settleFailure(database, { open, answers, error });
      break;
    }
  }
  return answers;
}

/** One try for all inputs; returns those whose job another server changed meanwhile. */
async function applyRound(
  database: ChangingDatabase,
  round: { open: readonly NumberedInput[]; answers: Settled<AppliedInput>[] },
): Promise<NumberedInput[]> {
  const changes = await decide(database, round.open);
  const lost = await writeSurely(database, [...changes.values()].filter(hasChanged));
  for (const change of changes.values()) {
    if (lost.has(change.after.id)) continue;
    for (const { index, answer } of change.answers) round.answers[index] = answer;
  }
  return round.open.filter(({ record }) => lost.has(record.jobId));
}

async function settleFailure(
  database: ChangingDatabase,
  failed: { open: readonly NumberedInput[]; answers: Settled<AppliedInput>[]; error: unknown },
): Promise<void> {
  const { open, answers, error } = failed;
  const isDivided = open.length > 1 && mayBeOneOfMany(error);
  for (const { record, index } of open) {
    answers[index] = isDivided
      ? ((await applyInputs(database, [record]))[0] as Settled<AppliedInput>)
      : { error };
  }
}

/** What a group does to one job. */
interface DecidedChange {
  readVersion: number;
  after: Job;
  attempt: Attempt | null;
  changedAttempts: Map<string, Attempt>;
  /** Of attempts that ended without a log. */
  emptyLogs: Map<string, SealedLog>;
  events: JobEventRecord[];
  answers: { index: number; answer: Settled<AppliedInput> }[];
}

function hasChanged(change: DecidedChange): boolean {
  return change.events.length > 0;
}

/** Jobs that do not exist are left out. */
async function decide(
  database: ChangingDatabase,
  inputs: readonly NumberedInput[],
): Promise<Map<string, DecidedChange>> {
  const jobIds = inputs.map(({ record }) => record.jobId);
  const { pool, clock } = database;
  const changes = await repeating(() => read(pool, jobIds), { clock, isIdempotent: true });
  for (const { record, index } of inputs) {
    const change = changes.get(record.jobId);
    if (change)
      change.answers.push({ index, answer: settle(() => advance(change, record, database.random)) });
  }
  return changes;
}

/** An input that `changeJob` cannot digest must not take the rest of its group along. */
function settle<T>(work: () => T): Settled<T> {
  try {
    return { value: work() };
  } catch (error) {
    return { error };
  }
}

function advance(change: DecidedChange, record: JobInputRecord, random: Random): AppliedInput {
  const decided = changeJob(change.after, record.input, {
    nowMs: record.nowMs,
    jitter: random.fraction(),
    attempt: change.attempt,
  });
  if (!decided.ok) return decided;
  change.after = decided.job;
  change.events.push(decided.event);
  if (decided.attempt) {
    change.attempt = decided.attempt;
    change.changedAttempts.set(decided.attempt.id, decided.attempt);
    const empty = emptySealedLog(record);
    if (empty) change.emptyLogs.set(empty.attemptId, empty);
  }
  return { ok: true, job: decided.job, event: decided.event };
}

const READ = `
  SELECT ${JOB_COLUMNS.map((column) => `j.${column}`).join(", ")}, a.body AS attempt
  FROM jobs j LEFT JOIN attempts a ON a.id = j.attempt_id
  WHERE j.id = ANY($1::uuid[])`;

async function read(pool: Pool, jobIds: readonly string[]): Promise<Map<string, DecidedChange>> {
  const { rows } = await pool.query<JobRow & { attempt: Attempt | null }>({
    name: "read_for_change",
    text: READ,
    values: [[...new Set(jobIds)]],
  });
  const changes = new Map<string, DecidedChange>();
  for (const row of rows) {
    changes.set(row.id, {
      readVersion: row.version,
      after: jobOfRow(row),
      attempt: row.attempt && attemptOfBody(row.attempt),
      changedAttempts: new Map(),
      emptyLogs: new Map(),
      events: [],
      answers: [],
    });
  }
  return changes;
}

/** The rows are updated in the order of their ids, so that two groups cannot wait for each other. */
const WRITE = `
  WITH locked AS (
    SELECT j.id FROM jobs j JOIN unnest($1::uuid[], $2::bigint[]) AS c (id, read_version)
      ON j.id = c.id AND j.version = c.read_version
    ORDER BY j.id FOR UPDATE OF j
  ), changed AS (
    UPDATE jobs j SET state = c.state, cause = c.cause, waiting_since = c.waiting_since,
      not_before = c.not_before, deadline_at = c.deadline_at, attempt_id = c.attempt_id,
      worker_id = c.worker_id, version = c.version, body = c.body
    FROM locked JOIN ROWS FROM (
        unnest($1::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[],
          $9::uuid[], $10::bigint[]),
        json_array_elements($11::json))
      AS c (id, state, cause, waiting_since, not_before, deadline_at, attempt_id, worker_id, version, body)
      ON c.id = locked.id
    WHERE j.id = locked.id
    RETURNING j.id
  ), stored_attempts AS (
    INSERT INTO attempts (id, job_id, number, worker_id, ended, sealed_log, body)
    SELECT a.id, a.job_id, a.number, a.worker_id, a.ended, a.sealed_log::json, a.body
    FROM ROWS FROM (
        unnest($12::uuid[], $13::uuid[], $14::bigint[], $15::uuid[], $16::boolean[], $21::text[]),
        json_array_elements($17::json))
      AS a (id, job_id, number, worker_id, ended, sealed_log, body) JOIN changed ON changed.id = a.job_id
    ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, body = excluded.body,
      sealed_log = coalesce(excluded.sealed_log, attempts.sealed_log)
  ), stored_events AS (
    INSERT INTO job_events (job_id, sequence, body)
    SELECT e.job_id, e.sequence, e.body
    FROM ROWS FROM (unnest($18::uuid[], $19::bigint[]), json_array_elements($20::json))
      AS e (job_id, sequence, body) JOIN changed ON changed.id = e.job_id
  )
  SELECT id FROM changed`;

/**
 * The ids of those that were not written. When the connection breaks before the answer, the database
 * is asked for the events: only this change has such an event under such a number. Those that it does
 * not have count as not written, and should they be written later after all, by a connection that
 * lives on at the other end, the version keeps them from being applied twice.
 */
async function writeSurely(
  { pool, clock }: ChangingDatabase,
  changes: readonly DecidedChange[],
): Promise<Set<string>> {
  try {
    return await write(pool, changes);
  } catch (error) {
    if (!isConnectionLost(error)) throw error;
    try {
      return await repeating(() => findUnwritten(pool, changes), { clock, isIdempotent: true });
    } catch {
      // It stays away, so the outcome stays unknown: that is the failure to tell.
      throw error;
    }
  }
}

async function findUnwritten(pool: Pool, changes: readonly DecidedChange[]): Promise<Set<string>> {
  const last = changes.map((change) => change.events.at(-1) as JobEventRecord);
  const { rows } = await pool.query<{ body: JobEventRecord }>(
    `SELECT e.body FROM job_events e JOIN unnest($1::uuid[], $2::bigint[]) AS c (job_id, sequence)
      ON e.job_id = c.job_id AND e.sequence = c.sequence`,
    [last.map(({ jobId }) => jobId), last.map(({ sequence }) => sequence)],
  );
  const stored = new Map(rows.map(({ body }) => [body.jobId, body]));
  const unwritten = last.filter((event) => !isDeepStrictEqual(stored.get(event.jobId), event));
  return new Set(unwritten.map(({ jobId }) => jobId));
}

/** The ids of those that were not written because another server changed them first. */
async function write(pool: Pool, changes: readonly DecidedChange[]): Promise<Set<string>> {
  if (changes.length === 0) return new Set();
  const jobs = changes.map(({ after }) => after);
  const attempts = changes.flatMap(({ changedAttempts }) => [...changedAttempts.values()]);
  const emptyLogs = new Map(changes.flatMap((change) => [...change.emptyLogs]));
  const events = changes.flatMap((change) => change.events);
  const { rows } = await pool.query<{ id: string }>({
    name: "write_changes",
    text: WRITE,
    values: [
      jobs.map(({ id }) => id),
      changes.map(({ readVersion }) => readVersion),
      ...jobColumns(jobs),
      ...attemptColumns(attempts),
      events.map(({ jobId }) => jobId),
      events.map(({ sequence }) => sequence),
      jsonList(events.map((event) => JSON.stringify(event))),
      attempts.map(({ id }) => emptyLogs.get(id) ?? null).map((log) => log && JSON.stringify(log)),
    ],
  });
  const lost = new Set(jobs.map(({ id }) => id));
  for (const { id } of rows) lost.delete(id);
  return lost;
}

function jobColumns(jobs: readonly Job[]): unknown[] {
  return [
    jobs.map(({ state }) => state),
    jobs.map(({ cause }) => cause),
    jobs.map(({ state, pendingSinceMs }) => (state === "pending" ? pendingSinceMs : null)),
    jobs.map(({ notBeforeMs }) => notBeforeMs),
    jobs.map(({ deadlineAtMs }) => deadlineAtMs),
    jobs.map(({ attemptId }) => attemptId),
    jobs.map(({ workerId }) => workerId),
    jobs.map(({ version }) => version),
    jsonList(jobs.map(bodyOfJob)),
  ];
}

function attemptColumns(attempts: readonly Attempt[]): unknown[] {
  return [
    attempts.map(({ id }) => id),
    attempts.map(({ jobId }) => jobId),
    attempts.map(({ number }) => number),
    attempts.map(({ workerId }) => workerId),
    attempts.map(({ state }) => isFinal(state)),
    jsonList(attempts.map((attempt) => JSON.stringify(attempt))),
  ];
}
