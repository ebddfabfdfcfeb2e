/** Messages between agent and runner go over the runner's Unix socket, one JSON object a line. */

/** A line may be as long as a job definition with a 1 MiB script. */
const MAX_LINE_BYTES = 64 * 1024 * 1024;

/** Cuts a byte stream into lines; keeps the rest for the next call. */
export class LineSplitter {
  #pieces: Buffer[] = [];
  #length = 0;

  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(10, start);
      if (end < 0) break;
      this.#pieces.push(chunk.subarray(start, end));
      lines.push(Buffer.concat(this.#pieces).toString("utf8"));
      this.#pieces = [];
      this.#length = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      this.#pieces.push(chunk.subarray(start));
      this.#length += chunk.length - start;
      if (this.#length > MAX_LINE_BYTES) throw new Error("runner link: a line is too long");
    }
    return lines;
  }
}
