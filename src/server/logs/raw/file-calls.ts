/**
 * The calls of the file system that the log store makes, on plain descriptors: a `FileHandle` costs
 * a wrapper per call, and this is the hottest path of the server.
 */

import * as fs from "node:fs";

export function openFile(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, 0o600, (error, fd) => (error ? reject(error) : resolve(fd)));
  });
}

export function closeFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.close(fd, (error) => (error ? reject(error) : resolve()));
  });
}

/** Resolves when the bytes written before the call, and the length they gave the file, are on disk. */
export function syncFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.fdatasync(fd, (error) => (error ? reject(error) : resolve()));
  });
}

export function truncateFile(fd: number, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fs.ftruncate(fd, bytes, (error) => (error ? reject(error) : resolve()));
  });
}

export function fileBytes(fd: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.fstat(fd, (error, stats) => (error ? reject(error) : resolve(stats.size)));
  });
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const fd = await openFile(path, fs.constants.O_RDONLY);
  try {
    await new Promise<void>((resolve, reject) => {
      fs.fsync(fd, (error) => (error ? reject(error) : resolve()));
    });
  } finally {
    await closeFile(fd);
  }
}

/** Writes all of `pieces` at `position`, also if the system takes them in parts. */
export async function writeFully(fd: number, pieces: readonly Uint8Array[], position: number): Promise<void> {
  let rest = pieces;
  for (;;) {
    const written = await writeSome(fd, rest, position);
    position += written;
    rest = dropBytes(rest, written);
    if (rest.length === 0) return;
  }
}

function writeSome(fd: number, pieces: readonly Uint8Array[], position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.writev(fd, pieces, position, (error, written) => (error ? reject(error) : resolve(written)));
  });
}

function dropBytes(pieces: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let index = 0;
  for (; index < pieces.length; index += 1) {
    const size = pieces[index]?.byteLength ?? 0;
    if (size > bytes) break;
    bytes -= size;
  }
  const rest = pieces.slice(index);
  if (bytes > 0 && rest[0]) rest[0] = rest[0].subarray(bytes);
  return rest;
}

/** The bytes from `position` on: fewer than asked only where the file ends. */
export async function readFully(fd: number, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  let filled = 0;
  while (filled < bytes) {
    const count = await readSome(fd, buffer, { filled, position: position + filled });
    if (count === 0) break;
    filled += count;
  }
  return filled === bytes ? buffer : buffer.subarray(0, filled);
}

function readSome(fd: number, buffer: Buffer, at: { filled: number; position: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    const wanted = buffer.byteLength - at.filled;
    fs.read(fd, buffer, at.filled, wanted, at.position, (error, count) =>
      error ? reject(error) : resolve(count),
    );
  });
}
