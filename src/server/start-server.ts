/**
 * Starts a server: first the database, and while it starts, the program itself is loaded, which
 * takes as long.
 */

import type { Clock } from "../base/clock.ts";
import { AppError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { signalProcess } from "../base/process-identity.ts";
import type { Random } from "../base/random.ts";
import type { Service } from "../base/service.ts";
import { StartedServices } from "../base/started-services.ts";
import { startEmbeddedPostgres } from "../storage/embedded-postgres.ts";
import type { PostgresConnection } from "../storage/postgres/database.ts";
import { takeServingLock } from "../storage/postgres/serving-lock.ts";
import { lockDataDirectory, type DirectoryOwner, type LockHolder } from "./data-lock.ts";
import type { DockerEngineSettings, DockerPoolSettings } from "./docker-settings.ts";
import type { LocalPoolSettings } from "./local-pool.ts";

export interface ServerOptions {
  dataDirectory: string;
  holder: LockHolder;
  /** Null: a private PostgreSQL in the data directory. */
  databaseUrl: string | null;
  host: string;
  httpPort: number;
  grpcPort: number;
  localWorkers: LocalPoolSettings;
  /** Null: no workers in containers. */
  docker: DockerPoolSettings | null;
  /** For every pool of containers. */
  dockerEngine: DockerEngineSettings;
  /** On stop, which workers end too: all, those that this server made, or none: they wait for the next. */
  endWorkersOnStop: "all" | "own" | "none";
  /** Serves what is stored and runs nothing. */
  readOnly: boolean;
  /** A job will come at once: makes a worker for it at the start. */
  expectsJob: boolean;
  workerProgram: string;
  environment: Record<string, string | undefined>;
  /** This server must not go on: the process shall end at once. */
  onFatal(error: AppError): void;
  /** Aborts when the process is about to leave without a stop. */
  leaving?: AbortSignal;
  version: string;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface RunningServer extends Service {
  /** Of the HTTP port. */
  readonly url: string;
  readonly grpcUrl: string;
  readonly apiToken: string;
  readonly databaseVersion: string;
  /** The command line on this machine finds this server no more. */
  hide(): Promise<void>;
  /** Resolves when no client call is under way. */
  idle(): Promise<void>;
  /** During a stop the name of what it waits for, else null. */
  stopsNow(): string | null;
}

/** Starts everything, or nothing: what had been started is stopped when a later part fails. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const started = new StartedServices();
  try {
    started.add("lock of the data directory", await lockWhenFree(options));
    const [database, { startControlPlane }] = await Promise.all([
      openDatabaseServer(options, started),
      import("./wiring.ts"),
    ]);
    if (mustLockDatabase(options)) {
      const { connection } = database;
      started.add(
        "lock of the database",
        await takeServingLock({ ...options, connection, onLost: options.onFatal }),
      );
    }
    return await startControlPlane(options, database, started);
  } catch (error) {
    await started.stop();
    throw error;
  }
}

/** A private database is locked with its data directory. */
function mustLockDatabase({ databaseUrl, readOnly }: ServerOptions): boolean {
  return databaseUrl !== null && !readOnly;
}

/** Tells a server that only reads for a command that another one wants its data directory. */
export const GIVE_WAY_SIGNAL = "SIGUSR2";
/** For the end of what the command has under way. */
const COMMAND_TIMEOUT_MS = 30_000;
const LOOK_INTERVAL_MS = 100;

/**
 * While a server restarts, a command may have begun to look after itself: a server that stays must
 * not fail because of that, nor may one that is to run a job because of one that reads.
 */
async function lockWhenFree(options: ServerOptions): Promise<Service> {
  const { dataDirectory, holder, clock, log } = options;
  const endMs = clock.monotonicMs() + COMMAND_TIMEOUT_MS;
  for (let isTold = false; ; isTold = true) {
    try {
      return await lockDataDirectory(dataDirectory, holder);
    } catch (error) {
      const owner = error instanceof AppError ? (error.details["owner"] as DirectoryOwner | undefined) : null;
      if (!owner || !goesBefore(holder, owner.holder) || clock.monotonicMs() >= endMs) throw error;
      if (!isTold) log.warn({ pid: owner.pid }, "a command uses the data directory, waiting for it");
      if (owner.holder === "reading_command") signalProcess(owner, GIVE_WAY_SIGNAL);
    }
    await clock.sleep(LOOK_INTERVAL_MS);
  }
}

function goesBefore(one: LockHolder, other: LockHolder): boolean {
  const order: LockHolder[] = ["reading_command", "command", "server"];
  return order.indexOf(one) > order.indexOf(other);
}

export interface DatabaseServer {
  connection: PostgresConnection;
  /** Why it is known to be away, for people; null while nothing is known of that. */
  problem(): string | null;
}

/** One of our own is started again whenever it ends, until `started` is stopped. */
async function openDatabaseServer(options: ServerOptions, started: StartedServices): Promise<DatabaseServer> {
  const { dataDirectory, databaseUrl, clock, random, log, leaving } = options;
  if (databaseUrl !== null) return { connection: { connectionString: databaseUrl }, problem: () => null };
  const postgres = await startEmbeddedPostgres({
    directory: dataDirectory,
    clock,
    random,
    log,
    ...(leaving ? { leaving } : {}),
  });
  started.add("private PostgreSQL", postgres);
  return postgres;
}

/** @throws AppError if the address is open to others and nobody said that this is wanted. */
export function checkAddress(host: string, insecure: boolean): void {
  const isLoopback = host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
  if (isLoopback || insecure) return;
  throw new AppError(
    "failed_precondition",
    `listen on ${host}: tokens and logs would cross the network in plain text; keep to loopback, put a TLS proxy in front, or accept it with --insecure`,
  );
}
