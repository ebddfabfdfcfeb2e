import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, readlink, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import {
  identifyProcess,
  isProcessAlive,
  signalProcess,
  type ProcessIdentity,
} from "../../base/process-identity.ts";
import { readRunnerMark } from "../../base/runner-mark.ts";
import { providerConformance, sampleSpec } from "../provider-conformance.ts";
import type { ProviderEvent } from "../provider.ts";
import { ProcessProvider } from "./process-provider.ts";

const workerProgram = fileURLToPath(new URL("../../worker-main.js", import.meta.url));

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-process-provider-"));
  const open = (program = workerProgram): ProcessProvider =>
    new ProcessProvider({
      directory,
      workerProgram: program,
      environment: { PATH: process.env["PATH"], HODEI_CGROUP: "none", SECRET: "not for workers" },
      clock: systemClock,
      log: silentLogger,
    });
  const provider = open();
  const providers = [provider];
  t.after(async () => {
    for (const opened of providers) await opened.close();
    const last = open();
    for (const { workerId } of await last.list()) await last.destroy(workerId);
    assert.deepEqual(await processesBelow(directory), []);
    await rm(directory, { recursive: true, force: true });
  });
  const reopen = async (program?: string): Promise<ProcessProvider> => {
    const next = open(program);
    providers.push(next);
    return next;
  };
  const identity = async (workerId: string, name: "agent.pid" | "runner.pid"): Promise<ProcessIdentity> =>
    eventually(async () => {
      const text = await readFile(join(directory, workerId, name), "utf8").catch(() => "");
      return text === "" ? null : (JSON.parse(text) as ProcessIdentity);
    });
  const kill = async (workerId: string): Promise<void> => {
    // The runner first, so that the agent has nothing to come back for.
    const runner = await identity(workerId, "runner.pid");
    const agent = await identity(workerId, "agent.pid");
    // From then on there may be jobs.
    await eventually(async () => (await readRunnerMark(join(directory, workerId))) !== null);
    signalProcess(agent, "SIGSTOP");
    signalProcess(runner, "SIGKILL");
    signalProcess(agent, "SIGKILL");
    await eventually(() => !isProcessAlive(runner) && !isProcessAlive(agent));
  };
  return { directory, provider, reopen, identity, kill };
}

/** What runs with its working directory below this one. */
async function processesBelow(directory: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const places = await Promise.all(
    pids.map(async (pid) => `${pid} ${await readlink(`/proc/${pid}/cwd`).catch(() => "")}`),
  );
  return places.filter((place) => place.includes(directory));
}

providerConformance("process", setup);

test("starts an agent again that was killed, and the new one adopts the runner", async (t) => {
  const { provider, identity } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const agent = await identity(spec.workerId, "agent.pid");
  const runner = await identity(spec.workerId, "runner.pid");
  signalProcess(agent, "SIGKILL");
  await eventually(async () => (await identity(spec.workerId, "agent.pid")).pid !== agent.pid);
  assert.ok(isProcessAlive(runner));
  assert.deepEqual(await identity(spec.workerId, "runner.pid"), runner);
  assert.equal(await provider.inspect(spec.workerId), "running");
});

test("starts an agent again that died after the server that made it", async (t) => {
  const { provider, reopen, identity } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  await provider.close();
  const agent = await identity(spec.workerId, "agent.pid");
  const runner = await identity(spec.workerId, "runner.pid");
  signalProcess(agent, "SIGKILL");
  const next = await reopen();
  await eventually(async () => {
    assert.equal(await next.inspect(spec.workerId), "running");
    const now = await identity(spec.workerId, "agent.pid");
    return now.pid !== agent.pid && isProcessAlive(now);
  });
  assert.ok(isProcessAlive(runner));
});

/** What a job of a worker leaves when its runner is killed. */
async function startStray(workerDirectory: string): Promise<ProcessIdentity> {
  const workspace = join(workerDirectory, "attempts", "attempt-1", "workspace");
  await mkdir(workspace, { recursive: true });
  const job = spawn("sleep", ["900"], {
    detached: true,
    cwd: "/",
    stdio: "ignore",
    env: { HODEI_WORKSPACE: workspace, PATH: process.env["PATH"] },
  });
  await once(job, "spawn");
  return identifyProcess(job.pid ?? 0);
}

test("ends the jobs of a runner that was killed before it destroys the worker", async (t) => {
  const { directory, provider, kill } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const job = await startStray(join(directory, spec.workerId));
  await kill(spec.workerId);
  await provider.destroy(spec.workerId);
  assert.ok(!isProcessAlive(job));
  await assert.rejects(stat(join(directory, spec.workerId)), /ENOENT/);
});

test("says that a worker is gone only when nothing of its jobs runs", async (t) => {
  const { directory, provider, kill } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const job = await startStray(join(directory, spec.workerId));
  const livedAtEvent = new Promise<boolean>((resolve) => {
    provider.onEvent(() => resolve(isProcessAlive(job)));
  });
  await kill(spec.workerId);
  await eventually(async () => (await provider.inspect(spec.workerId)) === "gone");
  assert.ok(!isProcessAlive(job));
  assert.equal(await livedAtEvent, false);
});

test("ends the jobs of a worker that died while no server was there", async (t) => {
  const { directory, provider, reopen, kill } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  await provider.close();
  const job = await startStray(join(directory, spec.workerId));
  await kill(spec.workerId);
  const next = await reopen();
  assert.equal(await next.inspect(spec.workerId), "running");
  await eventually(async () => (await next.inspect(spec.workerId)) === "gone");
  assert.ok(!isProcessAlive(job));
});

