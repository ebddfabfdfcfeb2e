/** Blobs in memory, for the simulation and for tests. */

import { createHash } from "node:crypto";
import { AppError } from "../../base/errors.ts";
import { requireBlobKey } from "../blob-key.ts";
import type { BlobStore } from "../blob-store.ts";

export function createMemoryBlobStore(): BlobStore {
  const blobs = new Map<string, Uint8Array>();
  return {
    async put(key, chunks) {
      requireBlobKey(key);
      const parts: Uint8Array[] = [];
      for await (const chunk of chunks) parts.push(Uint8Array.from(chunk));
      const bytes = Buffer.concat(parts);
      blobs.set(key, bytes);
      return { bytes: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") };
    },
    async size(key) {
      requireBlobKey(key);
      return blobs.get(key)?.byteLength ?? null;
    },
    async read(key, range) {
      requireBlobKey(key);
      const bytes = blobs.get(key);
      if (!bytes) throw new AppError("not_found", `read blob ${key}: there is no such blob`);
      return Uint8Array.from(bytes.subarray(Math.max(0, range.start), Math.max(range.start, range.end, 0)));
    },
    async remove(key) {
      requireBlobKey(key);
      blobs.delete(key);
    },
  };
}
