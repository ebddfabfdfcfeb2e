import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { bash, startRunnerUnderTest } from "../fake-agent.ts";
import { readCgroupMounts } from "./cgroup-mounts.ts";
import { testResistance } from "./resistance-conformance.ts";
import { reasonToSkip, testTrees } from "./tree-conformance.ts";

await testTrees("v1");
await testResistance("v1");

test(
  "the cgroup figures of an attempt are real, and a process killed for want of memory is named",
  { skip: (await reasonToSkip("v1")) || needsMemoryController() },
  async () => {
    const setup = await startRunnerUnderTest({ cgroup: "v1" });
    try {
      const busy = await setup.agent.finish(
        bash(
          `x=$(head -c 30000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done`,
        ),
      );
      assert.ok(busy.usage.peakMemoryBytes > 30_000_000, `${busy.usage.peakMemoryBytes} bytes`);
      assert.ok(busy.usage.cpuMicros > 20_000, `${busy.usage.cpuMicros} µs`);
      const starved = await setup.agent.finish(
        bash(`
      dir=$(find /sys/fs/cgroup/memory -type d -name "$HODEI_ATTEMPT_ID")
      echo 20000000 > "$dir/memory.limit_in_bytes"
      x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo "\${#x}"`),
      );
      assert.deepEqual([starved.state, starved.cause], ["failed", "out_of_memory"]);
    } finally {
      await setup.stop();
    }
  },
);

test("the cgroups of a runner are gone with it", { skip: await reasonToSkip("v1") }, async () => {
  const setup = await startRunnerUnderTest({ cgroup: "v1" });
  await setup.agent.finish(bash("true"));
  const freezer = readCgroupMounts().v1.get("freezer") ?? "";
  const before = readdirSync(freezer).filter((name) => name.startsWith("hodei-"));
  await setup.stop();
  const after = readdirSync(freezer).filter((name) => name.startsWith("hodei-"));
  assert.ok(after.length < before.length);
});

function needsMemoryController(): string | false {
  return readCgroupMounts().v1.has("memory") && process.getuid?.() === 0
    ? false
    : "needs root and the v1 memory controller";
}