const FREEZER = "/sys/fs/cgroup/freezer";

test(
  "does not call a worker gone whose jobs cannot be ended, and says what is left",
  { skip: canFreeze() ? false : "needs root and the v1 freezer" },
  async (t) => {
    const { directory, provider, kill } = await setup(t);
    const spec = sampleSpec();
    await provider.create(spec);
    const job = await startStray(join(directory, spec.workerId));
    // A frozen process of version 1 takes no signal, SIGKILL included.
    const cgroup = join(FREEZER, `test-${spec.workerId}`);
    await mkdir(cgroup);
    t.after(() => rmdir(cgroup));
    await writeFile(join(cgroup, "cgroup.procs"), String(job.pid));
    await writeFile(join(cgroup, "freezer.state"), "FROZEN");
    await kill(spec.workerId);
    const refusal = `end the jobs of worker ${spec.workerId}: processes of jobs could not be ended: ${job.pid} \\(sleep, `;
    await assert.rejects(provider.destroy(spec.workerId), {
      code: "unavailable",
      message: new RegExp(refusal),
    });
    assert.equal(await provider.inspect(spec.workerId), "running");
    assert.equal((await provider.list()).length, 1);
    await writeFile(join(cgroup, "freezer.state"), "THAWED");
    await provider.destroy(spec.workerId);
    assert.ok(!isProcessAlive(job));
  },
);

function canFreeze(): boolean {
  return existsSync(join(FREEZER, "cgroup.procs")) && process.getuid?.() === 0;
}

test("starts an agent again however often it dies, as long as its runner has work", async (t) => {
  const { directory, provider, identity } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const runner = await identity(spec.workerId, "runner.pid");
  const attempts = join(directory, spec.workerId, "attempts");
  await eventually(() => existsSync(attempts));
  await mkdir(join(attempts, "attempt-1"));
  // More often than an agent without work is started again.
  for (let deaths = 0; deaths < 7; deaths += 1) {
    const agent = await identity(spec.workerId, "agent.pid");
    signalProcess(agent, "SIGKILL");
    await eventually(async () => (await identity(spec.workerId, "agent.pid")).pid !== agent.pid);
  }
  assert.ok(isProcessAlive(runner));
  assert.equal(await provider.inspect(spec.workerId), "running");
});

test("starts an agent again that was killed before it had a runner", async (t) => {
  const { directory, reopen, identity } = await setup(t);
  const program = join(directory, "slow.mjs");
  await writeFile(program, "setInterval(() => {}, 1_000);\n");
  const provider = await reopen(program);
  const spec = sampleSpec();
  await provider.create(spec);
  const agent = await identity(spec.workerId, "agent.pid");
  signalProcess(agent, "SIGKILL");
  await eventually(async () => (await identity(spec.workerId, "agent.pid")).pid !== agent.pid);
  assert.equal(await provider.inspect(spec.workerId), "running");
});

test("does not start an agent again whose worker is being destroyed", async (t) => {
  const { directory, provider, identity } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const agent = await identity(spec.workerId, "agent.pid");
  await identity(spec.workerId, "runner.pid");
  signalProcess(agent, "SIGKILL");
  await eventually(() => !isProcessAlive(agent));
  await provider.destroy(spec.workerId);
  // Longer than the wait before a restart.
  await systemClock.sleep(700);
  assert.deepEqual(await processesBelow(directory), []);
  await assert.rejects(stat(join(directory, spec.workerId)), /ENOENT/);
});

test("reports the last words of an agent that could not start", async (t) => {
  const { directory, reopen } = await setup(t);
  const program = join(directory, "broken.mjs");
  await writeFile(program, 'console.error("no such luck"); process.exit(3);\n');
  const provider = await reopen(program);
  const events: ProviderEvent[] = [];
  provider.onEvent((event) => events.push(event));
  const spec = sampleSpec();
  await provider.create(spec);
  const [event] = await eventually(() => (events.length > 0 ? events : null));
  assert.deepEqual(event, {
    type: "gone",
    workerId: spec.workerId,
    message: "the agent ended with code 3: no such luck",
  });
});

test("gives workers a chosen environment, and the token in a file only", async (t) => {
  const { directory, provider, identity } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const { pid } = await identity(spec.workerId, "agent.pid");
  const environment = await readFile(`/proc/${pid}/environ`, "utf8");
  const argv = await readFile(`/proc/${pid}/cmdline`, "utf8");
  assert.match(environment, new RegExp(`HODEI_WORKER_ID=${spec.workerId}`));
  assert.doesNotMatch(environment, /SECRET/);
  assert.ok(!environment.includes(spec.token) && !argv.includes(spec.token));
  const token = join(directory, spec.workerId, "token");
  assert.equal(await readFile(token, "utf8"), spec.token);
  assert.equal((await stat(token)).mode & 0o777, 0o600);
});

test("refuses a worker id that is no UUID, since it becomes a path", async (t) => {
  const { provider } = await setup(t);
  await assert.rejects(provider.destroy("../x"), { code: "invalid_argument" });
});

test("is unhealthy without the worker program", async (t) => {
  const { reopen } = await setup(t);
  const provider = await reopen("/nowhere/worker.js");
  assert.equal((await provider.healthCheck()).status, "unhealthy");
});
