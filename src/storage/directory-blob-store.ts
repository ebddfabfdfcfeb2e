/**
 * Blobs as files below one directory. A blob is written beside its place, forced to disk and then
 * renamed, so a crash leaves the whole blob or none; what a crash left half-written in `.partial`
 * is removed when the store is opened again.
 */

import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { mkdir, open, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError, errorMessage, systemErrorCode, type ErrorCode } from "../base/errors.ts";
import { requireBlobKey } from "./blob-key.ts";
import type { BlobStore } from "./blob-store.ts";

/** `directory` is made if it is missing. One process at a time may write to it. */
export function openDirectoryBlobStore(directory: string): BlobStore {
  const partialDirectory = join(directory, PARTIAL);
  try {
    mkdirSync(partialDirectory, { recursive: true, mode: 0o700 });
    removeLeftovers(partialDirectory);
  } catch (error) {
    throw blobError(`open blob directory ${directory}`, error);
  }
  const pathOf = (key: string) => {
    requireBlobKey(key);
    return join(directory, key);
  };
  return {
    put: (key, chunks) => putBlob({ directory, path: pathOf(key), key, chunks }),
    async size(key) {
      try {
        return (await stat(pathOf(key))).size;
      } catch (error) {
        if (isMissing(error)) return null;
        throw blobError(`read size of blob ${key}`, error);
      }
    },
    async read(key, range) {
      try {
        return await readRange(pathOf(key), range);
      } catch (error) {
        throw blobError(`read blob ${key}`, error);
      }
    },
    async remove(key) {
      try {
        await rm(pathOf(key), { force: true });
      } catch (error) {
        if (!isMissing(error)) throw blobError(`remove blob ${key}`, error);
      }
    },
  };
}

/** No key is like this: `..` is refused. */
const PARTIAL = "..partial";
/** Younger ones may belong to a write of another process that is still under way. */
const LEFTOVER_AGE_MS = 24 * 60 * 60_000;

function removeLeftovers(partialDirectory: string): void {
  const files = readdirSync(partialDirectory).map((name) => join(partialDirectory, name));
  const ages = files.map((path) => ({
    path,
    changedAtMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0,
  }));
  const newestMs = Math.max(
    0,
    statSync(partialDirectory).mtimeMs,
    ...ages.map(({ changedAtMs }) => changedAtMs),
  );
  for (const { path, changedAtMs } of ages) {
    if (changedAtMs < newestMs - LEFTOVER_AGE_MS) rmSync(path, { force: true });
  }
}

async function putBlob(blob: {
  directory: string;
  path: string;
  key: string;
  chunks: AsyncIterable<Uint8Array>;
}): Promise<{ bytes: number; sha256: string }> {
  const partial = join(blob.directory, PARTIAL, randomBytes(12).toString("hex"));
  try {
    const written = await writeWhole(partial, blob.chunks);
    await makeDirectories(blob.directory, dirname(blob.path));
    await rename(partial, blob.path);
    await syncDirectory(dirname(blob.path));
    return written;
  } catch (error) {
    await rm(partial, { force: true });
    throw blobError(`write blob ${blob.key} in ${blob.directory}`, error);
  }
}

async function writeWhole(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  const file = await open(path, "wx", 0o600);
  try {
    for await (const chunk of chunks) {
      hash.update(chunk);
      await writeFully(file, chunk);
      bytes += chunk.byteLength;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** A disk that is nearly full takes only a part of a write. */
async function writeFully(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let offset = 0;
  while (offset < chunk.byteLength) {
    const { bytesWritten } = await file.write(chunk, offset, chunk.byteLength - offset);
    offset += bytesWritten;
  }
}

/** Makes missing directories and forces each new entry to disk: a file is only as safe as its path. */
async function makeDirectories(root: string, directory: string): Promise<void> {
  const first = await mkdir(directory, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let made = directory; made.length >= first.length; made = dirname(made)) {
    await syncDirectory(dirname(made));
    if (made === root) return;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function readRange(path: string, range: { start: number; end: number }): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const start = Math.min(Math.max(0, range.start), size);
    const bytes = new Uint8Array(Math.max(0, Math.min(range.end, size) - start));
    let filled = 0;
    while (filled < bytes.byteLength) {
      const { bytesRead } = await file.read(bytes, filled, bytes.byteLength - filled, start + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled === bytes.byteLength ? bytes : bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

const CODE_OF_ERRNO: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "not_found",
  ENOTDIR: "not_found",
  EISDIR: "not_found",
  ENOSPC: "resource_exhausted",
  EDQUOT: "resource_exhausted",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  EROFS: "permission_denied",
  EMFILE: "resource_exhausted",
};

function isMissing(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

function blobError(what: string, error: unknown): unknown {
  const errno = systemErrorCode(error);
  // Whatever the source of the chunks threw is the caller's own and goes back as it is.
  if (error instanceof AppError || errno === null) return error;
  return new AppError(CODE_OF_ERRNO[errno] ?? "unavailable", `${what}: ${errorMessage(error)}`, {
    cause: error,
  });
}
