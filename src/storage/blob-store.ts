/** Where sealed logs (and later artifacts) lie. A key is `[a-z0-9/._-]+` without `..`. */

export interface BlobStore {
  /** Writes a whole blob so that it is either there completely, on disk, or not at all. */
  put(key: string, chunks: AsyncIterable<Uint8Array>): Promise<{ bytes: number; sha256: string }>;
  size(key: string): Promise<number | null>;
  /** Bytes [start, end). Rejects with `AppError("not_found")` for an unknown key. */
  read(key: string, range: { start: number; end: number }): Promise<Uint8Array>;
  /** Succeeds if it is not there. */
  remove(key: string): Promise<void>;
}
