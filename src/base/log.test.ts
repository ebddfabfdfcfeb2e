import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { test } from "node:test";

/** What a process that logs leaves on stderr, and that it leaves nothing on stdout. */
function setup(statements: string): Record<string, unknown>[] {
  const from = JSON.stringify(new URL("log.js", import.meta.url).href);
  const program = `import { createLogger } from ${from}; ${statements}`;
  const run = spawnSync(process.execPath, ["--input-type=module", "--eval", program], { encoding: "utf8" });
  assert.deepEqual([run.status, run.stdout], [3, ""], run.stderr);
  const lines = run.stderr.split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

test("a line is JSON with a word for its level, a time that people can read, and the fields", () => {
  const [line, ...more] = setup(`
    const log = createLogger({ level: "info", fields: { process: "test" } });
    log.debug("not this one");
    log.child({ jobId: "j-1" }).warn({ count: 2 }, "something happened");
    process.exit(3);
  `);
  assert.equal(more.length, 0);
  const { time, ...fields } = line ?? {};
  assert.match(String(time), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(fields, {
    level: "warn",
    process: "test",
    jobId: "j-1",
    count: 2,
    msg: "something happened",
  });
});

test("the last line before an exit is not lost, and an error keeps its message and its cause", () => {
  const lines = setup(`
    const log = createLogger({ level: "error" });
    for (let count = 0; count < 1000; count += 1) log.error({ count }, "again");
    const error = new Error("above", { cause: new Error("below") });
    log.error({ err: Object.assign(error, { client: { password: "hidden" } }) }, "failed");
    process.exit(3);
  `);
  assert.equal(lines.length, 1001);
  const error = lines.at(-1)?.["err"] as { message: string; cause: { message: string } };
  assert.equal(error.message, "above");
  assert.equal(error.cause.message, "below");
  assert.doesNotMatch(JSON.stringify(error), /hidden/);
});

test("a full disk below stderr does not end the process, nor fill its memory", (t) => {
  if (!existsSync("/dev/full")) return t.skip("there is no /dev/full here");
  const from = JSON.stringify(new URL("log.js", import.meta.url).href);
  const program = `
    import { createLogger } from ${from};
    const log = createLogger({ level: "info" });
    const before = process.memoryUsage().heapUsed;
    for (let count = 0; count < 1000; count += 1) log.info({ text: "x".repeat(100_000) }, "again");
    globalThis.gc();
    setImmediate(() => {
      log.error("still here");
      process.exit(process.memoryUsage().heapUsed - before < 20_000_000 ? 3 : 4);
    });
  `;
  const full = openSync("/dev/full", "w");
  try {
    const stdio = ["ignore", "ignore", full] as const;
    const run = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "--eval", program], {
      stdio: [...stdio],
    });
    assert.equal(run.status, 3);
  } finally {
    closeSync(full);
  }
});

test("a silent log says nothing", () => {
  assert.deepEqual(setup(`createLogger({ level: "silent" }).error("no"); process.exit(3);`), []);
});
