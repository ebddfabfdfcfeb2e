/** Removes files of the past in the background, a few at a time, so that a job never waits for it. */

import type { Logger } from "../../base/log.ts";

const MAX_AT_ONCE = 2;

export class RemovalQueue {
  readonly #log: Logger;
  readonly #waiting: (() => Promise<void>)[] = [];
  readonly #running = new Set<Promise<void>>();

  constructor(log: Logger) {
    this.#log = log;
  }

  add(remove: () => Promise<void>): void {
    this.#waiting.push(remove);
    this.#next();
  }

  /** Resolves when nothing is left to remove. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  #next(): void {
    while (this.#running.size < MAX_AT_ONCE) {
      const remove = this.#waiting.shift();
      if (remove === undefined) return;
      const run: Promise<void> = remove()
        .catch((error: unknown) => this.#log.warn({ err: error }, "removal of old files failed"))
        .finally(() => {
          this.#running.delete(run);
          this.#next();
        });
      this.#running.add(run);
    }
  }
}
