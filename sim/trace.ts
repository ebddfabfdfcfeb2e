/** What happened, in short lines: the last ones are shown with a failure, and all are hashed. */

import type { VirtualTime } from "./virtual-time.ts";

const KEPT_LINES = 60;

export class Trace {
  readonly #time: VirtualTime;
  readonly #onLine: ((line: string) => void) | null;
  readonly #names = new Map<string, string>();
  readonly #lines: string[] = [];
  #hash = 0x811c9dc5;

  constructor(time: VirtualTime, onLine: ((line: string) => void) | null) {
    this.#time = time;
    this.#onLine = onLine;
  }

  /** Equal for two runs in which the same happened at the same times. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  get lastLines(): readonly string[] {
    return this.#lines;
  }

  /** Ids are long, and all alike. */
  name(id: string, kind: string): string {
    const known = this.#names.get(id);
    if (known) return known;
    const name = `${kind}${this.#names.size + 1}`;
    this.#names.set(id, name);
    return name;
  }

  add(text: string): void {
    const line = `${(this.#time.nowMs / 1000).toFixed(3).padStart(9)} ${text}`;
    for (let index = 0; index < line.length; index += 1) {
      this.#hash = Math.imul(this.#hash ^ line.charCodeAt(index), 0x01000193);
    }
    this.#onLine?.(line);
    this.#lines.push(line);
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
  }
}
