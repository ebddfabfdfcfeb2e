import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Kysely, Migrator, PostgresDialect } from "kysely";
import { Pool } from "pg";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { placementKey } from "../../core/placement.ts";
import { definitionOf, newId, resultOf, submit, T0 } from "../conformance/samples.ts";
import { openPostgresStore } from "../postgres/open-postgres-store.ts";
import type { Store } from "../store.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { initial } from "./0001-initial.ts";

const [PENDING, RUNNING, ATTEMPT, WORKER] = [newId(), newId(), newId(), newId()];
const DEFINITION = definitionOf({ selector: { os: "linux" }, queue: "old" });

describe("a database of the first version, with data in it", () => {
  let database: TestDatabase;
  let store: Store;
  before(async () => {
    database = await openTestDatabase();
    await fillFirstVersion(database);
    store = await openPostgresStore({
      connection: database.connection,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
  });
  after(async () => {
    await store?.close();
    await database.close();
  });

  test("its jobs have the defaults of what their definitions lack, and wait with their reason", async () => {
    const job = await store.getJob(PENDING);
    assert.deepEqual(job?.definition, DEFINITION);
    assert.equal(job?.message, "no worker");
    const query = { nowMs: T0, perQueue: 10, withoutKeys: [], withoutQueues: [], withoutConcurrencyKeys: [] };
    const listed = await store.listPending(query);
    assert.deepEqual(
      listed.map(({ id, queue, concurrency, placement }) => ({ id, queue, concurrency, placement })),
      [
        {
          id: PENDING,
          queue: "old",
          concurrency: null,
          placement: {
            resources: DEFINITION.resources,
            selector: { os: "linux" },
            selectorExpressions: [],
            tolerations: [],
            capabilities: [],
            preferences: [],
            preemptible: false,
          },
        },
      ],
    );
    assert.deepEqual(await store.listActive(), [
      { jobId: RUNNING, queue: "old", concurrencyKey: null, version: 3 },
    ]);
  });

  test("its attempts waited since they were placed, and can be finished", async () => {
    const attempts = [
      await store.getAttempt(ATTEMPT),
      (await store.listAttempts(RUNNING))[0],
      (await store.latestAttempts([RUNNING])).get(RUNNING),
      (await store.listLiveAttempts(WORKER))[0]?.attempt,
    ];
    for (const attempt of attempts) assert.deepEqual([attempt?.queuedAtMs, attempt?.runnerId], [T0 + 3, ""]);
    const finish = { type: "finish", attemptId: ATTEMPT, result: resultOf() } as const;
    const applied = await store.applyInput({ jobId: RUNNING, input: finish, nowMs: T0 + 50 });
    assert.ok(applied.ok);
    assert.equal((await store.listUnsealed(10))[0]?.queuedAtMs, T0 + 3);
  });

  test("its workers are not cordoned and were made by nobody, and can be cordoned", async () => {
    const worker = await store.getWorker(WORKER);
    assert.deepEqual([worker?.state, worker?.cordoned, worker?.madeAtMs], ["ready", false, null]);
    await store.changeWorker({ workerId: WORKER, cordoned: true, madeAtMs: T0 });
    const changed = await store.getWorker(WORKER);
    assert.deepEqual([changed?.state, changed?.cordoned, changed?.madeAtMs], ["ready", true, T0]);
  });

  test("it takes pools, queues and new jobs", async () => {
    assert.deepEqual(await store.listPools(), []);
    assert.deepEqual(await store.listQueues(), []);
    await submit(store, { queue: "new", concurrency: { key: "k", limit: 1 } });
    assert.deepEqual(
      (await store.listBacklogs()).map(({ queue }) => queue),
      ["new", "old"],
    );
  });
});

/** What definitions have got since. */
const LATER = [
  "selectorExpressions",
  "tolerations",
  "capabilities",
  "preferences",
  "concurrency",
  "preemptible",
];

/** As the first version wrote it: definitions and attempts without what came later. */
async function fillFirstVersion({ connection }: TestDatabase): Promise<void> {
  const pool = new Pool(connection);
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  const provider = { getMigrations: () => Promise.resolve({ "0001_initial": initial }) };
  const { error } = await new Migrator({ db, provider }).migrateToLatest();
  assert.equal(error, undefined);
  const key = placementKey(DEFINITION);
  const definition = Object.fromEntries(Object.entries(DEFINITION).filter(([key]) => !LATER.includes(key)));
  const columns = `id, state, queue, name, placement_key, priority, created_at, waiting_since, not_before,
    deadline_at, attempt_id, worker_id, version, definition`;
  await pool.query(
    `INSERT INTO jobs (${columns}) VALUES
      ($1, 'pending', 'old', 'build', $5, 0, $6, $6, $6, $8, NULL, NULL, 1, $7),
      ($2, 'running', 'old', 'build', $5, 0, $6, NULL, $6, $8, $3, $4, 3, $7)`,
    [PENDING, RUNNING, ATTEMPT, WORKER, key, T0, JSON.stringify(definition), T0 + 1_000],
  );
  const attempt = { id: ATTEMPT, jobId: RUNNING, number: 1, workerId: WORKER, state: "running" };
  const rest = {
    cause: null,
    message: "",
    scheduledAtMs: T0 + 3,
    startedAtMs: T0 + 4,
    steps: [],
    logBytes: 0,
  };
  await pool.query(
    "INSERT INTO attempts (id, job_id, number, worker_id, ended, body) VALUES ($1, $2, 1, $3, false, $4)",
    [ATTEMPT, RUNNING, WORKER, JSON.stringify({ ...attempt, ...rest })],
  );
  await pool.query(
    "INSERT INTO workers (id, name, state, provider, pool, created_at) VALUES ($1, 'w', 'ready', 'fake', 'p', $2)",
    [WORKER, T0],
  );
  await pool.query(
    "INSERT INTO wait_reasons (key_hash, placement_key, reason) VALUES (sha256(convert_to($1, 'UTF8')), $1, 'no worker')",
    [key],
  );
  await db.destroy();
}
