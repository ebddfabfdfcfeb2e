/** Ctrl-C while a command follows something: it ends at once, and what it followed goes on. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { finished, Place } from "./program.ts";

describe("an interruption", () => {
  let place: Place;
  let job: string;
  before(async () => {
    place = await Place.make();
    await place.startDev();
    const script = "while :; do echo tick; sleep 0.2; done";
    const submitted = await place.run(["submit", "--", "sh", "-c", script]);
    assert.equal(submitted.code, 0, submitted.stderr);
    job = submitted.stdout.toString().trim();
    await place.run(["explain", "--watch", job]);
  });
  after(() => place.remove());

  const followers: [string, (id: string) => string[]][] = [
    ["logs --follow", (id) => ["logs", "--follow", id]],
    ["watch", (id) => ["watch", id]],
    ["submit --wait", () => ["submit", "--wait", "--", "sleep", "300"]],
  ];
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    for (const [name, args] of followers) {
      test(`of hodei ${name} by ${signal} ends it and not the job`, async () => {
        const child = place.start(args(job));
        child.stdin?.end();
        await new Promise<void>((resolve) => child.stdout?.once("data", () => resolve()));
        child.kill(signal);
        const { code, stderr } = await finished(child);
        assert.equal(code, signal === "SIGINT" ? 130 : 143, stderr);
        assert.equal(stderr, "");
        const got = await place.run(["get", "--output", "json", job]);
        assert.equal((JSON.parse(got.stdout.toString()) as { state: string }).state, "running");
      });
    }
  }
});
