import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { sql } from "kysely";
import { systemClock, type Clock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger, type Logger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom } from "../../base/random.ts";
import { T0, newId, newJobOf } from "../conformance/samples.ts";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../embedded-postgres.ts";
import { readPidFile } from "../embedded/postmaster.ts";
import type { Store } from "../store.ts";
import { openDatabase } from "./database.ts";
import { openPostgresStore } from "./open-postgres-store.ts";
import { PATIENCE_MS, repeating } from "./repeat.ts";

describe("a store whose database goes away", () => {
  const directory = mkdtempSync(join(tmpdir(), "hodei-outage-"));
  chmodSync(directory, 0o755);
  let postgres: EmbeddedPostgres;
  let store: Store;
  const warnings: unknown[] = [];
  const log: Logger = { ...silentLogger, warn: (...line: unknown[]) => void warnings.push(line) };

  before(async () => {
    postgres = await startEmbeddedPostgres({
      directory,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    store = await openStore(0.1);
  });
  after(async () => {
    await store.close();
    await postgres.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Its patience ends sooner or later than a person's: a busy machine may need long for a restart. */
  function openStore(speed: number): Promise<Store> {
    const clock: Clock = { ...systemClock, monotonicMs: () => speed * systemClock.monotonicMs() };
    return openPostgresStore({ connection: postgres.connection, clock, random: systemRandom, log });
  }

  function kill(): void {
    const pid = readPidFile(join(directory, "postgres", "data"))?.pid;
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
  }

  test("calls wait for an embedded database that is started again, and each takes effect once", async () => {
    const kept = newJobOf();
    await store.insertJobs([kept]);
    for (let kills = 0; kills < 3; kills += 1) {
      // So many that the kill finds some of them under way and others waiting.
      const added = Array.from({ length: 200 }, () => newJobOf());
      const calls = added.map((job) => store.insertJobs([job]));
      const large = Array.from({ length: 200 }, () => newJobOf());
      calls.push(store.insertJobs(large));
      const reads = Array.from({ length: 20 }, () => store.getJob(kept.id));
      kill();
      const inserted = (await Promise.all(calls)).flat();
      assert.deepEqual(
        inserted.map(({ jobId }) => jobId),
        [...added, ...large].map(({ id }) => id),
      );
      for (const job of await Promise.all(reads)) assert.equal(job?.id, kept.id);
      for (const { id } of [...added, ...large]) assert.equal((await store.getJob(id))?.version, 1);
    }
  });

  test("inputs that were under way take effect once, and their callers are told so", async () => {
    const jobs = Array.from({ length: 200 }, () => newJobOf());
    await store.insertJobs(jobs);
    const attempts = jobs.map(() => newId());
    const applying = Promise.all(
      jobs.map(({ id: jobId }, index) => {
        const input = { type: "assign", attemptId: attempts[index] ?? "", workerId: newId() } as const;
        return store.applyInput({ jobId, input, nowMs: T0 });
      }),
    );
    kill();
    for (const [index, applied] of (await applying).entries()) {
      const id = jobs[index]?.id ?? "";
      assert.equal(applied.ok && applied.job.attemptId, attempts[index]);
      assert.equal((await store.listEvents(id, 1)).length, 1);
      assert.deepEqual(
        (await store.listAttempts(id)).map((attempt) => attempt.id),
        [attempts[index]],
      );
    }
  });

  test("calls to a database that stays away say that it cannot be reached, and the log says it once", async () => {
    const added = newJobOf();
    await store.insertJobs([added]);
    const hasty = await openStore(50);
    await hasty.ping();
    await store.close();
    warnings.length = 0;
    await postgres.stop();
    await assert.rejects(hasty.ping(), { code: "unavailable" });
    const settled = await Promise.allSettled([
      hasty.getJob(added.id),
      hasty.insertJobs([newJobOf()]),
      hasty.listWorkers({ includeTerminated: true }, { limit: 1, cursor: null }),
    ]);
    for (const answer of settled) {
      assert.equal(answer.status, "rejected");
      const { code, message } = answer.reason as { code: string; message: string };
      assert.equal(code, "unavailable");
      assert.match(
        message,
        /^(read job|insert jobs|list workers): the database cannot be reached now, try again/,
      );
    }
    assert.equal(warnings.length, 1);
    await hasty.close();
    postgres = await startEmbeddedPostgres({
      directory,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    store = await openStore(0.1);
    assert.equal((await store.getJob(added.id))?.id, added.id);
  });

  test("a connection whose statement had no answer in time is closed, and not lent out again", async () => {
    const { connection } = postgres;
    const options = { poolSize: 1, clock: systemClock, log: silentLogger, queryTimeoutMs: 100 };
    const { db, pool } = openDatabase(connection, options);
    const pids = () => sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.execute(db);
    const [first] = (await pids()).rows;
    await assert.rejects(sql`SELECT pg_sleep(20)`.execute(db), /timeout/);
    const [second] = (await pids()).rows;
    assert.notEqual(first?.pid, second?.pid);
    // A statement that is merely wrong costs no connection.
    await assert.rejects(sql`SELECT nonsense`.execute(db), /nonsense/);
    assert.equal((await pids()).rows[0]?.pid, second?.pid);
    await pool.end();
  });
});

describe("repeating", () => {
  const failure = (code: string | undefined, message = "") => Object.assign(new Error(message), { code });
  const clock = systemClock;

  async function triesFor(thrown: Error, isIdempotent: boolean): Promise<number> {
    let tries = 0;
    const work = async (): Promise<void> => {
      tries += 1;
      if (tries < 3) throw thrown;
    };
    const [settled] = await Promise.allSettled([repeating(work, { clock, isIdempotent })]);
    assert.equal(settled.status === "rejected" ? settled.reason : thrown, thrown);
    return tries;
  }

  test("what had no effect is repeated, whatever it is", async () => {
    for (const code of ["ECONNREFUSED", "ENOENT", "57P03", "40P01"]) {
      assert.equal(await triesFor(failure(code), false), 3, code);
    }
  });

  test("what may have had an effect is repeated only if a second one does no harm", async () => {
    const errors = [
      failure("57P01"),
      failure("ECONNRESET"),
      failure(undefined, "Connection terminated unexpectedly"),
    ];
    for (const error of errors) {
      assert.equal(await triesFor(error, false), 1, error.message);
      assert.equal(await triesFor(error, true), 3, error.message);
    }
  });

  test("patience ends after its time", async () => {
    const manual = new ManualClock(0);
    let tries = 0;
    const work = async (): Promise<void> => {
      tries += 1;
      throw failure("ECONNREFUSED");
    };
    let isGivenUp = false;
    const repeated = repeating(work, { clock: manual, isIdempotent: true }).catch(() => (isGivenUp = true));
    await eventually(
      () => {
        if (!isGivenUp) manual.advance(10);
        return isGivenUp;
      },
      { intervalMs: 1 },
    );
    await repeated;
    assert.ok(tries > 10 && tries < 20, `${tries} tries`);
    assert.ok(manual.nowMs() <= PATIENCE_MS);
  });

  test("what would fail again, or has taken its time already, is not repeated", async () => {
    for (const error of [failure("23505"), failure("42703"), failure(undefined, "Query read timeout")]) {
      assert.equal(await triesFor(error, true), 1, error.message);
    }
  });
});

describe("a database behind a connection that nobody answers", () => {
  let server: Server;
  before(async () => {
    server = createServer((socket) => socket.resume().on("error", () => {}));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  after(() => server.close());

  test("is given up after the time for a connection", async () => {
    const address = server.address();
    assert.ok(typeof address === "object" && address);
    const connection = { host: "127.0.0.1", port: address.port, user: "hodei", database: "hodei" };
    const { pool } = openDatabase(connection, { poolSize: 1, clock: systemClock, log: silentLogger });
    await assert.rejects(pool.query("SELECT 1"), /timeout/i);
    await pool.end();
  });
});
