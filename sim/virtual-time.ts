/**
 * The time of a simulated cluster: a heap of events. Nothing happens between two events, and all
 * promises that an event settles have run before the next one.
 */

import { eachTurn } from "../src/base/turns.ts";

interface Entry {
  atMs: number;
  /** Events of the same millisecond happen in the order in which they were asked for. */
  order: number;
  run: (() => void) | null;
}

/** More events than this are a loop that stands still. */
const MAX_EVENTS = 600_000;

export class VirtualTime {
  nowMs = 0;
  events = 0;
  readonly #heap: Entry[] = [];
  #order = 0;

  /** Calls `run` once after `delayMs`. The function that is returned calls it off. */
  schedule(delayMs: number, run: () => void): () => void {
    const entry: Entry = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order, run };
    this.#order += 1;
    push(this.#heap, entry);
    return () => {
      entry.run = null;
    };
  }

  /** Lets events happen until `isOver` says so, or none is left before `endMs`. */
  async run(options: { endMs: number; isOver: () => boolean }): Promise<void> {
    await eachTurn(() => {
      const next = this.#take(options.endMs);
      if (next === null || options.isOver()) return false;
      next();
      return true;
    });
  }

  #take(endMs: number): (() => void) | null {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.atMs > endMs) return null;
      pop(this.#heap);
      if (first.run === null) continue;
      this.nowMs = Math.max(this.nowMs, first.atMs);
      this.events += 1;
      if (this.events > MAX_EVENTS) throw new Error(`more than ${MAX_EVENTS} events: something loops`);
      return first.run;
    }
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function push(heap: Entry[], entry: Entry): void {
  let index = heap.length;
  heap.push(entry);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent] as Entry;
    if (!isBefore(entry, above)) break;
    heap[index] = above;
    index = parent;
  }
  heap[index] = entry;
}

function pop(heap: Entry[]): void {
  const last = heap.pop() as Entry;
  if (heap.length === 0) return;
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= heap.length) break;
    const right = child + 1;
    if (right < heap.length && isBefore(heap[right] as Entry, heap[child] as Entry)) child = right;
    if (!isBefore(heap[child] as Entry, last)) break;
    heap[index] = heap[child] as Entry;
    index = child;
  }
  heap[index] = last;
}
