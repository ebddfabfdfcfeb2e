import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { Client } from "pg";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import {
  abandonEmbeddedPostgres,
  startEmbeddedPostgres,
  type EmbeddedPostgres,
} from "./embedded-postgres.ts";
import { isProcessAlive, readPidFile } from "./embedded/postmaster.ts";

const isRoot = process.getuid?.() === 0;
const root = mkdtempSync(join(tmpdir(), "hodei-pg-"));
chmodSync(root, 0o755);

/** A start costs a second of making a cluster, so the tests of running and stopping share one. */
const shared = join(root, "shared");
const running = new Set<string>();

after(async () => {
  for (const directory of running) {
    const pid = readPidFile(dataOf(directory))?.pid;
    if (pid !== undefined && isProcessAlive(pid)) process.kill(pid, "SIGQUIT");
    if (pid !== undefined)
      await eventually(() => !isProcessAlive(pid), { what: "end of a left-over postgres" });
  }
  rmSync(root, { recursive: true, force: true });
});

const common = { clock: systemClock, random: systemRandom, log: silentLogger };

function start(directory: string): Promise<EmbeddedPostgres> {
  running.add(directory);
  return startEmbeddedPostgres({ directory, ...common });
}

function dataOf(directory: string): string {
  return join(directory, "postgres", "data");
}

function pidOf(directory: string): number {
  const pid = readPidFile(dataOf(directory))?.pid;
  assert.ok(pid !== undefined, "there is no postmaster.pid");
  return pid;
}

async function query(postgres: EmbeddedPostgres, text: string): Promise<unknown[]> {
  const client = new Client(postgres.connection);
  await client.connect();
  try {
    return (await client.query({ text, rowMode: "array" })).rows.flat();
  } finally {
    await client.end();
  }
}

interface OtherServer {
  child: ChildProcess;
  ready: Promise<{ adopted: boolean }>;
  errors(): string;
}

