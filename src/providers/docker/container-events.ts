/**
 * Follows what the engine says of an owner's containers, so that one that dies is known at once.
 *
 * The engine forgets events that nobody listens to. After each time that the stream was away,
 * `onConnected` is called, and whoever listens looks at all containers for what it has missed.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Service } from "../../base/service.ts";
import { sharedAbortController } from "../../base/shared-abort.ts";
import { OWNER_LABEL, WORKER_LABEL } from "./container.ts";
import { linesOf, type Engine } from "./engine.ts";

export interface ContainerEventsOptions {
  engine: Engine;
  owner: string;
  clock: Clock;
  log: Logger;
  onConnected(): Promise<void>;
  /** The container of a worker has ended or was removed. */
  onEnded(workerId: string): void;
}

/** An engine that restarts is back within seconds. */
const RECONNECT_MS = 500;

interface EngineEvent {
  Action?: string;
  Actor?: { Attributes?: Record<string, string> };
}

export class ContainerEvents implements Service {
  readonly #options: ContainerEventsOptions;
  readonly #stopped = sharedAbortController();
  readonly #done: Promise<void>;
  #isAway = false;

  constructor(options: ContainerEventsOptions) {
    this.#options = options;
    this.#done = this.#keepFollowing();
  }

  /** Resolves when nothing is called any more. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#done;
  }

  async #keepFollowing(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        await this.#follow();
      } catch (error) {
        if (!signal.aborted && !this.#isAway) log.warn({ err: error }, "the container engine says nothing");
        this.#isAway = true;
      }
      await clock.sleep(RECONNECT_MS, signal);
    }
  }

  async #follow(): Promise<void> {
    const { engine, owner, log, onConnected } = this.#options;
    const filters = {
      type: ["container"],
      label: [`${OWNER_LABEL}=${owner}`, WORKER_LABEL],
      event: ["die", "destroy"],
    };
    const stream = await engine.stream({
      method: "GET",
      path: "/events",
      query: { filters: JSON.stringify(filters) },
      what: "follow the events of containers",
      signal: this.#stopped.signal,
    });
    if (this.#isAway) log.info({}, "the container engine speaks again");
    this.#isAway = false;
    await onConnected();
    for await (const line of linesOf(stream)) this.#take(line);
  }

  #take(line: string): void {
    const event = JSON.parse(line) as EngineEvent;
    const workerId = event.Actor?.Attributes?.[WORKER_LABEL];
    if (workerId !== undefined) this.#options.onEnded(workerId);
  }
}
