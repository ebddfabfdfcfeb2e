/**
 * Failures of a connection that the client library takes for faults of this program, such as "write
 * EPIPE" for a port that speaks something else: no server was reached, and some tell why.
 */

import { AppError, systemErrorCode } from "../base/errors.ts";

const IS_THERE = "is the server running, and is it the port for people and tools, 8080 by default?";
const NO_TLS = "the server speaks no TLS there: give its address as http://…";
const UNTRUSTED =
  "the certificate of the server is not trusted: name the file of its CA in NODE_EXTRA_CA_CERTS";
const OTHER_NAME = "the certificate of the server is for another name: give its address with that name";

/** By the code of the error, or its beginning. */
const HINTS: readonly (readonly [string, string])[] = [
  ["EPIPE", IS_THERE],
  ["HPE_", IS_THERE],
  ["EHOSTUNREACH", ""],
  ["EHOSTDOWN", ""],
  ["ENETUNREACH", ""],
  ["ENETDOWN", ""],
  ["EPROTO", NO_TLS],
  ["ERR_SSL_WRONG_VERSION_NUMBER", NO_TLS],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", UNTRUSTED],
  ["SELF_SIGNED_CERT_IN_CHAIN", UNTRUSTED],
  ["UNABLE_TO_", UNTRUSTED],
  ["ERR_TLS_CERT_ALTNAME_INVALID", OTHER_NAME],
];

/** The failure as `unavailable` if its cause is one of these, else as it is. */
export function asUnavailable(failure: AppError): AppError {
  const hint = failure.code === "internal" ? hintOf(failure) : null;
  if (hint === null) return failure;
  return new AppError("unavailable", failure.message, {
    cause: failure.cause,
    details: { ...failure.details, hint },
  });
}

/** Nothing at this address has ever been a server: to wait for it would make no sense. */
export function isNoServerThere(failure: AppError): boolean {
  return hintOf(failure) !== null || codesOf(failure).some((code) => NEVER_REACHED.includes(code));
}

const NEVER_REACHED = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT"];

function hintOf(failure: AppError): string | null {
  for (const code of codesOf(failure)) {
    const found = HINTS.find(([beginning]) => code.startsWith(beginning));
    if (found) return found[1];
  }
  return null;
}

/** Of the error and all its causes. */
function codesOf(failure: unknown): string[] {
  const codes: string[] = [];
  for (let error = failure; error instanceof Error; error = error.cause) {
    const code = systemErrorCode(error);
    if (code !== null) codes.push(code);
  }
  return codes;
}
