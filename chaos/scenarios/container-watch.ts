/** Counts the containers of one owner by what their engine says happens to them. */

import type { Service } from "../../src/base/service.ts";
import { sharedAbortController } from "../../src/base/shared-abort.ts";
import { OWNER_LABEL, WORKER_LABEL } from "../../src/providers/docker/container.ts";
import type { Engine } from "../../src/providers/docker/engine.ts";

interface EngineEvent {
  Action?: string;
  Actor?: { ID?: string; Attributes?: Record<string, string> };
}

/**
 * The engine tells of a container's end before it answers whoever removed it, so these counts never
 * miss a container that was there beside others, however short its life was.
 */
export class ContainerWatch implements Service {
  /** How many containers of workers were started. */
  started = 0;
  /** The most that ran at a time. */
  mostRunning = 0;
  /** The most that were there at a time, those not yet started or removed included. */
  mostExisting = 0;
  /** Why nothing is heard any more; null while all is well. */
  problem: string | null = null;
  readonly #engine: Engine;
  readonly #owner: string;
  readonly #running = new Set<string>();
  readonly #existing = new Set<string>();
  readonly #stopped = sharedAbortController();
  #done: Promise<void> = Promise.resolve();

  private constructor(engine: Engine, owner: string) {
    this.#engine = engine;
    this.#owner = owner;
  }

  /** Resolves when it hears whatever happens from now on. The owner must not have containers yet. */
  static async start(engine: Engine, owner: string): Promise<ContainerWatch> {
    const watch = new ContainerWatch(engine, owner);
    const filters = {
      type: ["container"],
      label: [`${OWNER_LABEL}=${owner}`, WORKER_LABEL],
      event: ["create", "start", "die", "destroy"],
    };
    const stream = await engine.stream({
      method: "GET",
      path: "/events",
      query: { filters: JSON.stringify(filters) },
      what: "follow the events of containers",
      signal: watch.#stopped.signal,
    });
    watch.#done = watch.#follow(stream as AsyncIterable<Buffer>);
    return watch;
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#done;
  }

  /** All that there are now, by asking, also those that were only made to fill a volume. */
  async list(): Promise<string[]> {
    const filters = { label: [`${OWNER_LABEL}=${this.#owner}`] };
    const containers = await this.#engine.call<{ Names: string[]; Status: string }[]>({
      method: "GET",
      path: "/containers/json",
      query: { all: "true", filters: JSON.stringify(filters) },
      what: "list containers",
    });
    return containers.map(({ Names: names, Status: status }) => `${names.join(", ")} (${status})`);
  }

  async #follow(stream: AsyncIterable<Buffer>): Promise<void> {
    let rest = "";
    try {
      for await (const chunk of stream) {
        const lines = (rest + chunk.toString("utf8")).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) if (line.trim() !== "") this.#take(JSON.parse(line) as EngineEvent);
      }
      this.problem = "the engine ended its events";
    } catch (error) {
      if (!this.#stopped.signal.aborted)
        this.problem = `the events of the engine broke off: ${String(error)}`;
    }
  }

  #take({ Action: action, Actor: actor }: EngineEvent): void {
    const id = actor?.ID ?? "";
    if (action === "create") this.#existing.add(id);
    if (action === "start") {
      this.#running.add(id);
      this.started += 1;
    }
    if (action === "die" || action === "destroy") this.#running.delete(id);
    if (action === "destroy") this.#existing.delete(id);
    this.mostRunning = Math.max(this.mostRunning, this.#running.size);
    this.mostExisting = Math.max(this.mostExisting, this.#existing.size);
  }
}
