/**
 * Keeps PostgreSQL running as long as the server does. Whatever ends it (a kill for want of memory, a
 * panic on a full disk, a person), it is started again, for ever; it then recovers by itself what was
 * committed. Of several servers that share it the first to look starts it, and the others adopt that.
 */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Service } from "../../base/service.ts";
import { fileFailure } from "./failure.ts";
import { isPostmaster } from "./postmaster.ts";
import { startOrAdopt, type Prepared, type Running } from "./start-postmaster.ts";

export interface SupervisorDependencies {
  prepared: Prepared;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** Clients find their connections broken at once, and have patience for a little longer than this. */
const WATCH_INTERVAL_MS = 200;
/** A disk that is full now will be so for a while. */
const RETRY = { baseMs: 500, maxMs: 10_000 };

export class PostgresSupervisor implements Service {
  readonly #deps: SupervisorDependencies;
  readonly #stopped = new AbortController();
  readonly #done: Promise<void>;
  #pid: number;
  #problem: string | null = null;

  constructor(running: Running, deps: SupervisorDependencies) {
    // The socket stays where the clients of this server look for it.
    const paths = { ...deps.prepared.paths, run: running.socketDirectory };
    this.#deps = { ...deps, prepared: { ...deps.prepared, paths } };
    this.#pid = running.pid;
    this.#done = this.#watch();
  }

  /** The first process of PostgreSQL, as it was last seen. */
  get pid(): number {
    return this.#pid;
  }

  /** Why PostgreSQL is away, for people; null while it runs. */
  get problem(): string | null {
    return this.#problem;
  }

  /** From here on nothing is started. What runs goes on. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#done;
  }

  async #watch(): Promise<void> {
    const { prepared, clock } = this.#deps;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      // A process that was stopped (SIGSTOP) has not ended: it goes on where it was.
      if (!isPostmaster(this.#pid, prepared.paths.data)) await this.#revive();
      await clock.sleep(WATCH_INTERVAL_MS, signal);
    }
  }

  async #revive(): Promise<void> {
    const { clock, random, log, prepared } = this.#deps;
    const { directory } = prepared.paths;
    const { signal } = this.#stopped;
    const awaySinceMs = clock.monotonicMs();
    const backoff = new Backoff(RETRY, random);
    log.warn({ directory, pid: this.#pid }, "embedded database has ended, starting it again");
    this.#problem = "the embedded database has ended and is being started again";
    while (!signal.aborted) {
      if (await this.#tryStart()) {
        const downMs = Math.round(clock.monotonicMs() - awaySinceMs);
        log.warn({ directory, pid: this.#pid, downMs }, "embedded database runs again");
        return;
      }
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  /** A failure is logged only if it differs from the one before it. */
  async #tryStart(): Promise<boolean> {
    const { clock, log, prepared } = this.#deps;
    const { directory } = prepared.paths;
    const { signal } = this.#stopped;
    try {
      const running = await startOrAdopt(prepared, clock, signal);
      this.#pid = running.pid;
      this.#problem = null;
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const failure = fileFailure("start the embedded database", directory, error);
      const isNew = withoutNumbers(failure.message) !== withoutNumbers(this.#problem ?? "");
      this.#problem = failure.message;
      if (isNew) log.warn({ err: failure, directory }, "embedded database does not start, trying again");
      return false;
    }
  }
}

/** The log that a message quotes has the time and a process id in each line. */
function withoutNumbers(message: string): string {
  return message.replaceAll(/\d+/g, "0");
}
