/** A server whose only workers are containers of the test engine. */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/base/clock.ts";
import { eventually } from "../src/base/eventually.ts";
import type { Engine } from "../src/providers/docker/engine.ts";
import {
  makeImage,
  TEST_ENGINE_HOST,
  testEngine,
  type TestImage,
} from "../src/providers/docker/test-engine.ts";
import { Place } from "./program.ts";

export const MAX_CONTAINERS = 4;

interface Container {
  Id: string;
  State: string;
}

export class DockerPlace {
  readonly engine: Engine;
  readonly place: Place;
  readonly #flags: string[];

  private constructor(place: Place, { host, flags }: { host: string; flags: string[] }) {
    this.place = place;
    this.engine = testEngine(host);
    this.#flags = ["--docker-host", host, ...flags];
  }

  /** `flags` are more settings of the server. */
  static async start(
    image: TestImage,
    { host = TEST_ENGINE_HOST, flags = [] }: { host?: string | undefined; flags?: string[] } = {},
  ): Promise<DockerPlace> {
    const made = ["--docker-image", await makeImage(image, host)];
    const started = new DockerPlace(await Place.make(), { host, flags: [...made, ...flags] });
    await started.startServer();
    return started;
  }

  async startServer(): Promise<void> {
    const limits = ["--docker-max-workers", String(MAX_CONTAINERS), "--docker-pull", "never"];
    // A worker that was made for a job which another one took leaves soon.
    await this.place.startServer([
      "--max-workers",
      "0",
      "--worker-idle-timeout",
      "2s",
      ...limits,
      ...this.#flags,
    ]);
  }

  async killServer(): Promise<void> {
    await this.place.stopDev("SIGKILL");
    await this.startServer();
  }

  /** Those of this server, also ones that have ended. */
  async containers(): Promise<Container[]> {
    const owner = (await readFile(join(this.place.dataDirectory, "owner"), "utf8")).trim();
    const filters = JSON.stringify({ label: [`hodei.owner=${owner}`, "hodei.worker"] });
    return this.engine.call({
      method: "GET",
      path: "/containers/json",
      query: { all: "true", filters },
      what: "list containers",
    });
  }

  async submit(name: string, ...command: string[]): Promise<string> {
    const submitted = await this.place.run(["submit", "--name", name, "--", ...command]);
    assert.equal(submitted.code, 0, submitted.stderr);
    return submitted.stdout.toString().trim();
  }

  async noneLeft(): Promise<void> {
    await eventually(async () => (await this.containers()).length === 0, {
      timeoutMs: 30_000,
      intervalMs: 200,
      what: "the end of the last container",
    });
  }

  async #haveSucceeded(ids: readonly string[]): Promise<boolean> {
    const list = await this.place.run(["list", "--all", "--output", "json"]);
    const jobs = JSON.parse(list.stdout.toString()) as { id: string; state: string }[];
    const ended = jobs.filter(({ id, state }) => ids.includes(id) && state === "succeeded");
    return ended.length === ids.length;
  }

  /** Submits thirty jobs and resolves with the most containers that there were at a time. */
  async runThirty(meanwhile: () => Promise<void>): Promise<number> {
    const file = join(this.place.directory, "jobs.jsonl");
    const lines = Array.from({ length: 30 }, (_, index) =>
      JSON.stringify({ name: `job-${index}`, run: ["sh", "-c", `echo ${index}; sleep 0.2`] }),
    );
    await writeFile(file, `${lines.join("\n")}\n`);
    const submitted = await this.place.run(["submit", file]);
    assert.equal(submitted.code, 0, submitted.stderr);
    const ids = submitted.stdout.toString().trim().split("\n");
    assert.equal(ids.length, 30);
    let most = 0;
    let isDone = false;
    const counting = (async () => {
      for (; !isDone; await systemClock.sleep(50)) most = Math.max(most, (await this.containers()).length);
    })();
    await meanwhile();
    await eventually(() => this.#haveSucceeded(ids), {
      timeoutMs: 90_000,
      intervalMs: 500,
      what: "the end of the jobs",
    });
    isDone = true;
    await counting;
    for (const index of [0, 29]) {
      const log = await this.place.run(["logs", ids[index] ?? "", "--raw"]);
      assert.equal(log.stdout.toString(), `${index}\n`);
    }
    await this.noneLeft();
    return most;
  }

  async remove(): Promise<void> {
    // In good order: the database of a killed server may still write while its directory is removed.
    await this.place.stopDev();
    for (const { Id: id } of await this.containers()) {
      const query = { force: "true", v: "true" };
      await this.engine.call({
        method: "DELETE",
        path: `/containers/${id}`,
        query,
        what: "remove a container",
      });
    }
    this.engine.close();
    await this.place.remove();
  }
}
