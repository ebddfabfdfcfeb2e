import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { bootClock } from "../base/boot-clock.ts";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { withSocketPath } from "../base/socket-path.ts";
import { runnerSocketPath, spoolDirectory } from "../protocol/spool-layout.ts";
import {
  FakeAgent,
  bash,
  makeDefinition,
  makeStep,
  startRunnerUnderTest,
  type RunnerUnderTest,
} from "./fake-agent.ts";
import { startRunner, type RunnerOptions } from "./runner.ts";

async function setup(
  options: Partial<RunnerOptions>,
  run: (setup: RunnerUnderTest) => Promise<void>,
): Promise<void> {
  const started = await startRunnerUnderTest(options);
  try {
    await run(started);
  } finally {
    await started.stop();
  }
}

describe("the runner", { concurrency: true }, () => {
  test("greets with what it can do, and is private", () =>
    setup({}, async ({ agent, directory, runner }) => {
      const hello = await agent.next("hello");
      assert.deepEqual(hello.capabilities, [
        "shell",
        "script",
        "steps",
        "pause",
        `cgroup_${runner.cgroupMode}`,
      ]);
      assert.deepEqual([hello.pid, hello.version, hello.attempts], [process.pid, "test", []]);
      assert.equal(statSync(runnerSocketPath(directory)).mode & 0o777, 0o600);
      assert.equal(statSync(directory).mode & 0o777, 0o700);
      const { usage } = await agent.next("usage");
      assert.ok(usage.memoryBytes > 0 && usage.diskFreeBytes > 0 && usage.measuredAtMs > 0);
      assert.ok(usage.eventLoopDelayMaxMicros > 0);
    }));

  test("an attempt is accepted, started and ended, in this order", () =>
    setup({}, async ({ agent }) => {
      const end = await agent.finish(bash("echo hi"));
      const types = agent.heard.filter((message) => "attemptId" in message).map(({ type }) => type);
      assert.deepEqual(types, ["accepted", "started", "log", "result"]);
      assert.ok((end.startedAtMs ?? Infinity) <= end.finishedAtMs);
    }));

  test("a job goes on while no agent is there, and the next one learns everything from the hello", () =>
    setup({}, async ({ agent, directory }) => {
      const ended = await agent.finish(bash("echo done; exit 2"));
      const attemptId = agent.run(
        bash(
          `echo "5 on it" > "$HODEI_PROGRESS"; echo before; while ! [ -e go ]; do sleep 0.01; done; echo after`,
        ),
      );
      await agent.next("progress");
      agent.close();
      await agent.started(attemptId);
      const second = await FakeAgent.connect(directory);
      const hello = await second.next("hello");
      const held = new Map(hello.attempts.map((attempt) => [attempt.attemptId, attempt]));
      assert.equal(held.get(ended.attemptId)?.phase, "finished");
      assert.equal(held.get(ended.attemptId)?.result?.exitCode, 2);
      const running = held.get(attemptId);
      assert.deepEqual([running?.phase, running?.result, running?.progress?.percent], ["running", null, 5]);
      assert.equal(running?.logEnd, (await second.spoolBytes(attemptId)).length);
      await second.finish(bash(`touch ${directory}/attempts/${attemptId}/workspace/go`));
      assert.equal((await second.result(attemptId)).state, "succeeded");
      assert.equal((await second.logBytes(attemptId)).toString(), "before\nafter\n");
      second.close();
    }));

  test("a new connection replaces the old one", () =>
    setup({}, async ({ agent, directory }) => {
      const second = await FakeAgent.connect(directory);
      await eventually(() => !agent.isConnected);
      assert.equal((await second.finish(bash("true"))).state, "succeeded");
      second.close();
    }));

  test("an order that comes twice runs once", () =>
    setup({}, async ({ agent }) => {
      const end = await agent.finish(bash("echo once"));
      agent.heard.splice(0);
      const definition = makeDefinition(bash("echo twice"));
      const order = {
        attemptId: end.attemptId,
        jobId: "job",
        attemptNumber: 1,
        leaseFromMs: Number.MAX_SAFE_INTEGER,
      };
      agent.send({ type: "run", ...order, definition });
      const again = await agent.result(end.attemptId);
      assert.equal(again.finishedAtMs, end.finishedAtMs);
      assert.equal((await agent.logBytes(end.attemptId)).toString(), "once\n");
    }));

  test("controls that cannot be done are answered with the reason", () =>
    setup({}, async ({ agent }) => {
      agent.send({ type: "control", attemptId: "unknown", action: "cancel" });
      assert.equal((await agent.next("control_ack")).error, "the attempt is not known here");
      const end = await agent.finish(bash("true"));
      agent.send({ type: "control", attemptId: end.attemptId, action: "pause" });
      const ack = await agent.next("control_ack", (message) => message.attemptId === end.attemptId);
      assert.equal(ack.error, "it is finished, not running");
      agent.send({ type: "control", attemptId: end.attemptId, action: "cancel" });
      const late = await agent.next(
        "control_ack",
        (message) => message.action === "cancel" && message.attemptId === end.attemptId,
      );
      assert.equal(late.error, "", "a cancel of what has ended has nothing to do");
    }));

  test("a cancel that comes before the start leaves nothing to run", () =>
    setup({}, async ({ agent }) => {
      const attemptId = agent.run(bash("echo ran"));
      agent.send({ type: "control", attemptId, action: "cancel" });
      const result = await agent.result(attemptId);
      assert.equal(result.state, "cancelled");
    }));

  test("an order whose lease is over already starts no process", () =>
    setup({}, async ({ agent, directory }) => {
      const definition = makeDefinition({ ...bash(`touch ${directory}/ran`), leaseMs: 60_000 });
      const leaseFromMs = bootClock()() - 60_000;
      const order = { attemptId: "late", jobId: "job", attemptNumber: 1, leaseFromMs };
      agent.send({ type: "run", ...order, definition });
      const result = await agent.result("late");
      assert.deepEqual(
        [result.state, result.cause, result.startedAtMs, result.exitCode],
        ["failed", "worker_lost", null, null],
      );
      assert.equal(existsSync(join(directory, "ran")), false);
      assert.ok(!agent.heard.some(({ type }) => type === "started"));
    }));

  test("a forgotten attempt leaves nothing behind, even one that still runs", () =>
    setup({}, async ({ agent, directory }) => {
      const end = await agent.finish(bash("mkdir -p a/b; echo x > a/b/c; echo out"));
      const running = agent.run(bash("echo out; sleep 60"));
      await agent.next("log", (message) => message.attemptId === running);
      for (const attemptId of [end.attemptId, running]) {
        agent.send({ type: "forget", attemptId });
        const places = [join(directory, "attempts", attemptId), spoolDirectory(directory, attemptId)];
        await eventually(() => !places.some((path) => existsSync(path)), { what: "removal of the attempt" });
      }
      const second = await FakeAgent.connect(directory);
      assert.deepEqual((await second.next("hello")).attempts, []);
      second.close();
    }));

  test("nonsense from an agent ends its connection, not the runner", () =>
    setup({}, async ({ agent, directory }) => {
      const socket = await withSocketPath(runnerSocketPath(directory), async (path) => {
        const connecting = connect(path);
        await once(connecting, "connect");
        return connecting;
      });
      socket.write("this is no JSON\n");
      await new Promise<void>((resolve) => socket.once("close", () => resolve()).resume());
      await eventually(() => !agent.isConnected);
      const second = await FakeAgent.connect(directory);
      assert.equal((await second.finish(bash("true"))).state, "succeeded");
      second.close();
    }));

  test("many attempts at once keep their output apart", () =>
    setup({}, async ({ agent }) => {
      const ends = await Promise.all(
        Array.from({ length: 40 }, (_, index) => agent.finish(bash(`echo ${index}`))),
      );
      assert.deepEqual(
        ends.map(({ log }) => log),
        ends.map((_, index) => `${index}\n`),
      );
    }));

  test("two runners cannot serve one directory", () =>
    setup({}, async ({ directory }) => {
      const options = {
        directory,
        clock: systemClock,
        random: systemRandom,
        log: silentLogger,
        version: "test",
      };
      await assert.rejects(startRunner(options), { code: "already_exists" });
      // The question whether somebody listens has taken the place of the agent; it comes again.
      const again = await FakeAgent.connect(directory);
      assert.equal((await again.finish(bash("true"))).state, "succeeded");
      again.close();
    }));

  test("is done when it was told to shut down and nothing is left", () =>
    setup({}, async ({ agent, runner, directory }) => {
      const attemptId = agent.run(bash("echo ready; sleep 60"));
      await agent.started(attemptId);
      agent.send({ type: "shutdown", kill: true });
      assert.equal((await agent.result(attemptId)).state, "cancelled");
      agent.send({ type: "forget", attemptId });
      await runner.done;
      assert.equal(existsSync(runnerSocketPath(directory)), false);
    }));

  test("is done when it holds nothing and nobody comes", () =>
    setup({ idleExitMs: 1_000 }, async ({ agent, runner, directory }) => {
      await agent.finish(bash("true"));
      agent.close();
      await systemClock.sleep(2_200);
      assert.equal(
        await Promise.race([runner.done.then(() => "done"), systemClock.sleep(0).then(() => "waits")]),
        "waits",
      );
      const second = await FakeAgent.connect(directory);
      for (const { attemptId } of (await second.next("hello")).attempts)
        second.send({ type: "forget", attemptId });
      second.send({ type: "control", attemptId: "unknown", action: "cancel" });
      await second.next("control_ack");
      second.close();
      await runner.done;
    }));
});

