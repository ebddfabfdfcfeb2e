/** What every kind of process tree must keep, as tests that each of them runs in a process of its own. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bootClock } from "../../base/boot-clock.ts";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { LEASE_MARGIN_MS } from "../../core/lease.ts";
import { FakeAgent, bash, startRunnerUnderTest, type RunnerUnderTest } from "../fake-agent.ts";
import { detectProcessTrees } from "./detect-process-trees.ts";
import type { CgroupMode } from "./process-tree.ts";

/** The mark by which mode `none` finds processes is one of the whole runner: one mode to a process. */
export async function testTrees(mode: CgroupMode): Promise<void> {
  const skip = await reasonToSkip(mode);
  describe(`process trees in mode ${mode}`, { skip }, () => testMode(mode));
}

/** A process that did all it can to get away, and holds the output open. */
const FUGITIVE = `setsid -f bash -c 'trap "" TERM HUP INT; (while :; do sleep 0.05; done) & echo $BASHPID > "$1"; while :; do sleep 0.05; done' x "$PWD/pid"
while ! [ -s pid ]; do sleep 0.01; done
`;

function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
  } catch {
    // It is gone.
    return false;
  }
}

/** Every process that carries the attempt in its environment, zombies excepted. */
function processesOf(attemptId: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && isAlive(Number(name)))
    .filter((name) => environmentOf(name).includes(`HODEI_ATTEMPT_ID=${attemptId}`))
    .map(Number);
}

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1");
  } catch {
    // It is gone.
    return "";
  }
}

/** False if trees of this kind can be kept here. */
export async function reasonToSkip(mode: CgroupMode): Promise<string | false> {
  try {
    const trees = detectProcessTrees(mode, {
      name: `hodei-probe-${mode}`,
      clock: systemClock,
      log: silentLogger,
    });
    await trees.close();
    return false;
  } catch (error) {
    return `this machine cannot: ${String(error)}`;
  }
}

