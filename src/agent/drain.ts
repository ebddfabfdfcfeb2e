/**
 * How an agent that was asked to end gets there: it goes on with what runs for as long as it may,
 * then ends the rest, and stays until the server has every result, so that a job that was cut off is
 * tried elsewhere at once instead of after its lease.
 */

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { AgentSession } from "../core/agent-session.ts";

/** How long an agent that has ended its jobs waits for the server to take the results and logs. */
export const RESULTS_TIMEOUT_MS = 5_000;

export interface DrainOptions {
  session: AgentSession;
  clock: Clock;
  log: Logger;
  kill(attemptId: string): void;
  /** The time is over; with results that nobody has taken, the runner must keep them. */
  onTimeOver(): void;
}

export class Drain {
  readonly #options: DrainOptions;
  #phase: "idle" | "finishing" | "ending" | "stopped" = "idle";
  #callOff: () => void = () => {};

  constructor(options: DrainOptions) {
    this.#options = options;
  }

  /** The first time it gives what runs its time; the second time it ends the rest at once. */
  begin(timeoutMs: number): void {
    const { clock, log, session } = this.#options;
    if (this.#phase !== "idle") {
      if (this.#phase === "finishing") this.#end();
      return;
    }
    this.#phase = "finishing";
    if (timeoutMs <= 0) {
      this.#end();
      return;
    }
    log.info({ attempts: session.attempts.size, timeoutMs }, "draining; the next signal ends what runs");
    this.#callOff = clock.schedule(timeoutMs, () => this.#end());
  }

  /** The session has changed: an order that was on its way here when the rest was ended is ended, too. */
  onChange(): void {
    if (this.#phase === "ending") this.#killRest();
  }

  /**
   * For good: a signal may come after it, as from a provider that ends what has already left, and a
   * wait that began then would keep the process, and the room that it takes, until it was over.
   */
  stop(): void {
    this.#callOff();
    this.#phase = "stopped";
  }

  #end(): void {
    const { clock, onTimeOver } = this.#options;
    this.#callOff();
    this.#phase = "ending";
    this.#killRest();
    this.#callOff = clock.schedule(RESULTS_TIMEOUT_MS, onTimeOver);
  }

  #killRest(): void {
    const { session, kill } = this.#options;
    for (const attempt of session.attempts.values()) {
      if (attempt.phase !== "finished") kill(attempt.attemptId);
    }
  }
}
