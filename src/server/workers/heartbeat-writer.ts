/**
 * Writes heartbeats down a few times a second, all workers in one statement, instead of each by
 * itself: two thousand workers say 400 times a second that they are alive.
 *
 * After a crash of the server the database is late by at most `WRITE_INTERVAL_MS`, which makes the
 * next server give up a worker that much earlier: far less than the margin by which the worker
 * gives up before it (core/lease.ts).
 *
 * One write is under way at a time. While the database is away a write takes seconds, and more of
 * them would only fill the store's queue, in which the changes of jobs wait as well.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Service } from "../../base/service.ts";
import type { WorkerUsage } from "../../core/worker.ts";
import type { Store, WorkerChange } from "../../storage/store.ts";

export const WRITE_INTERVAL_MS = 500;

export class HeartbeatWriter implements Service {
  readonly #deps: { store: Store; clock: Clock; log: Logger };
  #waiting = new Map<string, WorkerChange>();
  #writing: Promise<void> | null = null;
  #callOff: (() => void) | null = null;
  #isStopped = false;
  #hasFailed = false;

  constructor(deps: { store: Store; clock: Clock; log: Logger }) {
    this.#deps = deps;
  }

  /** Only the newest of a worker counts. */
  add(heartbeat: { workerId: string; heardAtMs: number; usage: WorkerUsage | null }): void {
    const { workerId, heardAtMs, usage } = heartbeat;
    this.#waiting.set(workerId, { workerId, lastHeartbeatAtMs: heardAtMs, usage });
    this.#plan();
  }

  /** Writes what waits. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#callOff?.();
    this.#callOff = null;
    await this.#writing;
    await this.#write();
  }

  #plan(): void {
    if (this.#writing !== null || this.#isStopped) return;
    this.#callOff ??= this.#deps.clock.schedule(WRITE_INTERVAL_MS, () => {
      this.#callOff = null;
      this.#writing = this.#write().then(() => {
        this.#writing = null;
        if (this.#waiting.size > 0) this.#plan();
      });
    });
  }

  async #write(): Promise<void> {
    const changes = [...this.#waiting.values()];
    this.#waiting = new Map();
    try {
      await Promise.all(changes.map((change) => this.#deps.store.changeWorker(change)));
      if (changes.length > 0) this.#hasFailed = false;
    } catch (error) {
      // The next heartbeats say the same and more.
      const fields = { err: error, workers: changes.length };
      if (!this.#hasFailed) this.#deps.log.warn(fields, "could not store heartbeats");
      this.#hasFailed = true;
    }
  }
}