function testMode(mode: CgroupMode): void {
  let setup: RunnerUnderTest;
  let agent: FakeAgent;
  before(async () => {
    setup = await startRunnerUnderTest({ cgroup: mode });
    agent = setup.agent;
  });
  after(() => setup.stop());

  test("the hello names the mode", async () => {
    const hello = await agent.next("hello");
    assert.ok(hello.capabilities.includes(`cgroup_${mode}`), String(hello.capabilities));
  });

  test("what dies at the first signal is counted as well", async () => {
    for (let round = 0; round < 10; round += 1) {
      const { usage } = await agent.finish(bash("sleep 60 & sleep 60 &"));
      assert.equal(usage.leftoverProcesses, 2, `round ${round}`);
    }
  });

  test("what outlives the command is killed and counted before the result, and holds up nothing", async () => {
    const end = await agent.finish(bash(`${FUGITIVE}echo end`));
    assert.equal(end.state, "succeeded");
    assert.ok(end.usage.leftoverProcesses >= 2, `${end.usage.leftoverProcesses} leftovers`);
    assert.match(end.log, /end\n/);
    assert.match(end.log, /leftover processes were killed/);
    assert.deepEqual(processesOf(end.attemptId), []);
  });

  test("a cancel gives the job its grace to tidy up", async () => {
    const attemptId = agent.run(
      bash(`trap 'echo tidy; exit 3' TERM\necho ready\nwhile :; do sleep 0.02; done`),
    );
    await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
    agent.send({ type: "control", attemptId, action: "cancel" });
    const result = await agent.result(attemptId);
    assert.deepEqual([result.state, result.cause, result.exitCode], ["cancelled", "cancelled", 3]);
    assert.match((await agent.logBytes(attemptId)).toString(), /tidy/);
    assert.equal((await agent.next("control_ack", (ack) => ack.attemptId === attemptId)).error, "");
  });

  test("a cancel kills what ignores SIGTERM when the grace is over", async () => {
    const attemptId = agent.run({
      ...bash(`trap '' TERM\n${FUGITIVE}echo ready\nwhile :; do sleep 0.02; done`),
      graceMs: 200,
    });
    await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
    agent.send({ type: "control", attemptId, action: "cancel" });
    const result = await agent.result(attemptId);
    assert.deepEqual([result.state, result.cause, result.signal], ["cancelled", "cancelled", "SIGKILL"]);
    assert.deepEqual(processesOf(attemptId), []);
  });

  test("a kill does not wait for the grace", async () => {
    const attemptId = agent.run({
      ...bash(`trap '' TERM\n${FUGITIVE}while :; do sleep 0.02; done`),
      graceMs: 600_000,
    });
    await agent.started(attemptId);
    agent.send({ type: "control", attemptId, action: "cancel" });
    agent.send({ type: "control", attemptId, action: "kill" });
    const result = await agent.result(attemptId);
    assert.equal(result.state, "cancelled");
    assert.deepEqual(processesOf(attemptId), []);
  });

  test("the time-out ends the job", async () => {
    const end = await agent.finish({ ...bash(`${FUGITIVE}sleep 60`), timeoutMs: 400, graceMs: 100 });
    assert.deepEqual([end.state, end.cause], ["timed_out", "timeout"]);
    assert.equal(end.message, "timed out after 0.4 s");
    assert.deepEqual(processesOf(end.attemptId), []);
  });

  test("a pause stops every process and the clock of the time-out; a resume goes on", async () => {
    const loop = "i=0; while ! [ -e go ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo end";
    const attemptId = agent.run({ ...bash(loop), timeoutMs: 4_000 });
    await eventually(async () => (await agent.logBytes(attemptId)).length > 0);
    agent.send({ type: "control", attemptId, action: "pause" });
    await agent.next("phase", (message) => message.attemptId === attemptId && message.phase === "paused");
    const paused = (await agent.settledLog(attemptId)).length;
    // Longer than the time-out: it must not fire.
    await systemClock.sleep(4_100);
    assert.equal((await agent.logBytes(attemptId)).length, paused, "it printed while paused");
    writeFileSync(join(setup.directory, "attempts", attemptId, "workspace", "go"), "");
    agent.send({ type: "control", attemptId, action: "resume" });
    const result = await agent.result(attemptId);
    assert.equal(result.state, "succeeded");
    assert.match((await agent.logBytes(attemptId)).toString(), /\nend\n$/);
  });

  test("a cancel reaches a paused job", async () => {
    const attemptId = agent.run(
      bash(`trap 'echo tidy; exit 0' TERM\necho ready\nwhile :; do sleep 0.02; done`),
    );
    await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
    agent.send({ type: "control", attemptId, action: "pause" });
    await agent.next("phase", (message) => message.attemptId === attemptId && message.phase === "paused");
    agent.send({ type: "control", attemptId, action: "cancel" });
    assert.equal((await agent.result(attemptId)).state, "cancelled");
    assert.match((await agent.logBytes(attemptId)).toString(), /tidy/);
  });

  test("an attempt whose lease is not renewed is killed, and says so", async () => {
    const end = await agent.finish({ ...bash(`${FUGITIVE}sleep 60`), leaseMs: LEASE_MARGIN_MS + 300 });
    assert.deepEqual([end.state, end.cause], ["failed", "worker_lost"]);
    assert.match(end.message, /lease of 15.3 s was not renewed/);
    assert.deepEqual(processesOf(end.attemptId), []);
  });

  test("a late order has no more of a lease than it says", async () => {
    const own = await startRunnerUnderTest({ cgroup: mode });
    try {
      const late = { ...bash("sleep 60"), leaseMs: LEASE_MARGIN_MS + 60_300 };
      const attemptId = own.agent.run(late, { leaseFromMs: bootClock()() - 60_000 });
      const result = await own.agent.result(attemptId);
      assert.deepEqual([result.state, result.cause], ["failed", "worker_lost"]);
    } finally {
      await own.stop();
    }
  });

  test("a renewed lease keeps the job alive", async () => {
    // With a runner of its own: a renewal is for every attempt, also for those of other tests.
    const own = await startRunnerUnderTest({ cgroup: mode });
    const leaseMs = LEASE_MARGIN_MS + 1_500;
    const attemptId = own.agent.run({ ...bash("sleep 2"), leaseMs });
    const callOff = renewLeases(own.agent);
    try {
      const result = await own.agent.result(attemptId);
      assert.equal(result.state, "succeeded", result.message);
    } finally {
      callOff();
      await own.stop();
    }
  });

  test("a new runner kills what a killed runner left running", async () => {
    const directory = mkdtempSync(join(tmpdir(), "hodei-runner-"));
    const main = JSON.stringify(new URL("../main.js", import.meta.url).href);
    const program = `const { runnerMain } = await import(${main}); await runnerMain({ environment: process.env, version: "test" });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      env: {
        PATH: process.env["PATH"],
        HODEI_WORKER_DIR: directory,
        HODEI_CGROUP: mode,
        HODEI_LOG_LEVEL: "silent",
      },
      stdio: "inherit",
    });
    const first = await FakeAgent.connect(directory);
    const attemptId = first.run(bash(`${FUGITIVE}echo ready; sleep 60`));
    await eventually(async () => (await first.logBytes(attemptId)).includes("ready"));
    child.kill("SIGKILL");
    await eventually(() => !first.isConnected);
    assert.ok(processesOf(attemptId).length >= 2, "the processes outlive their runner");
    const second = await startRunnerUnderTest({ cgroup: mode, directory });
    assert.deepEqual(processesOf(attemptId), []);
    assert.deepEqual((await second.agent.next("hello")).attempts, []);
    await second.stop();
    rmSync(directory, { recursive: true, force: true });
  });
}

/** Renews the leases of all attempts until the returned function is called. */
export function renewLeases(agent: FakeAgent): () => void {
  return repeat(100, () => agent.send({ type: "lease_renewed", leaseFromMs: bootClock()() - 10 }));
}

/** Runs again and again until the returned function is called. */
function repeat(intervalMs: number, run: () => void): () => void {
  let callOff = () => {};
  const round = () => {
    run();
    callOff = systemClock.schedule(intervalMs, round);
  };
  round();
  return () => callOff();
}
