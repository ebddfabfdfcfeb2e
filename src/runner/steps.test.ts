import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../base/eventually.ts";
import { makeStep, startRunnerUnderTest, type FakeAgent, type RunnerUnderTest } from "./fake-agent.ts";

let setup: RunnerUnderTest;
let agent: FakeAgent;
before(async () => {
  setup = await startRunnerUnderTest();
  agent = setup.agent;
});
after(() => setup.stop());

describe("steps", { concurrency: true }, () => {
  test("run one after another in one workspace, each with a section in the log", async () => {
    const end = await agent.finish({
      steps: [makeStep("write", "echo hello > file; echo out"), makeStep("read", "cat file")],
    });
    assert.equal(end.state, "succeeded");
    assert.equal(end.log, "▶ step 1/2: write\nout\n▶ step 2/2: read\nhello\n");
    assert.deepEqual(
      end.steps.map(({ name, outcome, exitCode }) => [name, outcome, exitCode]),
      [
        ["write", "succeeded", 0],
        ["read", "succeeded", 0],
      ],
    );
    assert.ok(end.steps.every((step) => (step.finishedAtMs ?? 0) >= (step.startedAtMs ?? Infinity)));
  });

  test("after a failure only those run that ask for it, and the first failure is the result", async () => {
    const end = await agent.finish({
      steps: [
        makeStep("bad", "exit 4"),
        makeStep("next", "echo never"),
        makeStep("on failure", "echo repair", { condition: "failure" }),
        makeStep("always", "exit 5", { condition: "always" }),
      ],
    });
    assert.deepEqual([end.state, end.cause, end.exitCode], ["failed", "exit_code", 4]);
    assert.equal(end.message, "step 1/4: bad: exit code 4");
    assert.deepEqual(
      end.steps.map(({ outcome }) => outcome),
      ["failed", "skipped", "succeeded", "failed"],
    );
    assert.match(end.log, /✖ step 1\/4: bad: exit code 4\n/);
    assert.doesNotMatch(end.log, /never/);
  });

  test("a step that may fail does not fail the job, nor does a failure step run without one", async () => {
    const end = await agent.finish({
      steps: [
        makeStep("may fail", "exit 1", { continueOnError: true }),
        makeStep("failure", "true", { condition: "failure" }),
        makeStep("last", "echo last"),
      ],
    });
    assert.equal(end.state, "succeeded");
    assert.deepEqual(
      end.steps.map(({ outcome }) => outcome),
      ["failed", "skipped", "succeeded"],
    );
  });

  test("a step has a time-out of its own, and the job can go on", async () => {
    const end = await agent.finish({
      graceMs: 100,
      steps: [
        makeStep("slow", "trap '' TERM; while :; do sleep 0.02; done", { timeoutMs: 200 }),
        makeStep("after", "echo after", { condition: "always" }),
      ],
    });
    assert.deepEqual(
      [end.state, end.cause, end.message],
      ["timed_out", "timeout", "step 1/2: slow: timed out after 0.2 s"],
    );
    assert.deepEqual(
      end.steps.map(({ outcome }) => outcome),
      ["timed_out", "succeeded"],
    );
    assert.match(end.log, /after\n/);
  });

  test("a step that cannot start is a failed step", async () => {
    const end = await agent.finish({
      steps: [
        makeStep("absent", "", { command: { kind: "shell", cmd: "no-such-command", args: [] } }),
        makeStep("next", "true"),
      ],
    });
    assert.deepEqual([end.state, end.cause], ["failed", "start_failed"]);
    assert.deepEqual(
      end.steps.map(({ outcome }) => outcome),
      ["failed", "skipped"],
    );
    assert.match(end.message, /^step 1\/2: absent: command not found: no-such-command/);
  });

  test("a cancel ends the step that runs and skips the others, those for always too", async () => {
    const attemptId = agent.run({
      steps: [makeStep("run", "echo ready; sleep 60"), makeStep("always", "true", { condition: "always" })],
    });
    await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
    agent.send({ type: "control", attemptId, action: "cancel" });
    const result = await agent.result(attemptId);
    assert.equal(result.state, "cancelled");
    assert.deepEqual(
      result.steps.map(({ outcome }) => outcome),
      ["cancelled", "skipped"],
    );
  });

  test("what a step leaves in the background serves the next one, and ends with the job", async () => {
    const end = await agent.finish({
      steps: [
        makeStep(
          "serve",
          "(while ! [ -e ask ]; do sleep 0.01; done; echo answer > answer; sleep 60) & echo started",
        ),
        makeStep("ask", "touch ask; while ! [ -s answer ]; do sleep 0.01; done; cat answer"),
      ],
    });
    assert.equal(end.state, "succeeded");
    assert.match(end.log, /answer\n/);
    assert.ok(end.usage.leftoverProcesses >= 1);
  });
});
