/**
 * Who may call what. Asked before a byte of the request's body is read, so that a stranger cannot
 * make the server parse anything.
 */

import { AppError } from "../../base/errors.ts";
import { secretCheck } from "../../base/random.ts";

/** A call as its head says: the path is `/<package>.<Service>/<Method>`. */
export interface CallHead {
  path: string;
  authorization: string | undefined;
}

/** Null lets the call pass. */
export type RpcGuard = (call: CallHead) => AppError | null;

/** Workers prove themselves with their own one-time and session tokens. */
const WORKER_PATHS: readonly string[] = [
  "/hodei.v1.WorkerService/Register",
  "/hodei.v1.WorkerService/WorkerStream",
  "/hodei.v1.WorkerService/Unregister",
];

/** Probes of orchestrators carry no token, and learn no more than "serving". */
const HEALTH_PREFIX = "/grpc.health.v1.Health/";

/** Demands `authorization: Bearer <token>` on every call but those of workers and health probes. */
export function createTokenGuard(options: { token: string }): RpcGuard {
  const isToken = secretCheck(options.token);
  return ({ path, authorization }) => {
    if (WORKER_PATHS.includes(path) || path.startsWith(HEALTH_PREFIX)) return null;
    const given = bearerToken(authorization);
    if (given === null) {
      return new AppError(
        "unauthenticated",
        "this call needs the header `authorization: Bearer <token>`; the token is in the file `api-token` of the server's data directory",
      );
    }
    if (isToken(given)) return null;
    return new AppError(
      "unauthenticated",
      "the token is not the one of this server; it is in the file `api-token` of the server's data directory",
    );
  };
}

/** The token of an `authorization` header (RFC 6750, section 2.1), or null. The scheme's case does not matter. */
export function bearerToken(authorization: string | undefined): string | null {
  const match = /^bearer +([^ ]+) *$/i.exec(authorization ?? "");
  return match?.[1] ?? null;
}
