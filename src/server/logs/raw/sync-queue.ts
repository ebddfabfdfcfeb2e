/**
 * Makes files durable, each with one fdatasync for everything written to it since its last one.
 *
 * Files wait in the order in which they became dirty. A few are synced side by side, which lets the
 * file system commit them together; more would take the threads of the pool from readers. A file
 * that is written to while it is being synced goes to the end of the line.
 */

export interface Syncable {
  /** Makes durable what is written at the time of the call. Must not reject. */
  sync(): Promise<void>;
}

/** Node's pool has four threads unless told otherwise: one is left for reading and writing. */
const MAX_PARALLEL_SYNCS = 3;

export class SyncQueue {
  readonly #waiting = new Set<Syncable>();
  readonly #running = new Set<Syncable>();

  add(file: Syncable): void {
    this.#waiting.add(file);
    this.#fill();
  }

  #fill(): void {
    for (const file of this.#waiting) {
      if (this.#running.size >= MAX_PARALLEL_SYNCS) return;
      if (this.#running.has(file)) continue;
      this.#waiting.delete(file);
      this.#running.add(file);
      void file.sync().finally(() => {
        this.#running.delete(file);
        this.#fill();
      });
    }
  }
}
