import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Place } from "./program.ts";

describe("bad input", () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
    await place.startDev();
  });
  after(() => place.remove());

  const refused: [string, string[], string, number, RegExp][] = [
    ["an unknown field", ["run", "-"], "name: x\nrunn: echo\n", 2, /runn/],
    ["a wrong type", ["run", "-"], "name: x\nrun: echo\ntimeout: [1]\n", 2, /timeout/],
    ["a missing command", ["run", "-"], "name: x\n", 2, /run|command|steps/],
    ["an absurd size", ["run", "-"], "run: echo\nresources:\n  memory: 999999999Ti\n", 2, /memory/],
    ["a NUL byte", ["run", "-"], 'run: "echo \\0"\n', 2, /NUL|null/i],
    ["a 10 MB script", ["run", "-"], `run: "${"x".repeat(10_000_000)}"\n`, 2, /script|run|content/],
    ["a job that does not exist", ["get", "01234567-0000-7000-8000-000000000000"], "", 3, /not found/],
    ["an id that is none", ["get", "zzz"], "", 2, /id|pattern|character/i],
    ["an unknown command", ["frobnicate"], "", 2, /unknown command/],
    ["an unknown option", ["list", "--frob"], "", 2, /unknown option/],
    [
      "an agent whose server speaks FTP",
      ["agent", "--server", "ftp://x"],
      "",
      2,
      /--server: "ftp:\/\/x" is not/,
    ],
    ["an agent's address with a path", ["agent", "--server", "http://x:1/y"], "", 2, /and nothing after it/],
    ["an unknown state", ["list", "--state", "happy"], "", 2, /happy/],
  ];
  for (const [name, args, input, code, message] of refused) {
    test(`${name} is refused with exit code ${code} and a message that says what`, async () => {
      const result = await place.run(args, { input });
      assert.equal(result.code, code, result.stderr);
      assert.match(result.stderr, message);
      assert.doesNotMatch(result.stderr, /\n {4}at /);
    });
  }

  test("an interpreter that does not exist fails the job and names it", async () => {
    const input = "script: { interpreter: nosuchlisp, content: hello }\n";
    const result = await place.run(["run", "-"], { input });
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, /nosuchlisp/);
  });

  test("a command and a working directory that do not exist fail the job and are named", async () => {
    const command = await place.run(["run", "--", "no-such-command-here"]);
    assert.equal(command.code, 1);
    assert.match(command.stderr, /no-such-command-here/);
    const directory = await place.run(["run", "--working-directory", "/no/such/place", "--", "true"]);
    assert.equal(directory.code, 1);
    assert.match(directory.stderr, /\/no\/such\/place/);
  });

  test("an ambiguous id prefix shows what fits", async () => {
    await Promise.all([place.run(["run", "--", "true"]), place.run(["run", "--", "true"])]);
    const list = await place.run(["list", "--output", "json"]);
    const [job] = JSON.parse(list.stdout.toString()) as { id: string }[];
    const result = await place.run(["get", (job?.id ?? "").slice(0, 4)]);
    assert.equal(result.code, 2, result.stderr);
    assert.match(result.stderr, /ambiguous/);
  });

  test("a label that no worker has is refused, with those that there are, or waits and says so", async () => {
    const submit = ["submit", "--selector", "gpu=none-such"];
    const refused = await place.run([...submit, "--", "true"]);
    assert.equal(refused.code, 5, refused.stderr);
    assert.match(refused.stderr, /no worker and no pool has gpu=none-such.*labels os, arch/);
    assert.match(refused.stderr, /--accept-unplaceable/);
    const submitted = await place.run([...submit, "--accept-unplaceable", "--", "true"]);
    assert.equal(submitted.code, 0, submitted.stderr);
    const id = submitted.stdout.toString().trim();
    await place.eventualMessage(id, /no worker and no pool has gpu=none-such/);
    const cancelled = await place.run(["cancel", id]);
    assert.equal(cancelled.code, 0, cancelled.stderr);
    const again = await place.run(["cancel", id]);
    assert.equal(again.code, 5, again.stderr);
    assert.match(again.stderr, /cancelled/);
  });

  test("a full queue is exit code 7, and takes jobs again after one has gone", async () => {
    const limited = await place.run(["queue", "set", "narrow", "--max-pending", "1", "--pause"]);
    assert.equal(limited.code, 0, limited.stderr);
    const submit = ["submit", "--queue", "narrow", "--", "true"];
    const first = await place.run(submit);
    assert.equal(first.code, 0, first.stderr);
    const refused = await place.run(submit);
    assert.equal(refused.code, 7, refused.stderr);
    assert.match(refused.stderr, /queue narrow is full/);
    const cancelled = await place.run(["cancel", first.stdout.toString().trim()]);
    assert.equal(cancelled.code, 0, cancelled.stderr);
    const again = await place.run(submit);
    assert.equal(again.code, 0, again.stderr);
  });

  test("a server that is not there is exit code 4", async () => {
    const result = await place.run(["list"], { env: { HODEI_SERVER: "http://127.0.0.1:1" } });
    assert.equal(result.code, 4, result.stderr);
    assert.match(result.stderr, /127\.0\.0\.1:1/);
  });

  test("a wrong token is exit code 6", async () => {
    const { url } = await place.server();
    const result = await place.run(["list"], { env: { HODEI_SERVER: url, HODEI_API_TOKEN: "wrong" } });
    assert.equal(result.code, 6, result.stderr);
  });

  test("the server goes on after all of this", async () => {
    const result = await place.run(["run", "--", "echo", "fine"]);
    assert.equal(result.stdout.toString(), "fine\n", result.stderr);
  });
});
