import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client } from "pg";
import { systemClock, type Clock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { waitKey } from "../../core/plan.ts";
import { poolWith } from "../../core/pool.ts";
import { newId, newJobOf, submit, T0 } from "../conformance/samples.ts";
import { isProcessAlive, readPidFile } from "../embedded/postmaster.ts";
import { storeConformance } from "../store-conformance.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { openPostgresStore } from "./open-postgres-store.ts";

const openStore = (database: TestDatabase, clock: Clock) =>
  openPostgresStore({ connection: database.connection, clock, random: systemRandom, log: silentLogger });
const open = (database: TestDatabase) => openStore(database, systemClock);

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

  test("after an upgrade the workers that ephemeral pools have take one job only", async () => {
    const store = await open(database);
    const made = ["ephemeral", "lasting"].map((pool) => ({ id: newId(), pool }));
    const [one, many] = made.map(({ id }) => id);
    await store.putPools(
      ["ephemeral", "lasting"].map((name) =>
        poolWith({ name, provider: { type: "process" }, ephemeral: name === "ephemeral" }),
      ),
      T0,
    );
    for (const { id, pool } of made)
      await store.insertWorker({ id, name: "w", provider: "process", pool, nowMs: T0, token: null });
    await store.close();
    await query("ALTER TABLE workers DROP COLUMN takes_one_job");
    await query("DELETE FROM kysely_migration WHERE name = '0003_workers_for_one_job'");
    const again = await open(database);
    const takesOneJob = async (id = "") => (await again.getWorker(id))?.takesOneJob;
    assert.deepEqual([await takesOneJob(one), await takesOneJob(many)], [true, false]);
    await again.close();
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

describe("postgres store and reasons to wait", () => {
  let database: TestDatabase;
  before(async () => {
    database = await openTestDatabase();
  });
  after(() => database.close());
  const storedKeys = async () => {
    const client = new Client(database.connection);
    await client.connect();
    try {
      const { rows } = await client.query<{ key: string }>("SELECT placement_key AS key FROM wait_reasons");
      return rows.map(({ key }) => key).toSorted();
    } finally {
      await client.end();
    }
  };

  test("those of keys that no waiting job has are forgotten now and then, and at the next start", async () => {
    let monotonicMs = 0;
    const clock = { ...systemClock, monotonicMs: () => monotonicMs };
    const store = await openStore(database, clock);
    const [queue, key] = ["some", "deploy"];
    await submit(store, { queue, concurrency: { key, limit: 1 } });
    const [job] = await store.listPending(PENDING_QUERY);
    const placementKey = job?.placementKey ?? "";
    const used = [placementKey, waitKey.queue(queue), waitKey.concurrency(key)];
    const unused = ["[1,2,3,4,[]]", waitKey.queue(key), waitKey.concurrency(queue)];
    const reasons = new Map([...used, ...unused].map((each) => [each, "because"]));
    await store.setWaitReasons(reasons);
    assert.deepEqual(await storedKeys(), [...used, ...unused].toSorted());
    monotonicMs += 60 * 60_000;
    await store.setWaitReasons(reasons);
    assert.deepEqual(await storedKeys(), used.toSorted());
    await store.setWaitReasons(reasons);
    assert.deepEqual(await storedKeys(), [...used, ...unused].toSorted());
    await store.close();

    const next = await openStore(database, systemClock);
    // Whether a queue or a concurrency key is still held up only the new server knows.
    assert.deepEqual(await storedKeys(), [placementKey]);
    await next.close();
  });
});

const PENDING_QUERY = {
  nowMs: T0,
  perQueue: 10,
  withoutKeys: [],
  withoutQueues: [],
  withoutConcurrencyKeys: [],
};

test("the database of a test run that was killed is removed by the next one", async (t) => {
  if (process.env["HODEI_TEST_DATABASE_URL"]) return;
  // Of its own: test files that run beside this one look for databases to remove, too.
  const temporary = mkdtempSync(join(tmpdir(), "hodei-killed-"));
  chmodSync(temporary, 0o755);
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = temporary;
  t.after(() => {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
    rmSync(temporary, { recursive: true, force: true });
  });
  const module = JSON.stringify(new URL("../test-database.js", import.meta.url).href);
  const script = `
    import { openTestDatabase } from ${module};
    await openTestDatabase();
    process.kill(process.pid, "SIGKILL");
  `;
  spawnSync(process.execPath, ["--input-type=module", "-e", script]);
  const [name = ""] = readdirSync(temporary).filter((entry) => entry.startsWith("hodei-db-"));
  const directory = join(temporary, name);
  const pid = readPidFile(join(directory, "postgres", "data"))?.pid;
  assert.ok(pid !== undefined && isProcessAlive(pid));
  await (await openTestDatabase()).close();
  assert.equal(isProcessAlive(pid), false);
  assert.equal(existsSync(directory), false);
});
