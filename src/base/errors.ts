/** One kind of operational failure, with a closed list of codes. */

/** What each code means to a caller. `grpc` is the number of the gRPC status of the same meaning. */
export const ERROR_CODES = {
  invalid_argument: { grpc: 3, retryable: false },
  not_found: { grpc: 5, retryable: false },
  already_exists: { grpc: 6, retryable: false },
  permission_denied: { grpc: 7, retryable: false },
  resource_exhausted: { grpc: 8, retryable: true },
  failed_precondition: { grpc: 9, retryable: false },
  unimplemented: { grpc: 12, retryable: false },
  internal: { grpc: 13, retryable: false },
  unavailable: { grpc: 14, retryable: true },
  data_loss: { grpc: 15, retryable: false },
  unauthenticated: { grpc: 16, retryable: false },
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

/**
 * An operational failure: something outside did not do what was asked. The message says what was
 * attempted on what, and is fit for users; `cause` keeps the error below.
 */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Record<string, unknown> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AppError";
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** The text of whatever was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node.js system error such as `ENOENT`, or null. */
export function systemErrorCode(error: unknown): string | null {
  if (typeof error !== "object" || error === null || !("code" in error)) return null;
  return typeof error.code === "string" ? error.code : null;
}
