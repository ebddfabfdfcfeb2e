/**
 * Why a server could not be talked to, with what to do about it. The texts of the layers below, such
 * as "Protocol error", tell nobody that the port is the wrong one.
 */

import { Code, ConnectError } from "@connectrpc/connect";
import { systemErrorCode } from "../base/errors.ts";

export interface DialProblem {
  /** What to look at; empty if nothing is known. */
  hint: string;
  /** Trying again does not help: somebody has to change a setting. */
  isPermanent: boolean;
}

const UNTRUSTED: ReadonlySet<string> = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);
const OUT_OF_DATE: ReadonlySet<string> = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"]);
const UNREACHABLE: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
]);
const WORKER_PORT = "--server must name the port for workers, 9090 by default, and not the one for people";

/** Of an error that a call gave before the server itself had answered. */
export function dialProblem(error: unknown, serverUrl: string): DialProblem {
  const { code, cause, rawMessage } = ConnectError.from(error);
  const system = systemErrorCode(cause) ?? "";
  const isTls = serverUrl.startsWith("https:");
  if (system === "ERR_SSL_WRONG_VERSION_NUMBER") {
    return { hint: "the server speaks no TLS there: give --server as http://…", isPermanent: true };
  }
  if (system === "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL")
    return { hint: WORKER_PORT, isPermanent: true };
  if (system === "ERR_TLS_CERT_ALTNAME_INVALID") {
    const hint =
      "the certificate of the server is for another name: give --server with the name that is in it";
    return { hint, isPermanent: true };
  }
  if (UNTRUSTED.has(system)) {
    const hint =
      "the certificate of the server is not trusted: name the file of its CA in NODE_EXTRA_CA_CERTS";
    return { hint, isPermanent: true };
  }
  if (OUT_OF_DATE.has(system)) {
    return { hint: "look at the certificate of the server, and at both clocks", isPermanent: false };
  }
  // Also what a proxy answers while the server behind it is away.
  if (system === "ERR_HTTP2_ERROR" || /content type/.test(rawMessage))
    return { hint: WORKER_PORT, isPermanent: false };
  if (code === Code.Canceled && !isTls) {
    const hint = "the server ended the connection; if it speaks TLS there, give --server as https://…";
    return { hint, isPermanent: false };
  }
  if (UNREACHABLE.has(system) || code === Code.DeadlineExceeded) {
    const hint = "is the server running, and can it be reached from here?";
    if (new URL(serverUrl).port !== "") return { hint, isPermanent: false };
    // Most who give no port have forgotten it.
    const port = `--server names no port, so ${isTls ? 443 : 80} was dialled; that for workers is 9090 by default`;
    return { hint: `${hint} ${port}`, isPermanent: false };
  }
  return { hint: "", isPermanent: false };
}
