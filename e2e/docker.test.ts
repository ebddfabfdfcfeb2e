import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../src/base/clock.ts";
import { eventually } from "../src/base/eventually.ts";
import { skipWithoutEngine } from "../src/providers/docker/test-engine.ts";
import { DockerPlace } from "./docker-place.ts";
import { Place } from "./program.ts";

const skip = await skipWithoutEngine();

describe("jobs in containers", { skip }, () => {
  let docker: DockerPlace;
  before(async () => {
    docker = await DockerPlace.start("shell");
  });
  after(() => docker.remove());

  test("are tried again within seconds when somebody kills their container, with the cause", async () => {
    const script = 'echo "attempt $HODEI_ATTEMPT"; if [ "$HODEI_ATTEMPT" = 1 ]; then sleep 120; fi';
    const id = await docker.submit("killed", "sh", "-c", script);
    await eventually(
      async () => (await docker.place.run(["logs", id, "--raw"])).stdout.includes("attempt 1"),
      {
        what: "the first attempt",
      },
    );
    const [container] = await docker.containers();
    assert.ok(container);
    await docker.engine.call({ method: "POST", path: `/containers/${container.Id}/kill`, what: "kill" });
    const killedAtMs = systemClock.monotonicMs();
    const watched = await docker.place.run(["watch", id]);
    const tookMs = systemClock.monotonicMs() - killedAtMs;
    assert.equal(watched.code, 0, watched.stderr);
    assert.ok(tookMs < 15_000, `took ${tookMs} ms`);
    const job = await docker.place.run(["get", id, "--output", "json"]);
    assert.match(job.stdout.toString(), /its container ended with SIGKILL \(code 137\)/);
    await docker.noneLeft();
  });

  test("bring back a log of 10 MB byte for byte", async () => {
    const count = 1_500_000;
    const id = await docker.submit("loud", "seq", String(count));
    const watched = await docker.place.run(["watch", id]);
    assert.equal(watched.code, 0, watched.stderr);
    const expected = createHash("sha256");
    let bytes = 0;
    for (let number = 1; number <= count; number += 1) {
      const line = `${number}\n`;
      bytes += line.length;
      expected.update(line);
    }
    assert.ok(bytes > 10_000_000);
    const log = await docker.place.run(["logs", id, "--raw"]);
    assert.equal(createHash("sha256").update(log.stdout).digest("hex"), expected.digest("hex"));
  });
});

describe("a pool of containers that cannot be", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
  });
  after(() => place.remove());

  test("is the reason that a waiting job shows", async () => {
    await place.startServer([
      "--max-workers",
      "0",
      "--docker-image",
      "x",
      "--docker-host",
      "unix:///nowhere",
    ]);
    const submitted = await place.run(["submit", "--", "true"]);
    const id = submitted.stdout.toString().trim();
    await place.eventualMessage(id, /no container engine at unix:\/\/\/nowhere: its socket is not there/);
  });

  test("is refused at the start when its settings make no sense", async () => {
    const refusals: [string[], RegExp][] = [
      [["--docker-network", "bridge"], /--docker-server-url/],
      [["--docker-host", "nonsense"], /"nonsense": give unix/],
      [["--docker-disk", "1Gi", "--docker-read-only"], /--docker-disk cannot go with/],
      [["--docker-mounts", "/a"], /"\/a" is not of the form/],
    ];
    for (const [flags, message] of refusals) {
      const other = await Place.make();
      const started = await other.run([
        "server",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--docker-image",
        "x",
        ...flags,
      ]);
      await other.remove();
      assert.notEqual(started.code, 0);
      assert.match(started.stderr, message);
    }
  });
});
