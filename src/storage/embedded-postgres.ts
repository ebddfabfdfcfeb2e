/**
 * A private PostgreSQL for a server that was given none.
 *
 * It listens on a Unix socket only, in a directory that only its account may enter. It has a
 * session of its own, so neither Ctrl-C nor a killed server takes it along; the next server on the
 * directory adopts it. It ends with the clean stop of the last server that uses it, and if it ends
 * before that, it is started again.
 */

import { chmodSync, chownSync, mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { Service } from "../base/service.ts";
import { chooseAccount, requireReachable } from "./embedded/account.ts";
import { locatePackage, provideBinaries, removeOldCopies, type Binaries } from "./embedded/binaries.ts";
import { ensureCluster, type ClusterPaths } from "./embedded/cluster.ts";
import { fileFailure, logTail, postgresFailure } from "./embedded/failure.ts";
import { removeAbandoned } from "./embedded/partial.ts";
import { AT_ONCE, endPostmaster, readPidFile, SOCKET_PORT, SUPERUSER } from "./embedded/postmaster.ts";
import { runDirectoryOf } from "./embedded/run-directory.ts";
import { startOrAdopt, type Prepared, type Running } from "./embedded/start-postmaster.ts";
import { PostgresSupervisor } from "./embedded/supervisor.ts";
import { beginUse, endOwnUses, type Use } from "./embedded/users.ts";

export interface EmbeddedPostgresOptions {
  /** Hodei's data directory; the database lies in its `postgres`. Made if it is missing. */
  directory: string;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Aborts when this process is about to leave without `stop`: from then on it starts nothing. */
  leaving?: AbortSignal;
}

export interface EmbeddedPostgres extends Service {
  /** For `openPostgresStore`. */
  readonly connection: { host: string; port: number; user: string; database: string };
  /** Of PostgreSQL, such as `18.4`. */
  readonly version: string;
  /** True if it ran already: a server that was killed left it, or another one shares it. */
  readonly adopted: boolean;
  /** Why it is away for the moment, for people; null while it runs. */
  problem(): string | null;
}

/**
 * Starts the database of `directory`, makes it first if there is none, or adopts it if it runs.
 *
 * Rejects with `failed_precondition` if the directory cannot be used (not writable, not reachable
 * for the account, made by another PostgreSQL), with `resource_exhausted` if the disk is full, and
 * with `unavailable` and the last lines of the log if PostgreSQL does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, clock, random, log, leaving } = options;
  const found = locatePackage();
  let prepared: Prepared;
  try {
    prepared = await prepare(found, options);
  } catch (error) {
    throw fileFailure("start the embedded database", directory, error);
  }
  const { paths } = prepared;
  const use = beginUse(paths.home, random);
  const running = await firstStart(prepared, { use, clock, leaving });
  if (!running.adopted) tidy(paths, found.version, log);
  log.info(
    { directory, pid: running.pid, version: running.version, adopted: running.adopted },
    "embedded database runs",
  );

  const supervisor = new PostgresSupervisor(running, { prepared, clock, random, log });
  leaving?.addEventListener("abort", () => void supervisor.stop(), { once: true });
  let stopped: Promise<void> | null = null;
  const stop = async () => {
    await supervisor.stop();
    if (!use.end()) return;
    await endAll([supervisor.pid, readPidFile(paths.data)?.pid], { paths, clock });
    log.info({ directory }, "embedded database stopped");
  };
  return {
    connection: { host: running.socketDirectory, port: SOCKET_PORT, user: SUPERUSER, database: "postgres" },
    version: running.version,
    adopted: running.adopted,
    problem: () => supervisor.problem,
    stop: () => (stopped ??= stop()),
  };
}

/** For a start that is under way when a process leaves: by then it has its pid file, or has failed. */
const LAST_START_MS = 100;

/**
 * Ends the database of `directory` within some two seconds, whatever hangs, for a process that leaves
 * without `stop`; not if others use it as well. `leaving` must have been aborted.
 */
export async function abandonEmbeddedPostgres(options: { directory: string; clock: Clock }): Promise<void> {
  const { clock } = options;
  await clock.sleep(LAST_START_MS);
  const home = join(realpathSync(options.directory), "postgres");
  const data = join(home, "data");
  const pid = readPidFile(data)?.pid;
  if (endOwnUses(home) && pid !== undefined) await endPostmaster(pid, { data, clock, steps: AT_ONCE });
}

async function firstStart(
  prepared: Prepared,
  options: { use: Use; clock: Clock; leaving: AbortSignal | undefined },
): Promise<Running> {
  try {
    return await startOrAdopt(prepared, options.clock, options.leaving);
  } catch (error) {
    options.use.end();
    throw fileFailure("start the embedded database", prepared.paths.directory, error);
  }
}

/** The pid file names another process than the supervisor if it was stopped while it started one. */
async function endAll(
  pids: readonly (number | undefined)[],
  { paths, clock }: { paths: ClusterPaths; clock: Clock },
): Promise<void> {
  for (const pid of new Set(pids)) {
    if (pid === undefined || (await endPostmaster(pid, { data: paths.data, clock }))) continue;
    throw postgresFailure("stop the embedded database", {
      directory: paths.directory,
      output: logTail(paths.log),
    });
  }
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
    run: runDirectoryOf(home),
    log: join(home, "postgres.log"),
  };
  const binaries = provideBinaries(found, { parent: home, mustCopy: account !== null });
  await ensureCluster(paths, { binaries, account, random: options.random });
  return { paths, binaries, account };
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
