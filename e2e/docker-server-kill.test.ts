import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { skipWithoutEngine } from "../src/providers/docker/test-engine.ts";
import { DockerPlace, MAX_CONTAINERS } from "./docker-place.ts";

describe("thirty jobs in ephemeral containers", { skip: await skipWithoutEngine() }, () => {
  let docker: DockerPlace;
  before(async () => {
    docker = await DockerPlace.start("shell");
  });
  after(() => docker.remove());

  test("survive a server that is killed twice meanwhile", async () => {
    const most = await docker.runThirty(async () => {
      for (let kills = 0; kills < 2; kills += 1) {
        await eventually(async () => (await docker.containers()).length >= 2, { what: "two containers" });
        await docker.killServer();
      }
    });
    assert.ok(most <= MAX_CONTAINERS, `${most} containers at a time`);
  });
});
