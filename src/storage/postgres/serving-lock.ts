/**
 * Only one server serves a database: a second one would not find the workers of the first where it
 * looks for its own, call them gone, and give their jobs to others while they run.
 *
 * It is an advisory lock of a session, so PostgreSQL itself lets go of it when the server dies. When
 * the session breaks, with the network or with PostgreSQL, the lock is taken again; if another server
 * was faster, this one must end.
 */

import { Client } from "pg";
import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Service } from "../../base/service.ts";
import type { PostgresConnection } from "./database.ts";

export interface ServingLockOptions {
  connection: PostgresConnection;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Another server serves the database now. */
  onLost(error: AppError): void;
}

/** Any number that nobody else takes: "hodei" in ASCII. */
const LOCK_KEY = 0x68_6f_64_65_69;
/** PostgreSQL may take a while to notice that the session of a killed server is gone. */
const TAKE_TIMEOUT_MS = 30_000;
const RETRY_MS = 500;
const CONNECT_TIMEOUT_MS = 5_000;
/** How often the session is asked whether it is still there; a broken network says nothing. */
const LOOK_INTERVAL_MS = 10_000;

/** @throws AppError `failed_precondition` if another server has it and keeps it. */
export async function takeServingLock(options: ServingLockOptions): Promise<Service> {
  const lock = new ServingLock(options);
  await lock.take();
  lock.keep();
  return lock;
}

class ServingLock implements Service {
  readonly #options: ServingLockOptions;
  readonly #stopped = new AbortController();
  #client: Client | null = null;
  #keeping: Promise<void> = Promise.resolve();

  constructor(options: ServingLockOptions) {
    this.#options = options;
  }

  async take(): Promise<void> {
    const { clock, log } = this.#options;
    const endMs = clock.monotonicMs() + TAKE_TIMEOUT_MS;
    for (let isTold = false; !(await this.#tryTake()); isTold = true) {
      if (clock.monotonicMs() >= endMs) throw servedByAnother();
      if (!isTold) log.warn("another server uses the database, waiting for its end");
      await clock.sleep(RETRY_MS, this.#stopped.signal);
      if (this.#stopped.signal.aborted) return;
    }
  }

  keep(): void {
    this.#keeping = this.#keep();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#keeping;
    await this.#drop();
  }

  async #keep(): Promise<void> {
    const { clock, random, log, onLost } = this.#options;
    const { signal } = this.#stopped;
    const backoff = new Backoff({ baseMs: RETRY_MS, maxMs: CONNECT_TIMEOUT_MS }, random);
    for (;;) {
      await clock.sleep(LOOK_INTERVAL_MS, signal);
      while (!signal.aborted && !(await this.#isHeld())) {
        try {
          await this.take();
          backoff.reset();
        } catch (error) {
          if (error instanceof AppError && error.code === "failed_precondition") {
            onLost(error);
            return;
          }
          log.debug({ err: error }, "the lock of the database cannot be taken again yet");
          await clock.sleep(backoff.nextDelayMs(), signal);
        }
      }
      if (signal.aborted) return;
    }
  }

  async #isHeld(): Promise<boolean> {
    try {
      await this.#client?.query("SELECT 1");
      return this.#client !== null;
    } catch {
      // The session is gone, and the lock with it.
      return false;
    }
  }

  /** False if another session has the lock. Rejects if the database does not answer. */
  async #tryTake(): Promise<boolean> {
    await this.#drop();
    const client = new Client({
      ...this.#options.connection,
      application_name: "hodei server",
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: CONNECT_TIMEOUT_MS,
      keepAlive: true,
    });
    // A session that breaks also fails the next query; unheard, the event would end the process.
    client.on("error", () => {});
    this.#client = client;
    try {
      await client.connect();
      const { rows } = await client.query<{ taken: boolean }>("SELECT pg_try_advisory_lock($1) AS taken", [
        LOCK_KEY,
      ]);
      return rows[0]?.taken === true;
    } catch (cause) {
      await this.#drop();
      throw new AppError("unavailable", `take the lock of the database: ${errorMessage(cause)}`, { cause });
    }
  }

  async #drop(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    await client?.end().catch(() => {
      // It was never connected or is broken: there is nothing to end.
    });
  }
}

function servedByAnother(): AppError {
  return new AppError(
    "failed_precondition",
    "serve the database: another hodei server serves it; stop that one, or give this one a database of its own with --db",
  );
}
