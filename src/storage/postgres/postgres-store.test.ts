import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client } from "pg";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { newJobOf } from "../conformance/samples.ts";
import { isProcessAlive, readPidFile } from "../embedded/postmaster.ts";
import { storeConformance } from "../store-conformance.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { openPostgresStore } from "./open-postgres-store.ts";

const open = (database: TestDatabase) =>
  openPostgresStore({
    connection: database.connection,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });

storeConformance("postgres", async () => {
  const database = await openTestDatabase();
  // Both at once on an empty database: one migrates, the other waits for it.
  const [store, second] = await Promise.all([open(database), open(database)]);
  return {
    store,
    second,
    async close() {
      await Promise.all([store.close(), second.close()]);
      await database.close();
    },
  };
});

describe("postgres store and its server", () => {
  let database: TestDatabase;
  before(async () => {
    database = await openTestDatabase();
  });
  after(() => database.close());
  const query = async (text: string) => {
    const client = new Client(database.connection);
    await client.connect();
    try {
      return (await client.query(text)).rows as Record<string, unknown>[];
    } finally {
      await client.end();
    }
  };

  test("a store survives that its connections are cut, and data are kept when it is opened again", async () => {
    const store = await open(database);
    const added = newJobOf();
    await store.insertJobs([added]);
    await Promise.all([store.ping(), store.ping(), store.ping()]);
    await query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hodei'");
    // Each cut connection may cost a call until the pool has noticed all of them; none costs more.
    const answer = await eventually(async () => {
      const [settled] = await Promise.allSettled([store.getJob(added.id)]);
      if (settled.status === "fulfilled") return settled.value;
      assert.equal((settled.reason as { code: string }).code, "unavailable");
      return null;
    });
    assert.equal(answer.id, added.id);
    await store.close();
    const again = await open(database);
    assert.equal((await again.getJob(added.id))?.id, added.id);
    await again.close();
  });

  test("a bad job in a group fails alone", async () => {
    const store = await open(database);
    const bad = newJobOf({ priority: Number.NaN });
    const good = Array.from({ length: 5 }, () => newJobOf());
    const [failed, ...others] = await Promise.allSettled(
      [bad, ...good].map((job) => store.insertJobs([job])),
    );
    assert.equal(failed?.status, "rejected");
    assert.ok(others.every(({ status }) => status === "fulfilled"));
    const inputs = [Number.NaN, 5, 6].map((heardAtMs, index) => ({
      heardAtMs,
      jobId: good[index]?.id ?? "",
    }));
    const attempts = await Promise.all(
      inputs.map(async ({ jobId }) => {
        const attemptId = newJobOf().id;
        await store.applyInput({
          jobId,
          nowMs: 1_800_000_000_000,
          input: { type: "assign", attemptId, workerId: attemptId },
        });
        return attemptId;
      }),
    );
    const applied = await Promise.allSettled(
      inputs.map(({ jobId, heardAtMs }, index) =>
        store.applyInput({
          jobId,
          nowMs: 0,
          input: { type: "disconnect", attemptId: attempts[index] ?? "", heardAtMs },
        }),
      ),
    );
    assert.deepEqual(
      applied.map(({ status }) => status),
      ["rejected", "fulfilled", "fulfilled"],
    );
    assert.equal((await store.getJob(inputs[0]?.jobId ?? ""))?.state, "scheduled");
    assert.equal((await store.getJob(inputs[1]?.jobId ?? ""))?.state, "unreachable");
    await store.close();
  });

  test("a closed store says so, and closing twice does no harm", async () => {
    const store = await open(database);
    const added = newJobOf();
    const last = store.insertJobs([added]);
    await Promise.all([store.close(), store.close()]);
    assert.deepEqual(await last, [{ jobId: added.id, created: true }]);
    await assert.rejects(store.ping(), { code: "unavailable" });
    await assert.rejects(
      store.applyInput({ jobId: added.id, input: { type: "cancel", reason: "" }, nowMs: 0 }),
      {
        code: "unavailable",
      },
    );
  });

  test("a server that cannot be reached is unavailable", async () => {
    const connection = { host: "/nonexistent", port: 5432, user: "hodei", database: "hodei" };
    const opening = openPostgresStore({
      connection,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    await assert.rejects(opening, { code: "unavailable" });
  });

  test("a database that a newer version migrated is refused by name of the migration", async () => {
    await query("INSERT INTO kysely_migration (name, timestamp) VALUES ('9999_future', 'x')");
    await assert.rejects(open(database), {
      code: "failed_precondition",
      message: /newer version of Hodei \(9999_future/,
    });
    await query("DELETE FROM kysely_migration WHERE name = '9999_future'");
    await (await open(database)).close();
  });
});

test("the database of a test run that was killed is removed by the next one", async () => {
  if (process.env["HODEI_TEST_DATABASE_URL"]) return;
  const module = JSON.stringify(new URL("../test-database.js", import.meta.url).href);
  const script = `
    import { openTestDatabase } from ${module};
    const { connection } = await openTestDatabase();
    console.log(connection.host);
    process.kill(process.pid, "SIGKILL");
  `;
  const killed = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  const directory = dirname(dirname(killed.stdout.trim()));
  const pid = readPidFile(join(directory, "postgres", "data"))?.pid;
  assert.ok(pid !== undefined && isProcessAlive(pid));
  await (await openTestDatabase()).close();
  assert.equal(isProcessAlive(pid), false);
  assert.equal(existsSync(directory), false);
});
