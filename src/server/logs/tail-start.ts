/**
 * Finds where the last lines of a log begin, by walking backwards over its records.
 *
 * Lines are counted over the records that match, as a reader will see them: text after the last
 * newline counts as a line. The answer is the beginning of a record, so it may be earlier than the
 * line; it is never later.
 */

import { AppError } from "../../base/errors.ts";
import { MalformedLogError } from "../../core/log-record.ts";
import { matches, type LogSource, type RecordFilter } from "./log-source.ts";
import { recordBefore } from "./record-scan.ts";

const NEWLINE = 10;

export async function tailStart(source: LogSource, filter: RecordFilter, lines: number): Promise<number> {
  const counter = new LineCounter(lines);
  let end = await source.boundaryBefore(source.length());
  for (;;) {
    end = await source.skipBack(end, filter);
    if (end === 0) return 0;
    const bytes = await source.readBefore(end);
    const bytesStart = end - bytes.byteLength;
    const found = walkBack(bytes, { counter, filter, attemptId: source.attemptId, bytesStart });
    if (found.start !== null) return bytesStart + found.start;
    if (found.reached === bytes.byteLength) throw malformed(source.attemptId, end);
    end = bytesStart + found.reached;
  }
}

/** Goes over the records in `bytes`, last first, until the counter has enough or they are used up. */
function walkBack(
  bytes: Uint8Array,
  walk: { counter: LineCounter; filter: RecordFilter; attemptId: string; bytesStart: number },
): { start: number | null; reached: number } {
  let at = bytes.byteLength;
  for (;;) {
    const found = recordBeforeOrLoss(bytes, at, walk);
    if (found === null) return { start: null, reached: at };
    if (matches(walk.filter, found.record)) {
      if (walk.counter.isEnoughWithout(found.record.data)) return { start: at, reached: at };
      walk.counter.add(found.record.data);
      if (walk.counter.isEnough) return { start: found.start, reached: at };
    }
    at = found.start;
  }
}

function recordBeforeOrLoss(
  bytes: Uint8Array,
  at: number,
  walk: { attemptId: string; bytesStart: number },
): ReturnType<typeof recordBefore> {
  try {
    return recordBefore(bytes, at);
  } catch (error) {
    if (error instanceof MalformedLogError) throw malformed(walk.attemptId, walk.bytesStart + at, error);
    throw error;
  }
}

function malformed(attemptId: string, offset: number, cause?: unknown): AppError {
  return new AppError(
    "data_loss",
    `read log of attempt ${attemptId}: it is malformed before byte ${offset}`,
    {
      cause,
    },
  );
}

class LineCounter {
  readonly #wanted: number;
  #lines = 0;
  #isEmpty = true;

  constructor(wanted: number) {
    this.#wanted = wanted;
  }

  /** The first of the wanted lines begins inside what was added. */
  get isEnough(): boolean {
    return this.#lines > this.#wanted;
  }

  /** The first of the wanted lines begins right after `data`, which ends a line. */
  isEnoughWithout(data: Uint8Array): boolean {
    return this.#lines >= this.#wanted && data.at(-1) === NEWLINE;
  }

  /** Adds what stands before everything added so far. */
  add(data: Uint8Array): void {
    if (data.byteLength === 0) return;
    if (this.#isEmpty && data.at(-1) !== NEWLINE) this.#lines += 1;
    this.#isEmpty = false;
    for (let at = data.indexOf(NEWLINE); at >= 0; at = data.indexOf(NEWLINE, at + 1)) this.#lines += 1;
  }
}
