import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { skipWithoutEngine } from "../src/providers/docker/test-engine.ts";
import { DockerPlace, MAX_CONTAINERS } from "./docker-place.ts";

describe("thirty jobs in ephemeral containers", { skip: await skipWithoutEngine() }, () => {
  let docker: DockerPlace;
  before(async () => {
    docker = await DockerPlace.start("shell");
  });
  after(() => docker.remove());

  test("never have more containers than are allowed, and leave none", async () => {
    const most = await docker.runThirty(async () => {});
    assert.ok(most >= 2 && most <= MAX_CONTAINERS, `${most} containers at a time`);
  });
});
