/**
 * Turns what handlers throw into what callers may see (rules in protocol/errors.ts), and ends
 * streams whose call is over.
 */

import type { ConnectError, Interceptor } from "@connectrpc/connect";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { toConnectError } from "../../protocol/errors.ts";

/** Must be the outermost interceptor: it also sees what the others throw. */
export function errorInterceptor(deps: { log: Logger; random: Random }): Interceptor {
  return (next) => async (request) => {
    const convert = (error: unknown): ConnectError =>
      toConnectError(error, (fault) => {
        const errorId = Buffer.from(deps.random.bytes(6)).toString("hex");
        deps.log.error(
          { err: fault, errorId, rpc: `${request.service.typeName}/${request.method.name}` },
          "rpc failed",
        );
        return errorId;
      });
    try {
      const response = await next(request);
      if (!response.stream) return response;
      return { ...response, message: endWithSignal(response.message, { signal: request.signal, convert }) };
    } catch (error) {
      throw convert(error);
    }
  };
}

interface StreamEnd {
  signal: AbortSignal;
  convert: (error: unknown) => ConnectError;
}

/**
 * The same messages, but the stream ends with the signal's reason as soon as the signal aborts (the
 * caller left, or the server stops), whatever its handler waits for. The handler is told by
 * `return`, and cleans up behind our back.
 *
 * Written by hand and not with Promise.race: a race against one promise that lives as long as the
 * stream would keep something in memory for every message.
 */
function endWithSignal<T>(messages: AsyncIterable<T>, end: StreamEnd): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator](): AsyncIterator<T> {
      const inner = messages[Symbol.asyncIterator]();
      let rejectPending: (error: unknown) => void = () => {};
      const onAbort = (): void => {
        rejectPending(end.convert(end.signal.reason));
        close(inner);
      };
      end.signal.addEventListener("abort", onAbort, { once: true });
      const finish = (): void => end.signal.removeEventListener("abort", onAbort);
      return {
        next: () =>
          new Promise((resolve, reject) => {
            if (end.signal.aborted) return reject(end.convert(end.signal.reason));
            rejectPending = reject;
            inner.next().then(
              (result) => {
                if (result.done === true) finish();
                resolve(result);
              },
              (error: unknown) => {
                finish();
                reject(end.convert(error));
              },
            );
          }),
        return: async () => {
          finish();
          close(inner);
          return { done: true, value: undefined };
        },
      };
    },
  };
}

/** Not waited for: a handler in the middle of something hears of it only after that. */
function close(iterator: AsyncIterator<unknown>): void {
  iterator.return?.().catch(() => {
    // The stream has already ended for the caller with a better reason than this.
  });
}
