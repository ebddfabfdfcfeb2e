/**
 * Answers a call with an error before Connect sees it, in the protocol that the caller speaks, so
 * that its client library shows code and message like those of any other error.
 */

import type { ConnectError } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  endStreamFlag,
  endStreamToJson,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";

/** The part of HTTP/1.1 and HTTP/2 responses of Node.js that is needed here. */
export interface RefusalTarget {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(): unknown;
  end(body: Uint8Array): unknown;
}

export function refuseCall(
  error: ConnectError,
  call: { contentType: string | undefined; response: RefusalTarget },
): void {
  const { response } = call;
  const contentType = (call.contentType ?? "").toLowerCase();
  if (contentType.startsWith("application/grpc")) {
    // "Trailers-Only" of the gRPC specification, which gRPC-Web knows too. There must be no body,
    // not even an empty one, or the headers do not end the stream and C++ clients see no status.
    response.statusCode = 200;
    response.setHeader("content-type", contentType);
    setTrailerStatus(new Headers(), error).forEach((value, name) => response.setHeader(name, value));
    response.end();
  } else if (contentType.startsWith("application/connect+")) {
    const end = new TextEncoder().encode(JSON.stringify(endStreamToJson(new Headers(), error, undefined)));
    response.statusCode = 200;
    response.setHeader("content-type", contentType);
    response.end(encodeEnvelope(endStreamFlag, end));
  } else {
    response.statusCode = codeToHttpStatus(error.code);
    response.setHeader("content-type", "application/json");
    response.end(errorToJsonBytes(error, undefined));
  }
}
