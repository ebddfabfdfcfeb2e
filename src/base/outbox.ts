/**
 * What one side of a stream has to say, in two priorities.
 *
 * The transport pulls: each pull takes the oldest message, and only when there is none asks the
 * `filler` for something less urgent (a piece of log). So a heartbeat or a cancel overtakes all log
 * that is not yet on the wire, and log is read from the disk only as fast as it leaves.
 */

export interface OutboxOptions<T> {
  /** Messages that may wait; one more closes the outbox with `overflow()`. */
  maxWaiting: number;
  overflow: () => Error;
  /** The next less urgent message, or null if there is none now; see `wake`. */
  filler?: () => Promise<T | null>;
}

export class Outbox<T> implements AsyncIterable<T> {
  readonly #options: OutboxOptions<T>;
  readonly #waiting: T[] = [];
  #ended = false;
  #failure: Error | null = null;
  #wake: (() => void) | null = null;
  #isWoken = false;

  constructor(options: OutboxOptions<T>) {
    this.#options = options;
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  push(message: T): void {
    if (this.#ended) return;
    if (this.#waiting.length >= this.#options.maxWaiting) {
      this.#failure = this.#options.overflow();
      this.end();
      return;
    }
    this.#waiting.push(message);
    this.wake();
  }

  /** Says that the filler may have something now. */
  wake(): void {
    this.#isWoken = true;
    this.#wake?.();
  }

  /** Lets the reader finish what waits, then ends the stream. */
  end(): void {
    this.#ended = true;
    this.wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      this.#isWoken = false;
      const message = this.#waiting.shift();
      if (message !== undefined) {
        yield message;
        continue;
      }
      if (this.#ended) {
        if (this.#failure) throw this.#failure;
        return;
      }
      const filled = (await this.#options.filler?.()) ?? null;
      if (filled !== null) {
        yield filled;
        continue;
      }
      if (this.#isWoken) continue;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }
}
