import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { finished, Place } from "./program.ts";

/** Nothing configured, nothing running: what a stranger has. */
describe("hodei run without a server", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
  });
  after(() => place.remove());

  test("runs the example, streams its log and leaves no process behind", async () => {
    const { code, stdout, stderr } = await place.run(["run", "examples/hello.yaml"]);
    assert.equal(code, 0, stderr);
    assert.match(stdout.toString(), /hello/i);
    assert.match(stderr, /succeeded/);
    assert.deepEqual(await place.leftovers(), []);
  });

  test("exits with the code of the job, and with 128+n for a signal", async () => {
    const failed = await place.run(["run", "--", "sh", "-c", "exit 7"]);
    assert.equal(failed.code, 7, failed.stderr);
    const killed = await place.run(["run", "--", "sh", "-c", "kill -KILL $$"]);
    assert.equal(killed.code, 137, killed.stderr);
    assert.deepEqual(await place.leftovers(), []);
  });

  test("passes arguments on as they are", async () => {
    const words = ["a b", "$HOME", "'quoted'", 'double"quote', "*", "", "-x", "ünïcode"];
    const { code, stdout, stderr } = await place.run(["run", "--", "printf", "%s\\n", ...words]);
    assert.equal(code, 0, stderr);
    assert.equal(stdout.toString(), words.map((word) => `${word}\n`).join(""));
  });

  test("cancels the job on SIGINT and leaves nothing behind", async () => {
    const child = place.start(["run", "--", "sh", "-c", "echo ready; sleep 300"]);
    child.stdin?.end();
    await new Promise<void>((resolve) => child.stdout?.once("data", () => resolve()));
    child.kill("SIGINT");
    const { code, stderr } = await finished(child);
    assert.equal(code, 130, stderr);
    assert.deepEqual(await place.leftovers(), []);
  });

  test("shows stored jobs without a server", async () => {
    const list = await place.run(["list", "--output", "json"]);
    assert.equal(list.code, 0, list.stderr);
    const jobs = JSON.parse(list.stdout.toString()) as { state: string; id: string }[];
    assert.ok(jobs.length >= 4);
    const log = await place.run(["logs", jobs.at(-1)?.id ?? "", "--raw", "--stream", "stdout"]);
    assert.equal(log.code, 0, log.stderr);
    assert.match(log.stdout.toString(), /hello/i);
  });

  test("two runs at once share one server, and both end well", async () => {
    const [one, two] = await Promise.all([
      place.run(["run", "--", "sh", "-c", "sleep 0.5; echo one"]),
      place.run(["run", "--", "sh", "-c", "sleep 1.5; echo two"]),
    ]);
    assert.deepEqual([one.code, two.code], [0, 0], `${one.stderr}\n${two.stderr}`);
    assert.equal(one.stdout.toString(), "one\n");
    assert.equal(two.stdout.toString(), "two\n");
    assert.deepEqual(await place.leftovers(), []);
  });
});
