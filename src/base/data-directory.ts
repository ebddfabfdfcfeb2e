/**
 * Where Hodei keeps its state on this machine, and the names in it that more than one process
 * knows.
 */

import { homedir } from "node:os";
import { join } from "node:path";

/**
 * The data directory when nobody chose one: that of the system for root (PostgreSQL runs as
 * another user then, and a home of root is closed to it), else the XDG place of the user.
 */
export function defaultDataDirectory(
  env: Record<string, string | undefined>,
  uid: number | undefined,
): string {
  if (uid === 0) return "/var/lib/hodei";
  const base = env["XDG_DATA_HOME"] || join(env["HOME"] || homedir(), ".local", "share");
  return join(base, "hodei");
}

/** What a running server leaves for the command line on the same machine. */
export interface ServerFile {
  /** Of the HTTP port, such as `http://127.0.0.1:8080`. */
  url: string;
  pid: number;
  instanceId: string;
  /** It serves what is stored and runs nothing. */
  readOnly: boolean;
}

export function serverFilePath(dataDirectory: string): string {
  return join(dataDirectory, "server.json");
}

/** The token of the public API, readable by the owner only. */
export function apiTokenPath(dataDirectory: string): string {
  return join(dataDirectory, "api-token");
}
