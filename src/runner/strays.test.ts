import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { readRunnerMark } from "../base/runner-mark.ts";
import { FakeAgent, bash, startRunnerUnderTest } from "./fake-agent.ts";
import { startRunner } from "./runner.ts";
import { CGROUP_MODES, type CgroupMode } from "./tree/process-tree.ts";
import { reasonToSkip } from "./tree/tree-conformance.ts";

const workerProgram = fileURLToPath(new URL("../worker-main.js", import.meta.url));
const FREEZER = "/sys/fs/cgroup/freezer";

/** A job that leaves its session, its parent and its environment behind, and its process. */
const HIDDEN_JOB = `pid=$PWD/pid; cd /
env -i $(type -P setsid) -f $(type -P bash) -c 'echo $BASHPID > "$1.new"; mv "$1.new" "$1"; exec sleep 900' x $pid
sleep 900`;

/** A runner in a process of its own with a hidden job, killed. */
async function killedRunner(t: TestContext, mode: CgroupMode): Promise<{ directory: string; pid: number }> {
  const directory = mkdtempSync(join(tmpdir(), "hodei-strays-"));
  const runner = spawn(process.execPath, [workerProgram, "runner"], {
    env: {
      PATH: process.env["PATH"],
      HODEI_WORKER_DIR: directory,
      HODEI_CGROUP: mode,
      HODEI_LOG_LEVEL: "silent",
    },
    stdio: "inherit",
  });
  t.after(() => {
    runner.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  });
  const agent = await FakeAgent.connect(directory);
  const attemptId = agent.run(bash(HIDDEN_JOB));
  const path = join(directory, "attempts", attemptId, "workspace", "pid");
  const pid = await eventually(() => existsSync(path) && Number(readFileSync(path, "utf8")));
  runner.kill("SIGKILL");
  await once(runner, "exit");
  assert.ok(isAlive(pid), "the job outlives its runner");
  return { directory, pid };
}

function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    // It is gone.
    return false;
  }
}

async function sweep(directory: string): Promise<{ code: number | null; said: string }> {
  const child = spawn(process.execPath, [workerProgram, "sweep", "--dir", directory], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (chunk) => (said += String(chunk)));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, said };
}

const skips = new Map<CgroupMode, string | false>();
for (const mode of CGROUP_MODES) skips.set(mode, await reasonToSkip(mode));

for (const mode of CGROUP_MODES) {
  describe(`what a killed runner in mode ${mode} has left`, { skip: skips.get(mode) ?? false }, () => {
    test("is ended by a sweep, with its cgroups", async (t) => {
      const { directory, pid } = await killedRunner(t, mode);
      const cgroups = (await readRunnerMark(directory))?.cgroups ?? [];
      assert.equal(cgroups.filter((path) => existsSync(path)).length > 0, mode !== "none");
      assert.deepEqual(await sweep(directory), { code: 0, said: "" });
      assert.equal(isAlive(pid), false);
      assert.deepEqual(
        cgroups.filter((path) => existsSync(path)),
        [],
      );
      assert.equal(await readRunnerMark(directory), null);
      assert.deepEqual(await sweep(directory), { code: 0, said: "" });
    });

    test("is ended by the next runner, also in another mode, before its hello", async (t) => {
      const { directory, pid } = await killedRunner(t, mode);
      const cgroups = (await readRunnerMark(directory))?.cgroups ?? [];
      const next = await startRunnerUnderTest({ cgroup: "auto", directory });
      assert.equal(isAlive(pid), false);
      assert.deepEqual((await next.agent.next("hello")).attempts, []);
      await next.stop();
      assert.deepEqual(
        cgroups.filter((path) => existsSync(path)),
        [],
      );
    });
  });
}

test("a runner that ended in good order leaves no mark, and there is nothing to sweep", async () => {
  const setup = await startRunnerUnderTest({});
  assert.equal((await readRunnerMark(setup.directory))?.runner.pid, process.pid);
  await setup.agent.finish(bash("true"));
  await setup.runner.stop();
  assert.equal(await readRunnerMark(setup.directory), null);
  await setup.stop();
});

test("a sweep leaves the jobs of a runner that lives alone", async () => {
  const setup = await startRunnerUnderTest({});
  try {
    const { code, said } = await sweep(setup.directory);
    assert.equal(code, 1);
    assert.match(said, /another runner is there/);
    assert.notEqual(await readRunnerMark(setup.directory), null);
  } finally {
    await setup.stop();
  }
});

test(
  "while processes of a killed runner cannot be ended, the next one says so and no hello",
  { skip: skips.get("none") || (canFreeze() ? false : "needs root and the v1 freezer") },
  async (t) => {
    const { directory, pid } = await killedRunner(t, "none");
    // A frozen process of version 1 takes no signal, SIGKILL included.
    const cgroup = join(FREEZER, `test-strays-${process.pid}`);
    mkdirSync(cgroup);
    writeFileSync(join(cgroup, "cgroup.procs"), String(pid));
    writeFileSync(join(cgroup, "freezer.state"), "FROZEN");
    const starting = startRunner({
      directory,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      version: "test",
    });
    const connected = FakeAgent.open(directory);
    const agent = await connected;
    try {
      const { message } = await agent.next("broken");
      assert.match(message, new RegExp(`an earlier runner cannot be ended: ${pid} \\(sleep, `));
      assert.deepEqual(
        agent.heard.filter(({ type }) => type === "hello"),
        [],
      );
    } finally {
      writeFileSync(join(cgroup, "freezer.state"), "THAWED");
    }
    await agent.next("hello");
    assert.equal(isAlive(pid), false);
    rmdirSync(cgroup);
    agent.close();
    await (await starting).stop();
  },
);

function canFreeze(): boolean {
  return existsSync(join(FREEZER, "cgroup.procs")) && process.getuid?.() === 0;
}
