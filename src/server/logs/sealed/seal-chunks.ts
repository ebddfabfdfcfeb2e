/**
 * Turns a raw log into the bytes of a sealed one: frames of whole records, each a gzip member of its
 * own, then the index and the footer.
 *
 * The frames alone are a valid gzip file, so `zcat` gets the records back even without Hodei. At
 * most two frames of a log are in memory, and a gate over all logs leaves threads of the pool free
 * for those who append.
 */

import { gzip, gzipSync } from "node:zlib";
import { AppError } from "../../../base/errors.ts";
import type { Gate } from "../gate.ts";
import { ALL_STREAMS, MAX_RECORD_BYTES, scanRecords } from "../record-scan.ts";
import { encodeFooter, encodeIndex, type Frame } from "./sealed-index.ts";

/** A frame has at least this many bytes of log, except the last one. */
const FRAME_LOG_BYTES = 1024 * 1024;
const FRAMES_AHEAD = 2;
/** Fast, and text still shrinks to about a fifth. */
const COMPRESSION_LEVEL = 1;
/** Below this, a round trip to the pool costs more than the compression. */
const COMPRESS_AT_ONCE_BYTES = 8 * 1024;
/** The window fits the bytes: the usual one costs a quarter of a megabyte to set up. */
const SMALL_COMPRESSION = { level: COMPRESSION_LEVEL, windowBits: 13, memLevel: 5, chunkSize: 8 * 1024 };

export interface SealInput {
  attemptId: string;
  /** Bytes of the raw log. */
  length: number;
  /** Bytes of the raw log from `start`. Rejects or answers short only if the file is damaged. */
  read: (start: number, bytes: number) => Promise<Uint8Array>;
  compressing: Gate;
  signal: AbortSignal;
  /** Told the length of the sealed log: without a last record that is not whole. */
  onLength: (logBytes: number) => void;
}

export async function* sealChunks(input: SealInput): AsyncGenerator<Uint8Array> {
  const frames: Frame[] = [];
  let blobBytes = 0;
  let logBytes = 0;
  for await (const { frame, compressed } of ahead(cutFrames(input), FRAMES_AHEAD)) {
    frames.push({ ...frame, blobStart: blobBytes, blobBytes: compressed.byteLength });
    blobBytes += compressed.byteLength;
    logBytes += frame.logBytes;
    yield compressed;
  }
  input.onLength(logBytes);
  const index = encodeIndex(frames);
  yield Buffer.concat([index, encodeFooter(index, { logBytes, indexStart: blobBytes })]);
}

type CutFrame = Omit<Frame, "blobStart" | "blobBytes">;

/** Yields frames whose compression has begun. */
async function* cutFrames(
  input: SealInput,
): AsyncGenerator<{ done: Promise<{ frame: CutFrame; compressed: Buffer }> }> {
  let start = 0;
  while (start < input.length) {
    if (input.signal.aborted) {
      throw new AppError("unavailable", `seal log of attempt ${input.attemptId}: the server is stopping`);
    }
    const wanted = Math.min(FRAME_LOG_BYTES + MAX_RECORD_BYTES, input.length - start);
    const bytes = await input.read(start, wanted);
    if (bytes.byteLength < wanted) {
      throw new AppError("data_loss", `seal log of attempt ${input.attemptId}: its file is too short`);
    }
    const frame = cutFrame(bytes, start);
    if (frame === null) return;
    start += frame.logBytes;
    const done = compress(bytes.subarray(0, frame.logBytes), input.compressing);
    yield { done: done.then((compressed) => ({ frame, compressed })) };
  }
}

/** Null if only the beginning of a record is left. Bytes that are no record are kept as they are. */
function cutFrame(bytes: Uint8Array, logStart: number): CutFrame | null {
  const scan = scanRecords(bytes, FRAME_LOG_BYTES);
  if (scan.end > 0) {
    const { end: logBytes, earliestMs, latestMs, streams } = scan;
    return { logStart, logBytes, earliestMs, latestMs, streams };
  }
  if (!scan.isMalformed) return null;
  const logBytes = bytes.byteLength;
  return { logStart, logBytes, earliestMs: -Infinity, latestMs: Infinity, streams: ALL_STREAMS };
}

function compress(bytes: Uint8Array, gate: Gate): Promise<Buffer> {
  if (bytes.byteLength <= COMPRESS_AT_ONCE_BYTES) {
    return Promise.resolve(gzipSync(bytes, SMALL_COMPRESSION));
  }
  // One chunk for the whole result: each further one would be another round trip to the pool.
  const options = { level: COMPRESSION_LEVEL, chunkSize: bytes.byteLength + 1024 };
  return gate.run(
    () =>
      new Promise<Buffer>((resolve, reject) => {
        gzip(bytes, options, (error, compressed) => (error ? reject(error) : resolve(compressed)));
      }),
  );
}

/** Keeps `count` results under way, and gives them in order. */
async function* ahead<T>(source: AsyncIterable<{ done: Promise<T> }>, count: number): AsyncGenerator<T> {
  const underWay: Promise<T>[] = [];
  for await (const { done } of source) {
    // Its rejection is seen when its turn comes, unless the consumer has left by then.
    done.catch(() => {});
    underWay.push(done);
    const first = underWay.length >= count ? underWay.shift() : undefined;
    if (first) yield await first;
  }
  for (const done of underWay) yield await done;
}