/** A runner in a process of its own, with a job that has told its process id. */
async function runnerProcess() {
  const directory = mkdtempSync(join(tmpdir(), "hodei-runner-"));
  const main = JSON.stringify(new URL("./main.js", import.meta.url).href);
  const program = `const { runnerMain } = await import(${main}); process.exitCode = await runnerMain({ environment: process.env, version: "test" });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    env: { PATH: process.env["PATH"], HODEI_WORKER_DIR: directory, HODEI_LOG_LEVEL: "silent" },
    stdio: "inherit",
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const agent = await FakeAgent.connect(directory);
  const attemptId = agent.run({
    steps: [makeStep("long", `echo $$ > "$HODEI_WORKSPACE/../../../pid"; sleep 60`)],
  });
  const pid = await eventually(
    // The file is empty for a moment.
    () =>
      existsSync(join(directory, "pid")) && (Number(readFileSync(join(directory, "pid"), "utf8")) || null),
  );
  return { directory, child, exited, agent, attemptId, pid };
}

test("the process ignores what a terminal sends, and ends its jobs on the second SIGTERM", async () => {
  const { directory, child, exited, agent, attemptId, pid } = await runnerProcess();
  child.kill("SIGINT");
  child.kill("SIGHUP");
  child.kill("SIGTERM");
  agent.send({ type: "control", attemptId: "unknown", action: "cancel" });
  await agent.next("control_ack");
  assert.equal(existsSync(`/proc/${pid}`), true, "its agent decides what becomes of the job");
  child.kill("SIGTERM");
  assert.equal(await exited, 0);
  assert.equal(existsSync(`/proc/${pid}`), false);
  assert.equal((await agent.result(attemptId)).state, "cancelled", "the result was still sent");
  rmSync(directory, { recursive: true, force: true });
});

for (const leavesFirst of [true, false]) {
  const when = leavesFirst ? "has left" : "leaves after the signal";
  test(`on SIGTERM the process ends its jobs when its agent ${when}`, async () => {
    const { directory, child, exited, agent, pid } = await runnerProcess();
    if (leavesFirst) agent.close();
    child.kill("SIGTERM");
    agent.close();
    assert.equal(await exited, 0);
    assert.equal(existsSync(`/proc/${pid}`), false);
    rmSync(directory, { recursive: true, force: true });
  });
}
