/** Counts calls under way, so that a server that serves one command can wait for the guests of others. */

import type { Interceptor } from "@connectrpc/connect";

export class ActiveCalls {
  #count = 0;
  #waiting: (() => void)[] = [];

  /** Counts a stream until its last message, or until its caller has left. Calls of workers are not guests. */
  readonly interceptor: Interceptor = (next) => async (request) => {
    if (request.method.name === "WorkerStream") return await next(request);
    const leave = this.#enter();
    // A stream whose caller leaves at once is never read, so its end would never be seen.
    request.signal.addEventListener("abort", leave, { once: true });
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: untilEnd(response.message, leave) };
      leave();
      return response;
    } catch (error) {
      leave();
      throw error;
    }
  };

  /** Resolves when no call is under way. */
  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** The function that is returned takes the call out again, once. */
  #enter(): () => void {
    this.#count += 1;
    let isInside = true;
    return () => {
      if (!isInside) return;
      isInside = false;
      this.#count -= 1;
      if (this.#count > 0) return;
      for (const resolve of this.#waiting.splice(0)) resolve();
    };
  }
}

async function* untilEnd<T>(messages: AsyncIterable<T>, end: () => void): AsyncGenerator<T> {
  try {
    yield* messages;
  } finally {
    end();
  }
}
