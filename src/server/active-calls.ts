/** Counts calls under way, so that a server that serves one command can wait for the guests of others. */

import type { Interceptor } from "@connectrpc/connect";

export class ActiveCalls {
  #count = 0;
  #waiting: (() => void)[] = [];

  /** Counts a stream until its last message. Calls of workers are not guests. */
  readonly interceptor: Interceptor = (next) => async (request) => {
    if (request.method.name === "WorkerStream") return await next(request);
    this.#count += 1;
    try {
      const response = await next(request);
      if (!response.stream) {
        this.#leave();
        return response;
      }
      return { ...response, message: this.#counted(response.message) };
    } catch (error) {
      this.#leave();
      throw error;
    }
  };

  /** Resolves when no call is under way. */
  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  async *#counted<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } finally {
      this.#leave();
    }
  }

  #leave(): void {
    this.#count -= 1;
    if (this.#count > 0) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
