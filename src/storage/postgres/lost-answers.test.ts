import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import type { Job } from "../../core/job.ts";
import { newId, newJobOf, T0 } from "../conformance/samples.ts";
import type { Store } from "../store.ts";
import { openTestDatabase, type TestDatabase } from "../test-database.ts";
import { openPostgresStore } from "./open-postgres-store.ts";

/** When a connection is cut: before the statement arrives, or when its answer comes back. */
type Cut = { statement: string; when: "before" | "after" } | null;

describe("a connection that breaks while a change is written", () => {
  const directory = mkdtempSync(join(tmpdir(), "hodei-cut-"));
  let database: TestDatabase;
  let proxy: Server;
  let store: Store;
  let cut: Cut = null;
  let cuts = 0;

  before(async () => {
    database = await openTestDatabase();
    proxy = createServer((client) => relay(client));
    proxy.listen(join(directory, ".s.PGSQL.5432"));
    await once(proxy, "listening");
    const connection = throughProxy();
    store = await openPostgresStore({
      connection,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
  });
  after(async () => {
    await store.close();
    proxy.close();
    await database.close();
    rmSync(directory, { recursive: true, force: true });
  });

  function throughProxy() {
    const { connection } = database;
    if (!("connectionString" in connection)) return { ...connection, host: directory };
    const { username, password, pathname } = new URL(connection.connectionString);
    return { host: directory, port: 5432, user: username, password, database: pathname.slice(1) };
  }

  function dial(): Socket {
    const { connection } = database;
    if (!("connectionString" in connection)) return connect(join(connection.host, ".s.PGSQL.5432"));
    const { hostname, port } = new URL(connection.connectionString);
    return connect(Number(port || 5432), hostname);
  }

  function relay(client: Socket): void {
    const server = dial();
    let isAnswerUnwanted = false;
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.on("error", end).on("close", end);
    client.on("data", (data) => {
      if (cut !== null && data.includes(cut.statement)) {
        isAnswerUnwanted = cut.when === "after";
        cut = null;
        cuts += 1;
        if (!isAnswerUnwanted) return end();
      }
      server.write(data);
    });
    server.on("data", (data) => {
      if (isAnswerUnwanted) return end();
      client.write(data);
    });
  }

  async function assigned(): Promise<{ jobId: string; attemptId: string }> {
    const job = newJobOf();
    const attemptId = newId();
    await store.insertJobs([job]);
    await apply(job.id, { type: "assign", attemptId, workerId: newId() });
    return { jobId: job.id, attemptId };
  }

  async function apply(jobId: string, input: Parameters<Store["applyInput"]>[0]["input"]): Promise<Job> {
    const applied = await store.applyInput({ jobId, input, nowMs: T0 + 1 });
    assert.equal(applied.ok, true);
    assert.ok(applied.job);
    return applied.job;
  }

  for (const when of ["before", "after"] as const) {
    test(`cut ${when} the statement took effect, it has taken effect once when the call is answered`, async () => {
      const { jobId, attemptId } = await assigned();
      const cutsSoFar = cuts;
      cut = { statement: "write_changes", when };
      const job = await apply(jobId, { type: "start", attemptId, startedAtMs: T0 });
      assert.equal(cuts, cutsSoFar + 1);
      assert.deepEqual([job.state, job.version], ["running", 3]);
      assert.deepEqual(await store.getJob(jobId), job);
      assert.deepEqual(
        (await store.listEvents(jobId, 0)).map(({ type }) => type),
        ["queued", "assigned", "started"],
      );
    });

    test(`of a group cut ${when} it took effect, each input is answered by itself`, async () => {
      const jobs = await Promise.all(Array.from({ length: 20 }, () => assigned()));
      cut = { statement: "write_changes", when };
      const changed = await Promise.all(
        jobs.map(({ jobId }, index) =>
          store.applyInput({ jobId, input: { type: "cancel", reason: `${index}` }, nowMs: T0 + 2 }),
        ),
      );
      assert.equal(cut, null);
      for (const [index, applied] of changed.entries()) {
        assert.equal(applied.ok, true);
        assert.equal(applied.job?.cancelReason, `${index}`);
        assert.equal(applied.job?.version, 3);
      }
    });

    test(`a submission cut ${when} it took effect is stored once`, async () => {
      const job = newJobOf();
      cut = { statement: "insert_jobs", when };
      const [inserted] = await store.insertJobs([job]);
      assert.equal(cut, null);
      assert.equal(inserted?.jobId, job.id);
      assert.equal((await store.getJob(job.id))?.version, 1);
    });
  }

  test("a read whose connection breaks is repeated", async () => {
    const { jobId } = await assigned();
    cut = { statement: "read_for_change", when: "after" };
    assert.equal((await apply(jobId, { type: "cancel", reason: "" })).state, "cancelling");
    assert.equal(cut, null);
  });
});
