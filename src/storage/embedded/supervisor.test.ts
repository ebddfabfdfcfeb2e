import assert from "node:assert/strict";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, test } from "node:test";
import { Client } from "pg";
import { systemClock, type Clock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger, type Logger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../embedded-postgres.ts";
import { isPostmaster, readPidFile } from "./postmaster.ts";

describe("the supervision of the embedded database", { skip: process.platform !== "linux" }, () => {
  const directory = mkdtempSync(join(tmpdir(), "hodei-supervised-"));
  chmodSync(directory, 0o755);
  const data = join(directory, "postgres", "data");
  let postgres: EmbeddedPostgres;
  let warnings: string[];
  let watches: number;

  async function start(): Promise<EmbeddedPostgres> {
    const log: Logger = { ...silentLogger, warn: (_fields: unknown, message?: string) => note(message) };
    return startEmbeddedPostgres({ directory, clock: countingClock, random: systemRandom, log });
  }
  function note(message: string | undefined): void {
    warnings.push(message ?? "");
  }
  /** Counts how often the supervisor has looked: nobody else sleeps while the database runs. */
  const countingClock: Clock = {
    ...systemClock,
    sleep(delayMs, signal) {
      watches += 1;
      return systemClock.sleep(delayMs, signal);
    },
  };

  beforeEach(async () => {
    warnings = [];
    watches = 0;
    postgres = await start();
  });
  afterEach(() => postgres.stop());
  after(() => rmSync(directory, { recursive: true, force: true }));

  async function query(text: string): Promise<unknown[]> {
    const client = new Client(postgres.connection);
    // A connection that breaks also fails its query.
    client.on("error", () => {});
    try {
      await client.connect();
      return (await client.query({ text, rowMode: "array" })).rows.flat();
    } finally {
      await client.end().catch(() => {
        // It broke, which is what these tests are about.
      });
    }
  }

  function postmaster(): number {
    const pid = readPidFile(data)?.pid;
    assert.ok(pid !== undefined, "there is no postmaster.pid");
    return pid;
  }

  const answers = () =>
    eventually(
      () =>
        query("SELECT 1").then(
          (rows) => rows[0] === 1,
          () => false,
        ),
      { timeoutMs: 30_000, what: "an answer" },
    );

  test("one that is killed is started again at the same place, with what was committed", async () => {
    await query("CREATE TABLE kept AS SELECT 42 AS x");
    const killed = postmaster();
    process.kill(killed, "SIGKILL");
    await eventually(() => postgres.problem() !== null, { what: "the notice" });
    assert.match(postgres.problem() ?? "", /has ended and is being started again/);
    await answers();
    assert.deepEqual(await query("SELECT x FROM kept"), [42]);
    assert.notEqual(postmaster(), killed);
    await eventually(() => postgres.problem() === null);
    assert.deepEqual(warnings, [
      "embedded database has ended, starting it again",
      "embedded database runs again",
    ]);
    await query("DROP TABLE kept");
  });

  test("one that is killed while it recovers is started again", async () => {
    const killed = new Set<number>();
    for (let kills = 0; kills < 5; kills += 1) {
      const pid = await eventually(
        () => {
          const file = readPidFile(data);
          return file && !killed.has(file.pid) && isPostmaster(file.pid, data) ? file.pid : null;
        },
        { timeoutMs: 30_000, intervalMs: 1, what: "the next postmaster" },
      );
      process.kill(pid, "SIGKILL");
      killed.add(pid);
    }
    await answers();
    assert.equal(killed.size, 5);
  });

  test("a stop in the middle of a restart leaves nothing that runs", async () => {
    const moments = [
      () => true,
      () => postgres.problem() !== null,
      (killed: number) => readPidFile(data)?.pid !== killed,
      (killed: number) => readPidFile(data)?.pid !== killed && readPidFile(data)?.isReady === true,
    ];
    for (const [index, moment] of moments.entries()) {
      const killed = postmaster();
      process.kill(killed, "SIGKILL");
      await eventually(() => moment(killed), { intervalMs: 1, what: `moment ${index}` });
      await postgres.stop();
      await eventually(() => processesIn(data).length === 0, { what: `the last process, moment ${index}` });
      postgres = await start();
      assert.equal(postgres.adopted, false, `moment ${index}`);
    }
  });

  test("one that does not start is tried again without a line per try, and says why", async () => {
    const settings = join(data, "postgresql.conf");
    const before = readFileSync(settings, "utf8");
    writeFileSync(settings, `${before}\nwork_mem = nonsense\n`);
    try {
      process.kill(postmaster(), "SIGKILL");
      await eventually(() => postgres.problem()?.includes("work_mem"), { what: "the reason" });
      const tries = () => readFileSync(join(directory, "postgres", "postgres.log"), "utf8").split("work_mem");
      const triesSoFar = tries().length;
      await eventually(() => tries().length >= triesSoFar + 2, { timeoutMs: 20_000, what: "more tries" });
    } finally {
      writeFileSync(settings, before);
    }
    await eventually(() => postgres.problem() === null, { timeoutMs: 20_000, what: "the start" });
    assert.deepEqual(warnings, [
      "embedded database has ended, starting it again",
      "embedded database does not start, trying again",
      "embedded database runs again",
    ]);
    assert.deepEqual(await query("SELECT 1"), [1]);
  });

  test("one that is stopped for a while is left alone", async () => {
    const pid = postmaster();
    process.kill(pid, "SIGSTOP");
    try {
      const watchesSoFar = watches;
      await eventually(() => watches >= watchesSoFar + 3, { what: "three looks" });
      assert.equal(postmaster(), pid);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    assert.deepEqual(await query("SELECT 1"), [1]);
    assert.deepEqual(warnings, []);
  });

  test("two servers that share it start it once, and only the last to stop ends it", async () => {
    const second = await start();
    process.kill(postmaster(), "SIGKILL");
    await eventually(() => warnings.filter((line) => line.endsWith("runs again")).length === 2, {
      timeoutMs: 30_000,
      what: "both servers",
    });
    const pid = postmaster();
    await second.stop();
    assert.equal(isPostmaster(pid, data), true);
    assert.equal(postmaster(), pid);
    assert.deepEqual(await query("SELECT 1"), [1]);
  });

  test("a server that stops leaves the restart to the other", async () => {
    const second = await start();
    process.kill(postmaster(), "SIGKILL");
    await second.stop();
    await answers();
  });
});

/** Of PostgreSQL: all of them work in the data directory. */
function processesIn(data: string): string[] {
  return readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/cwd`) === data;
    } catch {
      // It has ended meanwhile.
      return false;
    }
  });
}
