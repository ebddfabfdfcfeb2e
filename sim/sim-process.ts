/**
 * Machines and the processes on them, as far as time goes: a process can be killed or stopped, a
 * machine can be suspended, and its wall clock may be wrong and jump.
 *
 * Everything that reaches a process passes `deliver`: what comes for a dead one is lost, what comes
 * for a stopped one waits. So a killed process never takes another step.
 */

import type { Clock } from "../src/base/clock.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** What the wall clocks show when the simulation begins. */
export const EPOCH_MS = 1_700_000_000_000;

export class SimHost {
  readonly time: VirtualTime;
  readonly name: string;
  /** How wrong the wall clock is. */
  wallOffsetMs = 0;
  isSuspended = false;
  /** When the last suspension ended: the programs have not looked at the clock yet. */
  resumedAtMs = Number.NEGATIVE_INFINITY;
  #suspendedMs = 0;
  #suspendedSinceMs = 0;
  #parked: (() => void)[] = [];

  constructor(time: VirtualTime, name: string) {
    this.time = time;
    this.name = name;
  }

  /** Stands still while the machine is suspended, as CLOCK_MONOTONIC does. */
  get monotonicMs(): number {
    const nowMs = this.isSuspended ? this.#suspendedSinceMs : this.time.nowMs;
    return nowMs - this.#suspendedMs;
  }

  /** Goes on while the machine is suspended, as CLOCK_BOOTTIME does. */
  get bootMs(): number {
    return this.time.nowMs;
  }

  get wallMs(): number {
    return Math.floor(EPOCH_MS + this.time.nowMs + this.wallOffsetMs);
  }

  suspend(): void {
    if (this.isSuspended) return;
    this.isSuspended = true;
    this.#suspendedSinceMs = this.time.nowMs;
  }

  resume(): void {
    if (!this.isSuspended) return;
    this.isSuspended = false;
    this.resumedAtMs = this.time.nowMs;
    this.#suspendedMs += this.time.nowMs - this.#suspendedSinceMs;
    for (const run of this.#parked.splice(0)) this.time.schedule(0, run);
  }

  park(run: () => void): void {
    this.#parked.push(run);
  }
}

export class SimProcess {
  readonly host: SimHost;
  readonly name: string;
  readonly clock: Clock;
  isAlive = true;
  isStopped = false;
  readonly #onDeath: (() => void)[] = [];
  #parked: (() => void)[] = [];

  constructor(host: SimHost, name: string) {
    this.host = host;
    this.name = name;
    this.clock = processClock(this);
  }

  /** Runs `run` inside the process, as soon as it can. */
  deliver(run: () => void): void {
    if (!this.isAlive) return;
    if (this.host.isSuspended) this.host.park(() => this.deliver(run));
    else if (this.isStopped) this.#parked.push(run);
    else run();
  }

  /** The same, after a time on the wire or the like. */
  deliverAfter(delayMs: number, run: () => void): void {
    this.host.time.schedule(delayMs, () => this.deliver(run));
  }

  /** SIGKILL. */
  kill(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.#parked = [];
    for (const run of this.#onDeath.splice(0)) run();
  }

  /** Called when the process ends, however it does. */
  onDeath(run: () => void): void {
    if (this.isAlive) this.#onDeath.push(run);
    else run();
  }

  /** SIGSTOP. */
  stop(): void {
    this.isStopped = true;
  }

  /** SIGCONT: what waited happens now, in its order. */
  proceed(): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    for (const run of this.#parked.splice(0)) this.deliverAfter(0, run);
  }
}

function processClock(process: SimProcess): Clock {
  const { host } = process;
  const schedule = (delayMs: number, run: () => void): (() => void) => {
    // Timers of Node.js take a millisecond at least.
    const dueMs = host.monotonicMs + Math.max(1, delayMs);
    let isOff = false;
    let callOff = (): void => {};
    const wait = (): void => {
      callOff = host.time.schedule(dueMs - host.monotonicMs, () => {
        process.deliver(() => {
          if (isOff) return;
          // The machine slept meanwhile: its clock has not come so far.
          if (host.monotonicMs < dueMs - 1e-6) wait();
          else run();
        });
      });
    };
    wait();
    return () => {
      isOff = true;
      callOff();
    };
  };
  return {
    nowMs: () => host.wallMs,
    monotonicMs: () => host.monotonicMs,
    schedule,
    async sleep(delayMs, signal) {
      if (signal?.aborted) return;
      await new Promise<void>((resolve) => {
        const onAbort = (): void => {
          callOff();
          resolve();
        };
        const callOff = schedule(delayMs, () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        });
        signal?.addEventListener("abort", onAbort, { once: true });
      });
    },
  };
}
