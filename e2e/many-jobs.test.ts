import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Place } from "./program.ts";

interface ListedJob {
  id: string;
  definition: { name: string };
  state: string;
  cause: string | null;
  exitCode: number | null;
  signal: string | null;
}

/** What a job is told to do, and how it must be accounted for. */
const KINDS = [
  { run: ["true"], state: "succeeded", cause: null, exitCode: 0 },
  { run: "exit 3", state: "failed", cause: "exit_code", exitCode: 3 },
  { run: ["sh", "-c", "kill -TERM $$"], state: "failed", cause: "signal", exitCode: null },
  { run: ["no-such-command-here"], state: "failed", cause: "start_failed", exitCode: null },
  { run: "sleep 60", timeout: "100ms", grace: "1s", state: "timed_out", cause: "timeout", exitCode: null },
] as const;

/** Mostly quick ones; every twentieth runs into its time-out. */
function kindOf(index: number): (typeof KINDS)[number] {
  const kind = index % 20 === 19 ? KINDS[4] : KINDS[index % 4];
  assert.ok(kind);
  return kind;
}

describe("a thousand jobs of mixed success and failure", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
    await place.startDev();
  });
  after(() => place.remove());

  test("are all accounted for with the right state and cause", async () => {
    const lines = Array.from({ length: 1_000 }, (_, index) => {
      const { run, ...kind } = kindOf(index);
      const limits = "timeout" in kind ? { timeout: kind.timeout, grace: kind.grace } : {};
      return JSON.stringify({ name: `job-${index}`, run, ...limits });
    });
    const file = join(place.directory, "jobs.jsonl");
    await writeFile(file, `${lines.join("\n")}\n`);

    const submitted = await place.run(["submit", "--wait", file]);
    assert.equal(submitted.code, 1, submitted.stderr);
    const list = await place.run(["list", "--all", "--output", "json"]);
    assert.equal(list.code, 0, list.stderr);
    const jobs = JSON.parse(list.stdout.toString()) as ListedJob[];
    assert.equal(jobs.length, 1_000);
    assert.equal(new Set(jobs.map(({ id }) => id)).size, 1_000);
    for (const job of jobs) {
      const { name } = job.definition;
      const { state, cause, exitCode } = kindOf(Number(name.slice("job-".length)));
      assert.deepEqual(
        {
          name,
          state: job.state,
          cause: job.cause,
          exitCode: job.state === "timed_out" ? null : job.exitCode,
        },
        { name, state, cause, exitCode },
      );
    }
  });

  test("leave nothing behind when the server stops", async () => {
    assert.equal(await place.stopDev("SIGINT"), 0);
    assert.deepEqual(await place.leftovers(), []);
  });
});
