import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  skipWithoutEngine,
  skipWithoutParts,
  TEST_ENGINE_HOST,
} from "../src/providers/docker/test-engine.ts";
import { DockerPlace } from "./docker-place.ts";
import { Place } from "./program.ts";

const skip = await skipWithoutEngine();

for (const image of ["node", "shell", "static"] as const) {
  describe(`an image of the kind ${image}`, { skip: skip || (await skipWithoutParts(image)) }, () => {
    let docker: DockerPlace;
    before(async () => {
      docker = await DockerPlace.start(image);
    });
    after(() => docker.remove());

    test("runs a job, which sees its files and variables", async () => {
      const script = 'cat /etc/image-kind; echo " says $IMAGE_SAYS"; exit 3';
      const ran = await docker.place.run(["run", "--", "sh", "-c", script]);
      assert.equal(ran.stdout.toString(), `${image} says hello\n`, ran.stderr);
      assert.equal(ran.code, 3);
      await docker.noneLeft();
    });
  });
}

describe(
  "an image of one program that is no shell",
  { skip: skip || (await skipWithoutParts("bare")) },
  () => {
    let docker: DockerPlace;
    before(async () => {
      docker = await DockerPlace.start("bare");
    });
    after(() => docker.remove());

    test("runs that program, and says of any other that it is not there", async () => {
      const ran = await docker.place.run(["run", "--", "/echo", "I am all there is"]);
      assert.equal(ran.stdout.toString(), "I am all there is\n", ran.stderr);
      assert.equal(ran.code, 0);
      const shell = await docker.place.run(["run", "--", "sh", "-c", "true"]);
      assert.notEqual(shell.code, 0);
      assert.match(shell.stderr, /start failed: command not found: sh \(looked in PATH=/);
      await docker.noneLeft();
    });
  },
);

describe(
  "an image for another kind of machine",
  { skip: skip || (await skipWithoutParts("foreign")) },
  () => {
    let docker: DockerPlace;
    before(async () => {
      docker = await DockerPlace.start("foreign");
    });
    after(() => docker.remove());

    test("fails its jobs at once with the reason", async () => {
      const ran = await docker.place.run(["run", "--", "sh", "-c", "true"]);
      assert.notEqual(ran.code, 0);
      assert.match(ran.stderr, /cannot start sh: it is a program for another kind of machine/);
      await docker.noneLeft();
    });
  },
);

describe("an image that does not exist", { skip }, () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
  });
  after(() => place.remove());

  test("is the reason that a waiting job shows, in the engine's own words", async () => {
    const image = ["--docker-host", TEST_ENGINE_HOST, "--docker-image", "hodei-no-such:1"];
    await place.startServer(["--max-workers", "0", ...image, "--docker-pull", "never"]);
    const submitted = await place.run(["submit", "--", "true"]);
    const id = submitted.stdout.toString().trim();
    await place.eventualMessage(id, /image hodei-no-such:1: the engine does not have it/);
  });
});
