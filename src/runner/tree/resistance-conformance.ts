/** Jobs that do all they can to stay, as tests that each kind of process tree runs. */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { LEASE_MARGIN_MS } from "../../core/lease.ts";
import { bash, startRunnerUnderTest, type FakeAgent, type RunnerUnderTest } from "../fake-agent.ts";
import type { CgroupMode } from "./process-tree.ts";
import { reasonToSkip, renewLeases } from "./tree-conformance.ts";

export async function testResistance(mode: CgroupMode): Promise<void> {
  const skip = await reasonToSkip(mode);
  describe(`resistance in mode ${mode}`, { skip }, () => testMode(mode));
}

/** Two hundred processes that are known by an argument of no other process. */
const CROWD = `
stubborn="trap '' TERM HUP INT; exec $(type -P sleep) $TOKEN"
clean="$(type -P env) -i $(type -P setsid) -f $(type -P bash) -c"
for i in $(seq 25); do
  sleep $TOKEN & (sleep $TOKEN &)
  bash -c "$stubborn" & (bash -c "$stubborn" &)
  setsid -f bash -c "$stubborn"
  (cd / && setsid -f bash -c "$stubborn" < /dev/null > /dev/null 2>&1)
  $clean "$stubborn"
  (cd / && $clean "$stubborn" < /dev/null > /dev/null 2>&1)
done
wait
`;

/** Each process starts the next one and ends. */
const HOPPING = `echo 'bash "$0" "$1" & ' > hop
for i in 1 2 3; do bash hop $TOKEN & done
wait; sleep $TOKEN`;

/** Uses the processor and starts processes all the time. */
const BUSY = `while :; do i=0; while [ $i -lt 500 ]; do i=$((i+1)); done; bash -c : $TOKEN; echo on; done`;

const FREEZER = "/sys/fs/cgroup/freezer";
let tokens = 0;

function testMode(mode: CgroupMode): void {
  let setup: RunnerUnderTest;
  let agent: FakeAgent;
  before(async () => {
    setup = await startRunnerUnderTest({ cgroup: mode });
    agent = setup.agent;
  });
  after(() => setup.stop());

  const runWithToken = (script: string, graceMs = 500): { attemptId: string; token: string } => {
    const token = `100000.${process.pid}${(tokens += 1)}`;
    return { token, attemptId: agent.run({ ...bash(script), env: { TOKEN: token }, graceMs }) };
  };
  const control = (attemptId: string, action: "cancel" | "kill" | "pause" | "resume"): void => {
    agent.send({ type: "control", attemptId, action });
  };
  const pause = async (attemptId: string): Promise<void> => {
    control(attemptId, "pause");
    await agent.next("phase", (message) => message.attemptId === attemptId && message.phase === "paused");
  };

  test("two hundred processes that do not want to end are gone with the result of a cancel", async (t) => {
    const { attemptId, token } = runWithToken(CROWD);
    await eventually(() => withArgument(token).length >= 200, { timeoutMs: 30_000 });
    const startedMs = systemClock.monotonicMs();
    control(attemptId, "cancel");
    const result = await agent.result(attemptId);
    t.diagnostic(
      `${mode}: cancelled in ${Math.round(systemClock.monotonicMs() - startedMs)} ms, 500 ms of it grace`,
    );
    assert.deepEqual(withArgument(token), []);
    assert.deepEqual([result.state, result.cause], ["cancelled", "cancelled"]);
  });

  test("processes that fork away from a kill are found", async () => {
    const { attemptId, token } = runWithToken(HOPPING, 100);
    await eventually(() => withArgument(token).length > 0);
    control(attemptId, "kill");
    assert.equal((await agent.result(attemptId)).state, "cancelled");
    for (let look = 0; look < 20; look += 1) {
      assert.deepEqual(withArgument(token), []);
      await systemClock.sleep(5);
    }
  });

  test("a paused job uses no processor, prints nothing and starts nothing, and goes on", async () => {
    const { attemptId, token } = runWithToken(BUSY);
    await eventually(async () => (await agent.logBytes(attemptId)).includes("on"));
    await pause(attemptId);
    const before = withArgument(token);
    const ticks = cpuTicksOf(before);
    const printed = (await agent.settledLog(attemptId)).length;
    await systemClock.sleep(1_500);
    assert.deepEqual(withArgument(token), before);
    assert.equal(cpuTicksOf(before), ticks);
    assert.equal((await agent.logBytes(attemptId)).length, printed);
    control(attemptId, "resume");
    await eventually(async () => (await agent.logBytes(attemptId)).length > printed);
    control(attemptId, "kill");
    await agent.result(attemptId);
    assert.deepEqual(withArgument(token), []);
  });

  test("the end of the lease kills a paused job as it is", async () => {
    const attemptId = agent.run({
      ...bash(`trap 'echo tidy' TERM EXIT\necho ready\nwhile :; do sleep 0.02; done`),
      leaseMs: LEASE_MARGIN_MS + 1_500,
    });
    const callOff = renewLeases(agent);
    try {
      await eventually(async () => (await agent.logBytes(attemptId)).includes("ready"));
      await pause(attemptId);
    } finally {
      callOff();
    }
    const result = await agent.result(attemptId);
    assert.deepEqual([result.state, result.cause], ["failed", "worker_lost"]);
    assert.doesNotMatch((await agent.logBytes(attemptId)).toString(), /tidy/);
  });

  test(
    "while a process cannot be killed there is no result, and the worker says that it is broken",
    { skip: mode === "v1" || !canFreeze() ? "needs root and the v1 freezer for itself" : false },
    async () => {
      const cgroup = join(FREEZER, `test-${process.pid}`);
      mkdirSync(cgroup);
      const { attemptId, token } = runWithToken("sleep $TOKEN & wait", 100);
      const [pid = 0] = await eventually(() => oneOrMore(sleepers(token)));
      // A frozen process of version 1 takes no signal, SIGKILL included.
      writeFileSync(join(cgroup, "cgroup.procs"), String(pid));
      writeFileSync(join(cgroup, "freezer.state"), "FROZEN");
      try {
        control(attemptId, "cancel");
        const broken = await agent.next("broken");
        assert.match(broken.message, new RegExp(`^processes of the job cannot be killed: ${pid} \\(sleep, `));
        await eventually(async () =>
          (await agent.logBytes(attemptId, "system")).includes("cannot be killed"),
        );
        assert.ok(
          !agent.heard.some((message) => message.type === "result" && message.attemptId === attemptId),
        );
      } finally {
        writeFileSync(join(cgroup, "freezer.state"), "THAWED");
      }
      assert.equal((await agent.result(attemptId)).state, "cancelled");
      assert.deepEqual(withArgument(token), []);
      rmdirSync(cgroup);
    },
  );
}

function canFreeze(): boolean {
  return existsSync(join(FREEZER, "cgroup.procs")) && process.getuid?.() === 0;
}

function oneOrMore(pids: number[]): number[] | null {
  return pids.length > 0 ? pids : null;
}

/** Living processes that have this argument. */
function withArgument(argument: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && read(`/proc/${name}/cmdline`).includes(argument))
    .filter((name) => !/\) [ZX] /.test(read(`/proc/${name}/stat`)))
    .map(Number);
}

function sleepers(argument: string): number[] {
  return withArgument(argument).filter((pid) => read(`/proc/${pid}/stat`).includes("(sleep)"));
}

function cpuTicksOf(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    const fields = read(`/proc/${pid}/stat`).split(") ")[1]?.split(" ") ?? [];
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, some) => sum + some, 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // It is gone.
    return "";
  }
}
