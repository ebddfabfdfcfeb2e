import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../src/base/clock.ts";
import { eventually } from "../src/base/eventually.ts";
import { skipWithoutEngine } from "../src/providers/docker/test-engine.ts";
import { DockerPlace, MAX_CONTAINERS } from "./docker-place.ts";

describe("thirty jobs in ephemeral containers", { skip: await skipWithoutEngine() }, () => {
  let docker: DockerPlace;
  before(async () => {
    docker = await DockerPlace.start("shell");
  });
  after(() => docker.remove());

  async function haveSucceeded(ids: readonly string[]): Promise<boolean> {
    const list = await docker.place.run(["list", "--all", "--output", "json"]);
    const jobs = JSON.parse(list.stdout.toString()) as { id: string; state: string }[];
    const ended = jobs.filter(({ id, state }) => ids.includes(id) && state === "succeeded");
    return ended.length === ids.length;
  }

  /** Submits thirty jobs and resolves with the most containers that there were at a time. */
  async function runThirty(meanwhile: () => Promise<void>): Promise<number> {
    const file = join(docker.place.directory, "jobs.jsonl");
    const lines = Array.from({ length: 30 }, (_, index) =>
      JSON.stringify({ name: `job-${index}`, run: ["sh", "-c", `echo ${index}; sleep 0.2`] }),
    );
    await writeFile(file, `${lines.join("\n")}\n`);
    const submitted = await docker.place.run(["submit", file]);
    assert.equal(submitted.code, 0, submitted.stderr);
    const ids = submitted.stdout.toString().trim().split("\n");
    assert.equal(ids.length, 30);
    let most = 0;
    let isDone = false;
    const counting = (async () => {
      for (; !isDone; await systemClock.sleep(50)) most = Math.max(most, (await docker.containers()).length);
    })();
    await meanwhile();
    await eventually(() => haveSucceeded(ids), {
      timeoutMs: 90_000,
      intervalMs: 500,
      what: "the end of the jobs",
    });
    isDone = true;
    await counting;
    for (const index of [0, 29]) {
      const log = await docker.place.run(["logs", ids[index] ?? "", "--raw"]);
      assert.equal(log.stdout.toString(), `${index}\n`);
    }
    await docker.noneLeft();
    return most;
  }

  test("never have more containers than are allowed, and leave none", async () => {
    const most = await runThirty(async () => {});
    assert.ok(most >= 2 && most <= MAX_CONTAINERS, `${most} containers at a time`);
  });

  test("survive a server that is killed twice meanwhile", async () => {
    const most = await runThirty(async () => {
      for (let kills = 0; kills < 2; kills += 1) {
        await eventually(async () => (await docker.containers()).length >= 2, { what: "two containers" });
        await docker.killServer();
      }
    });
    assert.ok(most <= MAX_CONTAINERS, `${most} containers at a time`);
  });
});
