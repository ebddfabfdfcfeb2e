/**
 * Lets calls that arrive at about the same time share one round trip.
 *
 * The first call goes out at once; the calls that arrive while it is under way go out together
 * when it has come back. So a lone caller waits for nothing, and under load the groups grow by
 * themselves. Order is kept: a group is sent in the order of the calls, and only one is under way.
 */

export interface BatcherOptions<Input, Output> {
  /** Answers each input at the same index. A rejection rejects every call of the group. */
  run: (inputs: Input[]) => Promise<Output[]>;
  /** Calls in one group. */
  maxGroup: number;
  /** Calls that may wait; more are rejected with `full()`. */
  maxWaiting: number;
  full: () => Error;
}

export class Batcher<Input, Output> {
  readonly #options: BatcherOptions<Input, Output>;
  #waiting: { input: Input; resolve: (output: Output) => void; reject: (error: unknown) => void }[] = [];
  #running: Promise<void> | null = null;

  constructor(options: BatcherOptions<Input, Output>) {
    this.#options = options;
  }

  add(input: Input): Promise<Output> {
    if (this.#waiting.length >= this.#options.maxWaiting) return Promise.reject(this.#options.full());
    return new Promise<Output>((resolve, reject) => {
      this.#waiting.push({ input, resolve, reject });
      this.#running ??= this.#drain();
    });
  }

  /** Resolves when every call made before has been answered. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running;
  }

  async #drain(): Promise<void> {
    // Lets the calls of the same turn of the event loop join the first group.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, this.#options.maxGroup);
      try {
        const outputs = await this.#options.run(group.map(({ input }) => input));
        group.forEach(({ resolve }, index) => resolve(outputs[index] as Output));
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#running = null;
  }
}
