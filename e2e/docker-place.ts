/** A server whose only workers are containers of the test engine. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
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
  readonly engine: Engine = testEngine();
  readonly place: Place;
  readonly #image: string;

  private constructor(place: Place, image: string) {
    this.place = place;
    this.#image = image;
  }

  static async start(image: TestImage): Promise<DockerPlace> {
    const made = await makeImage(image);
    const started = new DockerPlace(await Place.make(), made);
    await started.startServer();
    return started;
  }

  async startServer(): Promise<void> {
    const limits = ["--docker-max-workers", String(MAX_CONTAINERS), "--docker-pull", "never"];
    const docker = ["--docker-host", TEST_ENGINE_HOST, "--docker-image", this.#image, ...limits];
    // A worker that was made for a job which another one took leaves soon.
    await this.place.startServer(["--max-workers", "0", "--worker-idle-timeout", "2s", ...docker]);
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

  async remove(): Promise<void> {
    await this.place.stopDev("SIGKILL");
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
