/**
 * A background duty: idempotent, runs periodically and on a hint, and tries again with its next
 * round when one fails. A lost hint costs time, never correctness. Rounds that fail one after another
 * for the same reason are logged once, and that they have ended as well.
 */

import type { Clock } from "./clock.ts";
import { errorMessage } from "./errors.ts";
import type { Logger } from "./log.ts";
import type { Service } from "./service.ts";
import { sharedAbortController } from "./shared-abort.ts";

export interface LoopOptions {
  name: string;
  periodMs: number;
  run: (signal: AbortSignal) => Promise<void>;
  clock: Clock;
  log: Logger;
}

export class Loop implements Service {
  readonly #options: LoopOptions;
  readonly #abort = sharedAbortController();
  readonly #done: Promise<void>;
  #hinted = false;
  /** Why the last round failed; null if it did not. */
  #failure: string | null = null;
  #wake: () => void = () => {};

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#done = this.#rounds();
  }

  /** Asks for a round soon. Hints during a round lead to one more round after it. */
  hint(): void {
    this.#hinted = true;
    this.#wake();
  }

  /** Resolves when the round under way, if any, has ended. */
  async stop(): Promise<void> {
    this.#abort.abort();
    this.#wake();
    await this.#done;
  }

  async #rounds(): Promise<void> {
    const { periodMs, run, clock } = this.#options;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      this.#hinted = false;
      try {
        await run(signal);
        this.#noteSuccess();
      } catch (error) {
        if (!signal.aborted) this.#noteFailure(error);
        this.#hinted = false;
      }
      if (this.#hinted || signal.aborted) continue;
      await new Promise<void>((resolve) => {
        const callOff = clock.schedule(periodMs, resolve);
        this.#wake = () => {
          callOff();
          resolve();
        };
      });
      this.#wake = () => {};
    }
  }

  #noteFailure(error: unknown): void {
    const { name, log } = this.#options;
    const failure = errorMessage(error);
    if (failure !== this.#failure) log.error({ err: error, loop: name }, "loop round failed");
    this.#failure = failure;
  }

  #noteSuccess(): void {
    const { name, log } = this.#options;
    if (this.#failure !== null) log.info({ loop: name }, "loop rounds succeed again");
    this.#failure = null;
  }
}
