/**
 * Unix sockets whose path is longer than an address holds.
 *
 * `sun_path` has 108 bytes on Linux and 104 elsewhere (unix(7)), and Node.js cuts what is longer without
 * a word: two sockets would be one, in a directory above. The name of an open directory in /proc is
 * short, whatever its path.
 */

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { AppError } from "./errors.ts";

/** With the final NUL it fills the address. */
export const MAX_SOCKET_PATH_BYTES = process.platform === "linux" ? 107 : 103;

/**
 * Listens or connects: calls `use` with `path`, or with a short name of the same file that holds until
 * what `use` returns is settled.
 *
 * @throws AppError `failed_precondition` if the path is too long where there is no /proc
 */
export async function withSocketPath<T>(path: string, use: (path: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return await use(path);
  if (process.platform !== "linux") {
    throw new AppError(
      "failed_precondition",
      `open socket ${path}: its path has more than ${MAX_SOCKET_PATH_BYTES} bytes`,
    );
  }
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${directory.fd}/${basename(path)}`);
  } finally {
    await directory.close();
  }
}
