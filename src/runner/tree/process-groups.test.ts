import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../../base/eventually.ts";
import { bash, startRunnerUnderTest } from "../fake-agent.ts";
import { GroupTrees } from "./process-groups.ts";

test("without a freezer and without /proc a pause is refused with the reason, and a cancel still works", async () => {
  const setup = await startRunnerUnderTest({ trees: new GroupTrees() });
  const { agent } = setup;
  try {
    const { capabilities } = await agent.next("hello");
    assert.deepEqual(capabilities, ["shell", "script", "steps", "cgroup_none"]);
    const attemptId = agent.run({
      ...bash(`trap '' TERM; echo ready; while :; do sleep 0.02; done`),
      graceMs: 100,
    });
    await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
    agent.send({ type: "control", attemptId, action: "pause" });
    const ack = await agent.next("control_ack", (message) => message.attemptId === attemptId);
    assert.match(ack.error, /neither a freezer cgroup nor \/proc/);
    const before = (await agent.logBytes(attemptId)).length;
    assert.ok(before > 0);
    agent.send({ type: "control", attemptId, action: "cancel" });
    const result = await agent.result(attemptId);
    assert.deepEqual([result.state, result.signal], ["cancelled", "SIGKILL"]);
  } finally {
    await setup.stop();
  }
});
