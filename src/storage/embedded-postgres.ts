/**
 * A private PostgreSQL for a server that was given none.
 *
 * It listens on a Unix socket only, in a directory that only its account may enter. It has a
 * session of its own, so neither Ctrl-C nor a killed server takes it along; the next server on the
 * directory adopts it. It ends with the clean stop of the last server that uses it.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { AppError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { Service } from "../base/service.ts";
import { chooseAccount, requireReachable, type Account } from "./embedded/account.ts";
import { locatePackage, provideBinaries, removeOldCopies, type Binaries } from "./embedded/binaries.ts";
import { ensureCluster, PROGRAM_ENVIRONMENT, type ClusterPaths } from "./embedded/cluster.ts";
import { fileFailure, logTail, postgresFailure } from "./embedded/failure.ts";
import { removeAbandoned } from "./embedded/partial.ts";
import {
  askVersion,
  endPostmaster,
  isPostmaster,
  readPidFile,
  SOCKET_PORT,
  SUPERUSER,
} from "./embedded/postmaster.ts";
import { beginUse } from "./embedded/users.ts";

export interface EmbeddedPostgresOptions {
  /** Hodei's data directory; the database lies in its `postgres`. Made if it is missing. */
  directory: string;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface EmbeddedPostgres extends Service {
  /** For `openPostgresStore`. */
  readonly connection: { host: string; port: number; user: string; database: string };
  /** Of PostgreSQL, such as `18.4`. */
  readonly version: string;
  /** True if it ran already: a server that was killed left it, or another one shares it. */
  readonly adopted: boolean;
}

/**
 * Starts the database of `directory`, makes it first if there is none, or adopts it if it runs.
 *
 * Rejects with `failed_precondition` if the directory cannot be used (not writable, not reachable
 * for the account, made by another PostgreSQL), with `resource_exhausted` if the disk is full, and
 * with `unavailable` and the last lines of the log if PostgreSQL does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, clock, random, log } = options;
  const found = locatePackage();
  let prepared: Prepared;
  try {
    prepared = await prepare(found, options);
  } catch (error) {
    throw fileFailure("start the embedded database", directory, error);
  }
  const { paths } = prepared;
  const use = beginUse(paths.home, random);
  let running: Running;
  try {
    running = await startOrAdopt(prepared, clock);
  } catch (error) {
    use.end();
    throw fileFailure("start the embedded database", directory, error);
  }
  if (!running.adopted) tidy(paths, found.version, log);
  log.info(
    { directory, pid: running.pid, version: running.version, adopted: running.adopted },
    "embedded database runs",
  );

  let stopped: Promise<void> | null = null;
  const stop = async () => {
    if (!use.end()) return;
    const hasEnded = await endPostmaster(running.pid, { data: paths.data, clock });
    if (!hasEnded)
      throw postgresFailure("stop the embedded database", { directory, output: logTail(paths.log) });
    log.info({ directory }, "embedded database stopped");
  };
  return {
    connection: { host: running.socketDirectory, port: SOCKET_PORT, user: SUPERUSER, database: "postgres" },
    version: running.version,
    adopted: running.adopted,
    stop: () => (stopped ??= stop()),
  };
}

interface Prepared {
  paths: ClusterPaths;
  binaries: Binaries;
  account: Account | null;
}

/** Everything on disk that a start needs. */
async function prepare(found: Binaries, options: EmbeddedPostgresOptions): Promise<Prepared> {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const directory = realpathSync(options.directory);
  const home = join(directory, "postgres");
  const account = chooseAccount(join(home, "data"));
  if (account) requireReachable(directory, account);
  mkdirSync(home, { recursive: true, mode: 0o755 });
  if (account) {
    chmodSync(home, 0o755);
    chownSync(home, account.uid, account.gid);
  }
  removeAbandoned(home);
  const paths: ClusterPaths = {
    directory,
    home,
    data: join(home, "data"),
    run: makeRunDirectory(home, account),
    log: join(home, "postgres.log"),
  };
  const binaries = provideBinaries(found, { parent: home, mustCopy: account !== null });
  await ensureCluster(paths, { binaries, account, random: options.random });
  return { paths, binaries, account };
}

/** `sun_path` of a socket address holds 108 bytes on Linux and 104 elsewhere, with the final NUL. */
const MAX_SOCKET_PATH_BYTES = process.platform === "linux" ? 107 : 103;

function makeRunDirectory(home: string, account: Account | null): string {
  const near = join(home, "run");
  const socket = join(near, `.s.PGSQL.${SOCKET_PORT}`);
  if (Buffer.byteLength(socket) <= MAX_SOCKET_PATH_BYTES) return makePrivate(near, account);
  const name = createHash("sha256").update(home).digest("hex").slice(0, 16);
  const temporary = realpathSync(tmpdir());
  return makePrivate(join(temporary, `hodei-postgres-${name}`), account);
}

/** In a directory that others may write to, someone may have made it first to listen in. */
function makePrivate(directory: string, account: Account | null): string {
  if (mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined && account) {
    chownSync(directory, account.uid, account.gid);
  }
  const owner = account?.uid ?? process.getuid?.();
  const made = lstatSync(directory);
  if (!made.isDirectory() || (owner !== undefined && made.uid !== owner)) {
    throw new AppError(
      "failed_precondition",
      `start the embedded database: ${directory} is not a directory of the user with id ${owner}; remove it`,
    );
  }
  if ((made.mode & 0o777) !== 0o700) chmodSync(directory, 0o700);
  return directory;
}

interface Running {
  pid: number;
  socketDirectory: string;
  version: string;
  adopted: boolean;
}

/** Recovery after a crash reads what was written since the last checkpoint, at most `max_wal_size`. */
const START_TIMEOUT_MS = 120_000;
const POLL_MS = 5;
const RETRY_MS = 50;

