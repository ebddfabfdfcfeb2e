import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client } from "pg";
import type { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom } from "../../base/random.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { takeServingLock } from "./serving-lock.ts";

const OURS = `locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

describe("the lock of a database", () => {
  let database: TestDatabase;
  before(async () => {
    database = await openTestDatabase();
  });
  after(() => database.close());

  /** A server's lock on a clock that the test turns. */
  function serverOn(clock = new ManualClock()) {
    const lost: AppError[] = [];
    const options = { connection: database.connection, clock, random: systemRandom, log: silentLogger };
    const taking = takeServingLock({ ...options, onLost: (error) => lost.push(error) });
    /** Lets time go on until the promise has settled. */
    const settled = async <T>(promise: Promise<T>): Promise<T> => {
      let isOver = false;
      const over = promise.finally(() => (isOver = true));
      over.catch(() => {});
      await eventually(() => {
        clock.advance(500);
        return isOver;
      });
      return over;
    };
    return { clock, lost, taking, settled };
  }

  async function breakSessions(): Promise<void> {
    const client = new Client(database.connection);
    await client.connect();
    await client.query(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE ${OURS}`);
    await client.end();
  }

  test("a second server is refused, and one that comes after the end of the first is not", async () => {
    const first = await serverOn().taking;
    const second = serverOn();
    await assert.rejects(second.settled(second.taking), {
      code: "failed_precondition",
      message: /another hodei server serves it/,
    });
    await first.stop();
    const third = await serverOn().taking;
    await third.stop();
  });

  test("a second server waits for the end of the first", async () => {
    const first = await serverOn().taking;
    const second = serverOn();
    await first.stop();
    await (await second.settled(second.taking)).stop();
  });

  test("a session that breaks is opened again, and the lock is held again", async () => {
    const server = serverOn();
    const lock = await server.taking;
    await breakSessions();
    await eventually(async () => {
      server.clock.advance(10_000);
      const client = new Client(database.connection);
      await client.connect();
      const { rows } = await client.query(`SELECT 1 FROM pg_locks WHERE ${OURS}`);
      await client.end();
      return rows.length > 0;
    });
    assert.deepEqual(server.lost, []);
    await lock.stop();
  });

  test("a server that finds another one in its place after a break says so", async () => {
    const server = serverOn();
    const lock = await server.taking;
    await breakSessions();
    const other = await serverOn(new ManualClock()).taking;
    await eventually(() => {
      server.clock.advance(1_000);
      return server.lost.length > 0;
    });
    assert.equal(server.lost[0]?.code, "failed_precondition");
    await lock.stop();
    await other.stop();
  });
});
