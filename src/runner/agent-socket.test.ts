import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { test, type TestContext } from "node:test";
import { systemClock } from "../base/clock.ts";

/** Enough that two who remove the dead socket blindly were caught each time. */
const ROUNDS = 60;
const modules = { socket: "./agent-socket.js", clock: "../base/clock.js", log: "../base/log.js" };
const PROGRAM = `
  const { AgentSocket } = await import(process.argv[1]);
  const { systemClock: clock } = await import(process.argv[2]);
  const { silentLogger: log } = await import(process.argv[3]);
  const { createInterface } = await import("node:readline");
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const [path, atMs] = line.split(" ");
    while (Date.now() < Number(atMs));
    const kept = await AgentSocket.listen({ path, clock, log }).catch((error) => error);
    console.log(kept instanceof AgentSocket ? "listens" : kept.code);
  }`;

function setup(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "hodei-socket-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A process that listens on the paths that it is told, at the time that it is told. */
async function listener(t: TestContext): Promise<(order: string) => Promise<string>> {
  const urls = Object.values(modules).map((path) => new URL(path, import.meta.url).href);
  const child = spawn(process.execPath, ["--input-type=module", "--eval", PROGRAM, ...urls], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.after(async () => {
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, "ready");
  return async (order) => {
    child.stdin.write(`${order}\n`);
    return String((await lines.next()).value);
  };
}

/** Leaves a socket of which nobody is the owner any more. */
async function leaveDead(path: string): Promise<void> {
  const program = `require("node:net").createServer().listen(${JSON.stringify(basename(path))}, () => process.kill(process.pid, "SIGKILL"))`;
  await once(spawn(process.execPath, ["--eval", program], { cwd: dirname(path) }), "exit");
}

test("takes the place of a runner that was killed, and not of one that lives", async (t) => {
  const path = join(setup(t), "s");
  const [one, two] = [await listener(t), await listener(t)];
  await leaveDead(path);
  assert.equal(await one(`${path} 0`), "listens");
  assert.equal(await two(`${path} 0`), "already_exists");
});

test("has a place of its own in each directory, however long its path is", async (t) => {
  const root = join(setup(t), "d".repeat(120));
  const listen = await listener(t);
  for (const name of ["one", "two"]) {
    mkdirSync(join(root, name), { recursive: true });
    assert.equal(await listen(`${join(root, name, "s")} 0`), "listens");
    assert.deepEqual(readdirSync(join(root, name)), ["s"]);
  }
  assert.equal(await listen(`${join(root, "one", "s")} 0`), "already_exists");
});

test("of two runners that find the socket of a dead one at the same moment, one gets it", async (t) => {
  const directory = setup(t);
  const [one, two] = [await listener(t), await listener(t)];
  const dead = join(directory, "dead");
  await leaveDead(dead);
  for (let round = 0; round < ROUNDS; round += 1) {
    const path = join(directory, `s${round}`);
    linkSync(dead, path);
    const atMs = systemClock.nowMs() + 5;
    const answers = await Promise.all([one(`${path} ${atMs}`), two(`${path} ${atMs}`)]);
    assert.deepEqual(answers.toSorted(), ["already_exists", "listens"]);
  }
});
