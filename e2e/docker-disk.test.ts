import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { QUOTA_ENGINE_HOST, skipWithoutQuotaEngine } from "../src/providers/docker/test-engine.ts";
import { DockerPlace } from "./docker-place.ts";

const skip = await skipWithoutQuotaEngine();

describe("a job that wants more disk than its container may hold", { skip }, () => {
  let docker: DockerPlace;
  before(async () => {
    const flags = ["--docker-disk", "64Mi"];
    docker = await DockerPlace.start("shell", { host: QUOTA_ENGINE_HOST, flags });
  });
  after(() => docker.remove());

  const numbers = (last: number): string => Array.from({ length: last }, (_, at) => `${at + 1}\n`).join("");

  for (const [place, file] of [
    ["its workspace", "big"],
    ["the root of its container", "/big"],
  ] as const) {
    test(`gets to hear so in ${place}, and its log stays whole`, async () => {
      // More log than the worker keeps room for, while the disk is full.
      const script = `seq 1000; yes > ${file}; echo "yes ended with $?"; seq 300000; exit 9`;
      const id = await docker.submit("large", "bash", "-c", script);
      const watched = await docker.place.run(["watch", id]);
      assert.equal(watched.code, 9, watched.stderr);
      const log = await docker.place.run(["logs", id]);
      assert.match(log.stderr, /yes: standard output: (Disk quota exceeded|No space left on device)/);
      const expected = `${numbers(1_000)}yes ended with 1\n${numbers(300_000)}`;
      assert.ok(log.stdout.toString() === expected, "the log is whole");
      await docker.noneLeft();
    });
  }
});
