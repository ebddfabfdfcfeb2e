/** Starts PostgreSQL on a cluster, or adopts one that runs on it already, and waits until it answers. */

import { spawn, type ChildProcess } from "node:child_process";
import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import type { Account } from "./account.ts";
import type { Binaries } from "./binaries.ts";
import { PROGRAM_ENVIRONMENT, type ClusterPaths } from "./cluster.ts";
import { logTail, postgresFailure } from "./failure.ts";
import { askVersion, isPostmaster, readPidFile, SOCKET_PORT } from "./postmaster.ts";
import { makePrivate } from "./run-directory.ts";

/** Everything on disk that a start needs. */
export interface Prepared {
  paths: ClusterPaths;
  binaries: Binaries;
  account: Account | null;
}

export interface Running {
  pid: number;
  socketDirectory: string;
  version: string;
  adopted: boolean;
}

/** Recovery after a crash reads what was written since the last checkpoint, at most `max_wal_size`. */
const START_TIMEOUT_MS = 120_000;
const POLL_MS = 5;
/** Between two starts, doubled each time. */
const FIRST_RETRY_MS = 50;
const MAX_RETRY_MS = 1_000;

/**
 * Rejects with what the log says if PostgreSQL ends by itself or does not answer in time, and with
 * `unavailable` if `signal` aborts before it answers: then what had been started has ended or is
 * named by the pid file, so that it can be found and ended.
 */
export async function startOrAdopt(prepared: Prepared, clock: Clock, signal?: AbortSignal): Promise<Running> {
  const { paths } = prepared;
  const endMs = clock.monotonicMs() + START_TIMEOUT_MS;
  let started: Started | null = null;
  let retryMs = FIRST_RETRY_MS;
  let lastError: unknown;
  while (clock.monotonicMs() < endMs) {
    const file = readPidFile(paths.data);
    const isThere = file !== null && isPostmaster(file.pid, paths.data);
    if (signal?.aborted && (isThere || started === null || started.hasEnded())) {
      throw new AppError("unavailable", "start the embedded database: called off");
    }
    if (isThere && file.isReady) {
      try {
        const version = await askVersion(file.socketDirectory);
        const adopted = file.pid !== started?.child.pid;
        return { pid: file.pid, socketDirectory: file.socketDirectory, version, adopted };
      } catch (error) {
        // It may be about to stop, or out of connections for a moment.
        lastError = error;
      }
    } else if (!isThere && started === null) {
      started = startPostmaster(prepared);
    } else if (!isThere && started?.hasEnded()) {
      explainEnd(started, paths);
      started = null;
      await clock.sleep(retryMs, signal);
      retryMs = Math.min(MAX_RETRY_MS, 2 * retryMs);
      continue;
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
  makePrivate(paths.run, account);
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
