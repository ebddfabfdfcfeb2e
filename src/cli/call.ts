/** Calls of the API, whose failures say what was attempted. */

import { AppError } from "../base/errors.ts";
import { fromConnectError } from "../protocol/errors.ts";
import { asUnavailable } from "./no-server-there.ts";

/** @throws AppError that begins with `attempted`; each field that the server refused is a problem. */
export async function call<T>(attempted: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw explain(error, attempted);
  }
}

export function explain(error: unknown, attempted: string): AppError {
  const failure = asUnavailable(withoutEcho(fromConnectError(error, attempted), attempted));
  if (failure.code !== "invalid_argument" || "problems" in failure.details) return failure;
  const why = failure.message.startsWith(`${attempted}: `)
    ? failure.message.slice(attempted.length + 2)
    : failure.message;
  const problems = why.split("; ").filter((problem) => problem !== "");
  // One problem fits on the line; of several, each gets its own.
  if (problems.length < 2) return failure;
  return new AppError(failure.code, `${attempted}: the server refused ${problems.length} values`, {
    cause: failure.cause,
    details: { problems },
  });
}

/** A server that says itself what was attempted, with the whole id, need not be introduced. */
function withoutEcho(failure: AppError, attempted: string): AppError {
  const action = attempted.split(" ").slice(0, 2).join(" ");
  const isEcho = [" ", ":"].some((end) => failure.message.startsWith(`${attempted}: ${action}${end}`));
  if (!isEcho) return failure;
  const message = failure.message.slice(attempted.length + 2);
  return new AppError(failure.code, message, { cause: failure.cause, details: failure.details });
}
