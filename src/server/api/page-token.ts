/** Pages of a list: what stands in `page_token` is ours and may change, so it is opaque. */

import { AppError } from "../../base/errors.ts";
import type { PageRequest } from "../../storage/store.ts";

const DEFAULT_PAGE_SIZE = 100;
const VERSION = 1;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @throws AppError `invalid_argument` for a token that this server did not make. */
export function pageFromWire(request: { pageSize: number; pageToken: string }): PageRequest {
  return {
    limit: request.pageSize || DEFAULT_PAGE_SIZE,
    cursor: request.pageToken === "" ? null : decodePageToken(request.pageToken),
  };
}

/** Empty on the last page. */
export function pageTokenToWire(cursor: string | null): string {
  return cursor === null
    ? ""
    : Buffer.from(JSON.stringify({ v: VERSION, after: cursor })).toString("base64url");
}

function decodePageToken(token: string): string {
  const after = cursorIn(parse(token));
  if (after !== null) return after;
  throw new AppError(
    "invalid_argument",
    "page_token: not a token of this server; take `next_page_token` of a page as it is",
  );
}

function parse(token: string): unknown {
  try {
    return JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
  } catch {
    // Not JSON, so no token of ours either.
    return null;
  }
}

function cursorIn(content: unknown): string | null {
  if (typeof content !== "object" || content === null) return null;
  if (!("v" in content) || content.v !== VERSION || !("after" in content)) return null;
  return typeof content.after === "string" && UUID.test(content.after) ? content.after : null;
}
