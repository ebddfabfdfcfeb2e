import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { identifyProcess } from "../base/process-identity.ts";
import { claimDirectory } from "./claim-directory.ts";

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-claim-"));
  const other = spawn("sleep", ["60"]);
  const ended = once(other, "exit");
  await once(other, "spawn");
  t.after(async () => {
    other.kill("SIGKILL");
    await ended;
    await rm(directory, { recursive: true, force: true });
  });
  const path = join(directory, "agent.pid");
  await writeFile(path, JSON.stringify(identifyProcess(other.pid ?? 0)));
  const owner = async () => JSON.parse(await readFile(path, "utf8")) as unknown;
  return { directory, other, ended, owner };
}

test("an agent is refused where another one lives", async (t) => {
  const { directory, other } = await setup(t);
  await assert.rejects(claimDirectory(directory, 50), {
    code: "already_exists",
    message: `serve ${directory}: agent ${other.pid} does so already`,
  });
});

test("it waits for one that leaves, and takes the place of one that is gone", async (t) => {
  const { directory, other, ended, owner } = await setup(t);
  const claimed = claimDirectory(directory);
  other.kill("SIGKILL");
  await ended;
  await claimed;
  assert.deepEqual(await owner(), identifyProcess(process.pid));
  await claimDirectory(directory, 50);
  assert.deepEqual(await owner(), identifyProcess(process.pid), "its own word does not keep it out");
});

test("a file that was cut short by a crash keeps nobody out", async (t) => {
  const { directory, owner } = await setup(t);
  await writeFile(join(directory, "agent.pid"), '{"pid":');
  await claimDirectory(directory, 50);
  assert.deepEqual(await owner(), identifyProcess(process.pid));
});
