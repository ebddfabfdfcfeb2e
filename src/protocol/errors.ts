/**
 * The one kind of error of this program, on its way over the wire and back.
 *
 * On its way out (`toConnectError`):
 * - an `AppError` becomes the status of its code, with its message as it is, for it is fit for
 *   users. Its `cause` is kept on the error object and its `details` stay behind: neither leaves
 *   the process;
 * - a `ConnectError` stays what it is: the library made it (a time-out, a message that cannot be
 *   parsed), or a handler that knows what it does;
 * - what an abort leaves behind becomes `canceled`: the caller is gone and nobody reads it;
 * - everything else is a fault of ours: the caller gets `internal` and an id, and never the
 *   message, which may hold anything. `report` writes the error to the log under that id.
 *
 * On its way in (`fromConnectError`) an error becomes an `AppError` whose message says what was
 * attempted. Statuses that have no code of their own here take the one that leads the caller to
 * do the right thing: what may go well the next time is `unavailable`.
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { AppError, ERROR_CODES, errorMessage, type ErrorCode } from "../base/errors.ts";

/** @param report logs an error that nobody expected, and returns the id that it was logged under. */
export function toConnectError(error: unknown, report: (error: unknown) => string): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof AppError) {
    return new ConnectError(error.message, connectCode(error.code), undefined, undefined, error);
  }
  if (error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError")) {
    return new ConnectError("the call was given up", Code.Canceled, undefined, undefined, error);
  }
  const id = report(error);
  return new ConnectError(
    `internal error ${id}; the server's log says more under this id`,
    Code.Internal,
    undefined,
    undefined,
    error,
  );
}

/** @param attempted what the caller tried, on what: `cancel job 0198…`. */
export function fromConnectError(error: unknown, attempted: string): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof ConnectError) {
    return new AppError(APP_CODE[error.code], `${attempted}: ${error.rawMessage}`, { cause: error });
  }
  return new AppError("internal", `${attempted}: ${errorMessage(error)}`, { cause: error });
}

/** Connect numbers its codes as gRPC does. */
function connectCode(code: ErrorCode): Code {
  return ERROR_CODES[code].grpc;
}

const APP_CODE: Readonly<Record<Code, ErrorCode>> = {
  [Code.Canceled]: "unavailable",
  [Code.Unknown]: "internal",
  [Code.InvalidArgument]: "invalid_argument",
  [Code.DeadlineExceeded]: "unavailable",
  [Code.NotFound]: "not_found",
  [Code.AlreadyExists]: "already_exists",
  [Code.PermissionDenied]: "permission_denied",
  [Code.ResourceExhausted]: "resource_exhausted",
  [Code.FailedPrecondition]: "failed_precondition",
  [Code.Aborted]: "unavailable",
  [Code.OutOfRange]: "invalid_argument",
  [Code.Unimplemented]: "unimplemented",
  [Code.Internal]: "internal",
  [Code.Unavailable]: "unavailable",
  [Code.DataLoss]: "data_loss",
  [Code.Unauthenticated]: "unauthenticated",
};
