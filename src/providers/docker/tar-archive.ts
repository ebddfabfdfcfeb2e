/**
 * Writes a tar archive (POSIX ustar), the form in which an engine takes files into a container.
 *
 * Names have up to 100 bytes and files up to 8 GiB, which is enough for what is sent here; owner and
 * group are root and times are zero, so that equal files make equal archives.
 */

import { createReadStream } from "node:fs";
import { Readable } from "node:stream";

export type TarEntry =
  | { type: "directory"; name: string; mode: number }
  | { type: "file"; name: string; mode: number; content: Buffer }
  | { type: "file"; name: string; mode: number; path: string; sizeBytes: number };

const BLOCK_BYTES = 512;

/** Directories must come before what is in them. Fails if a file has another size than was said. */
export function tarArchive(entries: readonly TarEntry[]): Readable {
  return Readable.from(tarChunks(entries), { objectMode: false });
}

async function* tarChunks(entries: readonly TarEntry[]): AsyncGenerator<Buffer> {
  for (const entry of entries) {
    if (entry.type === "directory") {
      yield header({ name: entry.name, mode: entry.mode, sizeBytes: 0, kind: "5" });
      continue;
    }
    const sizeBytes = "content" in entry ? entry.content.length : entry.sizeBytes;
    yield header({ name: entry.name, mode: entry.mode, sizeBytes, kind: "0" });
    if ("content" in entry) yield entry.content;
    else yield* fileChunks(entry.path, sizeBytes);
    const rest = sizeBytes % BLOCK_BYTES;
    if (rest > 0) yield Buffer.alloc(BLOCK_BYTES - rest);
  }
  yield Buffer.alloc(2 * BLOCK_BYTES);
}

async function* fileChunks(path: string, sizeBytes: number): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    yield chunk;
  }
  if (size !== sizeBytes) throw new Error(`${path} has changed while it was read`);
}

function header(entry: { name: string; mode: number; sizeBytes: number; kind: "0" | "5" }): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  if (Buffer.byteLength(entry.name) > 100) throw new Error(`name too long for a tar archive: ${entry.name}`);
  block.write(entry.name, 0);
  writeOctal(block, { value: entry.mode, offset: 100, digits: 7 });
  writeOctal(block, { value: 0, offset: 108, digits: 7 });
  writeOctal(block, { value: 0, offset: 116, digits: 7 });
  writeOctal(block, { value: entry.sizeBytes, offset: 124, digits: 11 });
  writeOctal(block, { value: 0, offset: 136, digits: 11 });
  block.fill(" ", 148, 156);
  block.write(entry.kind, 156);
  block.write("ustar\0", 257);
  block.write("00", 263);
  const sum = block.reduce((total, byte) => total + byte, 0);
  // Six digits, NUL and the space that is there already: the one field that is written so.
  writeOctal(block, { value: sum, offset: 148, digits: 6 });
  return block;
}

function writeOctal(block: Buffer, field: { value: number; offset: number; digits: number }): void {
  block.write(`${field.value.toString(8).padStart(field.digits, "0")}\0`, field.offset);
}
