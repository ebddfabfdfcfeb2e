/** Where the socket of the embedded database lies: a directory that only its account may enter. */

import { createHash } from "node:crypto";
import { chmodSync, chownSync, lstatSync, mkdirSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../../base/errors.ts";
import { MAX_SOCKET_PATH_BYTES } from "../../base/socket-path.ts";
import type { Account } from "./account.ts";
import { SOCKET_PORT } from "./postmaster.ts";

/**
 * In `home`, or, if its path is too long for a socket, in the directory for temporary files; in /tmp if
 * that one's is too long as well.
 */
export function runDirectoryOf(home: string): string {
  const near = join(home, "run");
  const name = `hodei-postgres-${createHash("sha256").update(home).digest("hex").slice(0, 16)}`;
  const last = join("/tmp", name);
  return [near, join(realpathSync(tmpdir()), name)].find(fitsSocket) ?? last;
}

function fitsSocket(directory: string): boolean {
  return Buffer.byteLength(join(directory, `.s.PGSQL.${SOCKET_PORT}`)) <= MAX_SOCKET_PATH_BYTES;
}

/**
 * Makes the directory if it is missing. Where others may write too, someone may have made it first
 * to listen in.
 */
export function makePrivate(directory: string, account: Account | null): void {
  if (mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined && account) {
    chownSync(directory, account.uid, account.gid);
  }
  const owner = account?.uid ?? process.getuid?.();
  const made = lstatSync(directory);
  if (!made.isDirectory() || (owner !== undefined && made.uid !== owner)) {
    throw new AppError(
      "failed_precondition",
      `start the embedded database: ${directory} is not a directory of the user with id ${owner}; remove it`,
    );
  }
  if ((made.mode & 0o777) !== 0o700) chmodSync(directory, 0o700);
}
