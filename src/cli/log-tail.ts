/** Keeps exactly the last lines of what passes through. */

import type { LogPiece } from "./log-printer.ts";

const NEWLINE = 10;
/** Lines without end must not fill the memory: what is older than this is let go. */
const MAX_TAIL_BYTES = 64 * 1024 * 1024;

export class LogTail {
  readonly #lines: number;
  #pieces: { piece: LogPiece; newlines: number }[] = [];
  #first = 0;
  #newlines = 0;
  #bytes = 0;

  constructor(lines: number) {
    this.#lines = lines;
  }

  push(piece: LogPiece): void {
    if (piece.data.length === 0) return;
    const newlines = countNewlines(piece.data);
    // A copy: the piece is a part of a larger message, which would be held as a whole.
    this.#pieces.push({ piece: { ...piece, data: Uint8Array.prototype.slice.call(piece.data) }, newlines });
    this.#newlines += newlines;
    this.#bytes += piece.data.length;
    this.#dropOld();
  }

  /** The last lines over all pieces; a last line without a newline counts as one. */
  pieces(): LogPiece[] {
    const kept = this.#pieces.slice(this.#first).map(({ piece }) => piece);
    let wanted = this.#lines;
    for (let index = kept.length - 1; index >= 0; index -= 1) {
      const piece = kept[index];
      if (!piece) continue;
      const isLast = index === kept.length - 1;
      for (let at = piece.data.length - 1; at >= 0; at -= 1) {
        // The newline that ends the last line does not begin another one.
        if (piece.data[at] !== NEWLINE || (isLast && at === piece.data.length - 1)) continue;
        wanted -= 1;
        if (wanted === 0) return [{ ...piece, data: piece.data.subarray(at + 1) }, ...kept.slice(index + 1)];
      }
    }
    return kept;
  }

  #dropOld(): void {
    for (;;) {
      const oldest = this.#pieces[this.#first];
      if (!oldest || this.#first === this.#pieces.length - 1) break;
      // One newline may be the one that ends the last line, so one more than wanted is needed.
      const isNeeded = this.#newlines - oldest.newlines <= this.#lines;
      if (isNeeded && this.#bytes <= MAX_TAIL_BYTES) break;
      this.#newlines -= oldest.newlines;
      this.#bytes -= oldest.piece.data.length;
      this.#first += 1;
    }
    if (this.#first > 1000 && this.#first * 2 > this.#pieces.length) {
      this.#pieces = this.#pieces.slice(this.#first);
      this.#first = 0;
    }
  }
}

function countNewlines(data: Uint8Array): number {
  let count = 0;
  for (let at = data.indexOf(NEWLINE); at >= 0; at = data.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}