async function startOrAdopt(prepared: Prepared, clock: Clock): Promise<Running> {
  const { paths } = prepared;
  const endMs = clock.monotonicMs() + START_TIMEOUT_MS;
  let started: Started | null = null;
  let lastError: unknown;
  while (clock.monotonicMs() < endMs) {
    const file = readPidFile(paths.data);
    if (file && isPostmaster(file.pid, paths.data)) {
      if (file.isReady) {
        try {
          const version = await askVersion(file.socketDirectory);
          const adopted = file.pid !== started?.child.pid;
          return { pid: file.pid, socketDirectory: file.socketDirectory, version, adopted };
        } catch (error) {
          // It may be about to stop, or out of connections for a moment.
          lastError = error;
        }
      }
    } else if (started === null) {
      started = startPostmaster(prepared);
    } else if (started.hasEnded()) {
      explainEnd(started, paths);
      await clock.sleep(RETRY_MS);
      started = startPostmaster(prepared);
    }
    await clock.sleep(POLL_MS);
  }
  const output = logTail(paths.log);
  throw postgresFailure("start the embedded database", {
    directory: paths.directory,
    output,
    cause: lastError,
  });
}

interface Started {
  child: ChildProcess;
  /** Length of the log when it was started. */
  logOffset: number;
  hasEnded(): boolean;
  /** Why it could not be started at all. */
  spawnError(): Error | null;
}

function startPostmaster(prepared: Prepared): Started {
  const { paths, binaries, account } = prepared;
  const log = openLog(paths.log, account);
  try {
    const logOffset = fstatSync(log).size;
    const child = spawn(
      join(binaries.directory, "bin", "postgres"),
      ["-D", paths.data, ...settings(paths.run)],
      {
        ...account,
        cwd: paths.home,
        env: PROGRAM_ENVIRONMENT,
        detached: true,
        stdio: ["ignore", log, log],
      },
    );
    let spawnError: Error | null = null;
    let hasEnded = false;
    child.once("error", (error) => {
      spawnError = error;
      hasEnded = true;
    });
    child.once("exit", () => {
      hasEnded = true;
    });
    child.unref();
    return { child, logOffset, hasEnded: () => hasEnded, spawnError: () => spawnError };
  } finally {
    closeSync(log);
  }
}

const MAX_LOG_BYTES = 16 * 1024 * 1024;

function openLog(path: string, account: Account | null): number {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size > MAX_LOG_BYTES) renameSync(path, `${path}.1`);
  const { O_APPEND, O_CREAT, O_WRONLY, O_NOFOLLOW } = constants;
  const log = openSync(path, O_APPEND | O_CREAT | O_WRONLY | O_NOFOLLOW, 0o600);
  if (account) fchownSync(log, account.uid, account.gid);
  return log;
}

/**
 * What is written stays as safe as PostgreSQL makes it by default. The rest keeps a database small
 * that serves one program: few processes and little memory, so that it starts and stops at once.
 */
function settings(run: string): string[] {
  const values = {
    listen_addresses: "",
    unix_socket_directories: run,
    unix_socket_permissions: "0700",
    port: SOCKET_PORT,
    max_connections: 60,
    shared_buffers: "64MB",
    huge_pages: "off",
    jit: "off",
    io_method: "sync",
    wal_level: "minimal",
    max_wal_senders: 0,
    max_wal_size: "256MB",
    min_wal_size: "64MB",
    checkpoint_timeout: "15min",
    max_worker_processes: 2,
    max_parallel_workers: 0,
    max_parallel_workers_per_gather: 0,
    max_logical_replication_workers: 0,
    autovacuum_max_workers: 2,
    logging_collector: "off",
    log_destination: "stderr",
    log_checkpoints: "off",
    log_line_prefix: "%m [%p] ",
    log_timezone: "UTC",
    timezone: "UTC",
    cluster_name: "hodei",
  };
  return Object.entries(values).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
}

/**
 * Returns if another try makes sense: another server was faster, or processes of a PostgreSQL that
 * was killed are still on their way out. Else throws what the log says.
 */
function explainEnd(started: Started, paths: ClusterPaths): void {
  const output = logTail(paths.log, started.logOffset);
  const isTransient = /lock file "[^"]*" already exists|pre-existing shared memory block/.test(output);
  if (started.spawnError() === null && isTransient) {
    removeStaleLocks(paths);
    return;
  }
  throw postgresFailure("start the embedded database", {
    directory: paths.directory,
    output,
    cause: started.spawnError() ?? undefined,
  });
}

/**
 * PostgreSQL trusts a lock file whose pid is in use by whatever process of its account, which after
 * a reboot can be any. We know better: only a process that works in the data directory counts.
 */
function removeStaleLocks(paths: ClusterPaths): void {
  const owner = readPidFile(paths.data);
  if (process.platform !== "linux" || (owner && isPostmaster(owner.pid, paths.data))) return;
  if (owner) rmSync(join(paths.data, "postmaster.pid"), { force: true });
  const lock = join(paths.run, `.s.PGSQL.${SOCKET_PORT}.lock`);
  const holder = Number.parseInt(readIfThere(lock), 10);
  if (!Number.isNaN(holder) && !isPostmaster(holder, paths.data)) rmSync(lock, { force: true });
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Gone or never made: then there is no lock to look at.
    return "";
  }
}

/** A copy of the programs is removed only when nothing can run from it any more. */
function tidy(paths: ClusterPaths, version: string, log: Logger): void {
  try {
    removeOldCopies(paths.home, version);
  } catch (error) {
    log.warn(
      { err: error, problem: errorMessage(error) },
      "old files of the embedded database could not be removed",
    );
  }
}
