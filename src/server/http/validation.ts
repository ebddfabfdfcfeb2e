/**
 * Holds every request against the constraints of the proto files before a handler sees it.
 *
 * A refusal is `invalid_argument`, and its message names each field by its path
 * (`definition.steps[2].command: …`).
 */

import { isMessage, type DescMessage, type Message } from "@bufbuild/protobuf";
import type { ConnectError, Interceptor } from "@connectrpc/connect";
import { WorkerStreamRequestSchema } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createSurelyValid } from "./surely-valid.ts";

export function validationInterceptor(): Interceptor {
  const check = createCheck();
  return (next) => async (request) => {
    const type = request.method.input;
    if (request.stream)
      return next({ ...request, message: checkEach(request.message, (message) => check(type, message)) });
    const refusal = check(type, request.message);
    if (refusal !== null) await refuse(refusal);
    return next(request);
  };
}

type Refusal = Promise<ConnectError | null>;

/**
 * Null lets the message pass at once. The library that knows every constraint takes long to load
 * and to warm up, which most servers never need: what clients of ours send is right.
 */
function createCheck(): (type: DescMessage, message: Message) => Refusal | null {
  const isSurelyValid = createSurelyValid();
  let library: Promise<(type: DescMessage, message: Message) => ConnectError | null> | null = null;
  const load = async () => (await import("./request-validator.ts")).createRefusalOf();
  return (type, message) => {
    if (isLogBatch(message) || isSurelyValid(type, message)) return null;
    library ??= load();
    return library.then((refusalOf) => refusalOf(type, message));
  };
}

async function refuse(refusal: Refusal): Promise<void> {
  const error = await refusal;
  if (error) throw error;
}

/**
 * Log comes 3,000 times a second, and the log store checks place, size and attempt of each piece
 * by itself.
 */
function isLogBatch(message: Message): boolean {
  return isMessage(message, WorkerStreamRequestSchema) && message.message.case === "logBatch";
}

/** The same messages; written by hand, because a generator costs each of them several more turns. */
function checkEach<T extends Message>(
  messages: AsyncIterable<T>,
  check: (message: T) => Refusal | null,
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator](): AsyncIterator<T> {
      const inner = messages[Symbol.asyncIterator]();
      return {
        async next() {
          const result = await inner.next();
          const refusal = result.done === true ? null : check(result.value);
          if (refusal !== null) await refuse(refusal);
          return result;
        },
        ...(inner.return
          ? { return: (value?: unknown) => inner.return?.(value) as Promise<IteratorResult<T>> }
          : {}),
        ...(inner.throw
          ? { throw: (error?: unknown) => inner.throw?.(error) as Promise<IteratorResult<T>> }
          : {}),
      };
    },
  };
}