/** Another server process on the directory: prints a line when the database runs, and then waits. */
function startOther(directory: string, user: { uid?: number; gid?: number } = {}): OtherServer {
  running.add(directory);
  const module = JSON.stringify(new URL("./embedded-postgres.js", import.meta.url).href);
  const base = (name: string) => JSON.stringify(new URL(`../base/${name}.js`, import.meta.url).href);
  const script = `
    import { startEmbeddedPostgres } from ${module};
    import { systemClock as clock } from ${base("clock")};
    import { systemRandom as random } from ${base("random")};
    import { silentLogger as log } from ${base("log")};
    const postgres = await startEmbeddedPostgres({ directory: ${JSON.stringify(directory)}, clock, random, log });
    console.log(JSON.stringify({ adopted: postgres.adopted }));
    process.stdin.on("end", () => postgres.stop()).resume();
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    ...user,
    cwd: "/",
    stdio: ["pipe", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.on("data", (data: Buffer) => (errors += data.toString()));
  const ready = new Promise<{ adopted: boolean }>((resolve, reject) => {
    child.stdout.once("data", (data: Buffer) => resolve(JSON.parse(data.toString()) as { adopted: boolean }));
    child.once("close", (code) => reject(new Error(`the other server ended with ${code}: ${errors}`)));
  });
  return { child, ready, errors: () => errors };
}

async function ended(child: ChildProcess): Promise<void> {
  await eventually(() => child.exitCode !== null || child.signalCode !== null, {
    what: "end of the other server",
  });
}

test("a database is made, listens on a private socket only, and stops with its server", async () => {
  const postgres = await start(shared);
  assert.equal(postgres.adopted, false);
  assert.match(postgres.version, /^18\./);
  assert.deepEqual(await query(postgres, "SHOW listen_addresses"), [""]);
  assert.deepEqual(await query(postgres, "SHOW fsync"), ["on"]);
  assert.deepEqual(await query(postgres, "SHOW synchronous_commit"), ["on"]);
  assert.deepEqual(await query(postgres, "SHOW server_encoding"), ["UTF8"]);
  assert.equal(statSync(postgres.connection.host).mode & 0o777, 0o700);
  assert.equal(statSync(dataOf(shared)).uid === 0, false);
  const pid = pidOf(shared);
  await postgres.stop();
  await postgres.stop();
  assert.equal(isProcessAlive(pid), false);
  assert.deepEqual(readdirSync(join(shared, "postgres", "users")), []);
});

test("root runs a copy of the programs from its data directory, which any account can reach", async (t) => {
  if (!isRoot || process.platform !== "linux") return t.skip("only root needs the copy");
  const postgres = await start(shared);
  const program = readlinkSync(`/proc/${pidOf(shared)}/exe`);
  assert.ok(program.startsWith(join(shared, "postgres")), program);
  await postgres.stop();
});

test("a normal user runs the programs of the package, and not the cluster of somebody else", async (t) => {
  if (!isRoot) return t.skip("the other tests run as a normal user already");
  const user = { uid: 65_534, gid: 65_534 };
  const directory = join(root, "nobody");
  mkdirSync(directory);
  chownSync(directory, user.uid, user.gid);
  const { child, ready } = startOther(directory, user);
  assert.equal((await ready).adopted, false);
  assert.equal(statSync(dataOf(directory)).uid, user.uid);
  assert.doesNotMatch(readlinkSync(`/proc/${pidOf(directory)}/exe`), new RegExp(`^${directory}`));
  child.stdin?.end();
  await ended(child);

  const asRoot = await start(directory);
  assert.equal(statSync(`/proc/${pidOf(directory)}`).uid, user.uid);
  await asRoot.stop();
  const again = startOther(directory, user);
  await again.ready;
  again.child.stdin?.end();
  await ended(again.child);

  const foreign = startOther(shared, { uid: 65_533, gid: 65_533 });
  await assert.rejects(foreign.ready, /ended with 1/);
  assert.match(foreign.errors(), /belongs to the user with id \d+; run Hodei as that user or as root/);
});

test("data are there after a restart", async () => {
  const first = await start(shared);
  await query(first, "CREATE TABLE kept (x int)");
  await query(first, "INSERT INTO kept VALUES (42)");
  await first.stop();
  const second = await start(shared);
  assert.equal(second.adopted, false);
  assert.deepEqual(await query(second, "SELECT x FROM kept"), [42]);
  await query(second, "DROP TABLE kept");
  await second.stop();
});

test("the database of a killed server goes on, is adopted, and stops with the one that adopted it", async () => {
  const { child, ready } = startOther(shared);
  assert.equal((await ready).adopted, false);
  const pid = pidOf(shared);
  child.kill("SIGKILL");
  await ended(child);
  assert.equal(isProcessAlive(pid), true);
  const postgres = await start(shared);
  assert.equal(postgres.adopted, true);
  assert.equal(pidOf(shared), pid);
  assert.deepEqual(await query(postgres, "SELECT 1"), [1]);
  await postgres.stop();
  assert.equal(isProcessAlive(pid), false);
});

test("Ctrl-C in the terminal of the server does not reach the database", async () => {
  const postgres = await start(shared);
  const [ours, its] = [process.pid, pidOf(shared)].map((pid) => sessionOf(pid));
  assert.notEqual(its, ours);
  await postgres.stop();
});

function sessionOf(pid: number): string {
  return spawnSync("ps", ["-o", "sid=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
}

test("a server that leaves in a hurry ends a database that hangs, but not one that others use", async () => {
  const leaving = new AbortController();
  const postgres = await startEmbeddedPostgres({ directory: shared, ...common, leaving: leaving.signal });
  const pid = pidOf(shared);
  const other = startOther(shared);
  assert.equal((await other.ready).adopted, true);
  leaving.abort();
  await abandonEmbeddedPostgres({ directory: shared, clock: systemClock });
  assert.equal(isProcessAlive(pid), true);
  other.child.stdin?.end();
  await ended(other.child);
  // The other one was the last: it has ended the database, and nobody here starts it again.
  await eventually(() => !isProcessAlive(pid), { what: "end of the database" });

  const second = new AbortController();
  const hanging = await startEmbeddedPostgres({ directory: shared, ...common, leaving: second.signal });
  const hangingPid = pidOf(shared);
  process.kill(hangingPid, "SIGSTOP");
  second.abort();
  await abandonEmbeddedPostgres({ directory: shared, clock: systemClock });
  // Killed, and gone as soon as the kernel has got to it.
  await eventually(() => !isProcessAlive(hangingPid), { what: "end of the hanging database" });
  await hanging.stop();
  await postgres.stop();
});

test("after a crash of everything the database recovers what was committed", async () => {
  const { child, ready } = startOther(shared);
  await ready;
  const before = await start(shared);
  await query(before, "CREATE TABLE crashed AS SELECT 7 AS x");
  await before.stop();
  const pid = pidOf(shared);
  child.kill("SIGKILL");
  await ended(child);
  process.kill(pid, "SIGKILL");
  await eventually(() => !isProcessAlive(pid));
  assert.ok(existsSync(join(dataOf(shared), "postmaster.pid")));
  const after_ = await start(shared);
  assert.equal(after_.adopted, false);
  assert.deepEqual(await query(after_, "SELECT x FROM crashed"), [7]);
  await query(after_, "DROP TABLE crashed");
  await after_.stop();
});

test("lock files of an earlier boot whose pid is another process's now are no obstacle", async (t) => {
  if (process.platform !== "linux") return t.skip("needs /proc");
  const owner = statSync(dataOf(shared));
  // A process of the same account, which PostgreSQL would take for the holder of the locks.
  const bystander = spawn("sleep", ["60"], isRoot ? { uid: owner.uid, gid: owner.gid } : {});
  try {
    const postgres = await start(shared);
    const lines = readFileSync(join(dataOf(shared), "postmaster.pid"), "utf8").split("\n");
    const { host } = postgres.connection;
    await postgres.stop();
    lines[0] = String(bystander.pid);
    for (const lock of [join(dataOf(shared), "postmaster.pid"), join(host, ".s.PGSQL.5432.lock")]) {
      writeFileSync(lock, lines.join("\n"), { mode: 0o600 });
      if (isRoot) chownSync(lock, owner.uid, owner.gid);
    }
    const again = await start(shared);
    assert.equal(again.adopted, false);
    await again.stop();
  } finally {
    bystander.kill("SIGKILL");
  }
});

test("two servers that start at once share one database, and the last to leave stops it", async () => {
  const directory = join(root, "twice");
  const others = [startOther(directory), startOther(directory)];
  const answers = await Promise.all(others.map(({ ready }) => ready));
  assert.equal(answers.filter(({ adopted }) => adopted).length, 1);
  const pid = pidOf(directory);
  others[0]?.child.stdin?.end();
  await ended(others[0]?.child as ChildProcess);
  assert.equal(isProcessAlive(pid), true);
  others[1]?.child.stdin?.end();
  await ended(others[1]?.child as ChildProcess);
  await eventually(() => !isProcessAlive(pid), { what: "end of the database" });
  assert.deepEqual(
    readdirSync(join(directory, "postgres")).filter((name) => name.includes(".new-")),
    [],
  );
});

test("a cluster of another major version is refused with both versions", async () => {
  const directory = join(root, "old");
  mkdirSync(dataOf(directory), { recursive: true });
  writeFileSync(join(dataOf(directory), "PG_VERSION"), "14\n");
  await assert.rejects(start(directory), {
    code: "failed_precondition",
    message: /made by PostgreSQL 14, and this Hodei brings PostgreSQL 18; .*pg_dump/,
  });
});

test("a directory whose path is too long for a socket gets its socket elsewhere", async () => {
  const directory = join(root, "x".repeat(120));
  const postgres = await start(directory);
  const { host } = postgres.connection;
  assert.ok(Buffer.byteLength(host) < 100);
  assert.equal(statSync(host).mode & 0o777, 0o700);
  assert.deepEqual(await query(postgres, "SELECT 1"), [1]);
  await postgres.stop();
  rmSync(host, { recursive: true, force: true });
});

test("a PostgreSQL that cannot start is told with the last lines of its log", async () => {
  const settings = join(dataOf(shared), "postgresql.conf");
  const before = readFileSync(settings, "utf8");
  writeFileSync(settings, `${before}\nwork_mem = nonsense\n`);
  try {
    await assert.rejects(start(shared), { code: "unavailable", message: /work_mem/ });
  } finally {
    writeFileSync(settings, before);
  }
});

test("a parent that the account cannot pass is named, with what to do", async (t) => {
  if (!isRoot) return t.skip("only root lends PostgreSQL another account");
  const home = join(root, "private-home");
  mkdirSync(home, { mode: 0o700 });
  await assert.rejects(start(join(home, "hodei")), {
    code: "failed_precondition",
    message: new RegExp(`cannot pass through ${home};.*--data-dir or HODEI_DATA_DIR.*chmod o\\+x ${home}`),
  });
});

test("a full disk is told by name, leaves no half-made cluster, and the next start works", async (t) => {
  const directory = join(root, "full");
  const disk = mountSmall(t, directory, "24m");
  if (!disk) return;
  await assert.rejects(start(directory), {
    code: "resource_exhausted",
    message: new RegExp(`${directory}: the disk is full \\(No space left on device\\)`),
  });
  assert.equal(existsSync(dataOf(directory)), false);
  assert.deepEqual(
    readdirSync(join(directory, "postgres")).filter((name) => name.includes(".new-")),
    [],
  );
  disk.grow("300m");
  await (await start(directory)).stop();
});

test("a disk too full for the cluster, but not for the programs, is told the same way", async (t) => {
  const directory = join(root, "nearly-full");
  const disk = mountSmall(t, directory, "300m");
  if (!disk) return;
  const filler = join(directory, "filler");
  // The copy of the programs needs about 45 MB, the cluster 40 more.
  writeFileSync(filler, Buffer.alloc(240 * 1024 * 1024));
  await assert.rejects(start(directory), { code: "resource_exhausted", message: /No space left on device/ });
  assert.equal(existsSync(dataOf(directory)), false);
  rmSync(filler);
  await (await start(directory)).stop();
  fillUp(join(directory, "filler"));
  await assert.rejects(start(directory), {
    code: "resource_exhausted",
    message: new RegExp(`${directory}: the disk is full`),
  });
  rmSync(filler);
  await (await start(directory)).stop();
});

function fillUp(path: string): void {
  const file = openSync(path, "w");
  try {
    for (;;) writeSync(file, Buffer.alloc(4_096));
  } catch (error) {
    assert.equal((error as { code?: string }).code, "ENOSPC");
  } finally {
    closeSync(file);
  }
}

function mountSmall(t: TestContext, directory: string, size: string): { grow(size: string): void } | null {
  mkdirSync(directory);
  if (
    !isRoot ||
    spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size},mode=0755`, "tmpfs", directory]).status !== 0
  ) {
    t.skip("a small file system cannot be mounted here");
    return null;
  }
  t.after(() => {
    spawnSync("umount", [directory]);
  });
  return { grow: (larger) => spawnSync("mount", ["-o", `remount,size=${larger}`, directory]) };
}
