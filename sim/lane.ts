/**
 * One direction of a connection: what is sent arrives in order, after a while, or not at all.
 *
 * The sender waits when too much is on its way, as the flow control of HTTP/2 makes it. A lane that
 * is held loses nothing, like a TCP connection over a network that is away for a while; a lane that
 * is cut loses what is under way, and the far end does not notice by itself.
 */

import type { SimRandom } from "./sim-random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** Messages on their way, or waiting for the receiver. */
const WINDOW_MESSAGES = 24;

export interface WireConditions {
  minLatencyMs: number;
  maxLatencyMs: number;
  bytesPerMs: number;
}

export class Lane<T> {
  /** The network below is away. */
  isHeld = false;
  isCut = false;
  readonly #time: VirtualTime;
  readonly #random: SimRandom;
  readonly #conditions: WireConditions;
  readonly #arrive: (item: T) => void;
  readonly #queue: { item: T; atMs: number }[] = [];
  readonly #waiting: (() => void)[] = [];
  #outstanding = 0;
  #lastArrivalMs = 0;
  #isTicking = false;

  constructor(deps: {
    time: VirtualTime;
    random: SimRandom;
    conditions: WireConditions;
    arrive: (item: T) => void;
  }) {
    this.#time = deps.time;
    this.#random = deps.random;
    this.#conditions = deps.conditions;
    this.#arrive = deps.arrive;
  }

  put(item: T, bytes = 0): void {
    if (this.isCut) return;
    const { minLatencyMs, maxLatencyMs, bytesPerMs } = this.#conditions;
    const latencyMs = this.#random.between(minLatencyMs, maxLatencyMs) + bytes / bytesPerMs;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, this.#time.nowMs + latencyMs);
    this.#outstanding += 1;
    this.#queue.push({ item, atMs: this.#lastArrivalMs });
    this.#tick();
  }

  /** Resolves when one more message may be sent. */
  async room(): Promise<void> {
    while (this.#outstanding >= WINDOW_MESSAGES && !this.isCut) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** The receiver has taken a message. */
  taken(): void {
    this.#outstanding -= 1;
    this.#waiting.shift()?.();
  }

  hold(): void {
    this.isHeld = true;
  }

  release(): void {
    if (!this.isHeld) return;
    this.isHeld = false;
    this.#tick();
  }

  /** What is under way is lost, and whatever is sent from now on. */
  cut(): void {
    this.isCut = true;
    this.#queue.length = 0;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #tick(): void {
    const first = this.#queue[0];
    if (first === undefined || this.#isTicking || this.isHeld) return;
    this.#isTicking = true;
    this.#time.schedule(first.atMs - this.#time.nowMs, () => {
      this.#isTicking = false;
      if (this.isHeld || this.isCut) return;
      const next = this.#queue.shift();
      this.#tick();
      if (next) this.#arrive(next.item);
    });
  }
}
