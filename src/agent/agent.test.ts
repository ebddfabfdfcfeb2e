import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { Code } from "@connectrpc/connect";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { AGENT_REFUSED } from "../base/exit-codes.ts";
import { silentLogger } from "../base/log.ts";
import { isProcessAlive, signalProcess, type ProcessIdentity } from "../base/process-identity.ts";
import { systemRandom } from "../base/random.ts";
import { definitionWith } from "../core/job.ts";
import type { WorkerMessage } from "../core/link.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import { Agent, HANDED_OVER_EXIT_CODE } from "./agent.ts";
import { FakeServer, refuse, type FakeStream } from "./fake-server.ts";

const workerProgram = fileURLToPath(new URL("../worker-main.js", import.meta.url));
const WORKER_ID = "01980000-0000-7000-8000-000000000002";

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-agent-"));
  const server = await FakeServer.start();
  const serverUrl = server.url;
  const agents: Agent[] = [];
  const runner = async (): Promise<ProcessIdentity> =>
    JSON.parse(await readFile(join(directory, "runner.pid"), "utf8")) as ProcessIdentity;
  t.after(async () => {
    await Promise.all(agents.map((agent) => agent.stop()));
    await server.stop();
    const identity = await runner().catch(() => null);
    if (identity) {
      signalProcess(identity, "SIGTERM");
      await eventually(() => !isProcessAlive(identity), { what: "the end of the runner" });
    }
    await rm(directory, { recursive: true, force: true });
  });
  const start = (options: { isStatic?: boolean } = {}): Agent => {
    const agent = new Agent({
      serverUrl,
      token: "token",
      tokenFile: null,
      directory,
      workerProgram,
      environment: { PATH: "/usr/bin:/bin", HODEI_LOG_LEVEL: "silent" },
      offlineExitMs: null,
      isStatic: options.isStatic ?? false,
      describe: async (capabilities) => ({
        ...sampleWorker,
        workerId: WORKER_ID,
        capabilities: [...capabilities],
      }),
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    agents.push(agent);
    return agent;
  };
  return { directory, server, start, runner };
}

/** Gives the worker a job, and waits until it runs. */
async function runJob(stream: FakeStream, script: string): Promise<string> {
  const attemptId = "01980000-0000-7000-8000-00000000000a";
  const command = { kind: "script", interpreter: "bash", content: script, safetyHeaders: true } as const;
  const definition = definitionWith({ name: "x", command });
  stream.send({ type: "run_job", attemptId, jobId: "j", attemptNumber: 1, definition });
  await stream.next("started");
  return attemptId;
}

async function nextDrainingHeartbeat(stream: FakeStream): Promise<WorkerMessage> {
  const isDraining = (message: WorkerMessage): boolean => message.type === "heartbeat" && message.draining;
  return await eventually(() => stream.heard.find(isDraining), { what: "the word that it drains" });
}

async function takeResult(stream: FakeStream): Promise<string> {
  const { attemptId, result } = await stream.next("result");
  stream.send({ type: "result_ack", attemptId });
  return result.state;
}

test("an agent that drains says so, finishes its job, takes leave and ends its runner", async (t) => {
  const { directory, server, start, runner } = await setup(t);
  const agent = start();
  const stream = await server.stream(0);
  stream.welcome();
  await runJob(stream, 'until [ -e "$HODEI_WORKSPACE/../../../go" ]; do sleep 0.05; done');
  const identity = await runner();
  // Both get the signal when their whole group is told to end.
  signalProcess(identity, "SIGTERM");
  agent.drain(60_000);
  await nextDrainingHeartbeat(stream);
  assert.equal(server.unregistrations, 0, "it stays while the job runs");
  await writeFile(join(directory, "go"), "");
  assert.equal(await takeResult(stream), "succeeded");
  assert.deepEqual(await agent.done, { exitCode: 0, message: "drained" });
  assert.equal(server.unregistrations, 1);
  await eventually(() => !isProcessAlive(identity), { what: "the end of the runner" });
});

test("asked again, it ends the job, and the server learns of it before the agent leaves", async (t) => {
  const { server, start, runner } = await setup(t);
  const agent = start();
  const stream = await server.stream(0);
  stream.welcome();
  await runJob(stream, "sleep 60");
  const identity = await runner();
  agent.drain(60_000);
  agent.drain(60_000);
  assert.equal(await takeResult(stream), "cancelled");
  assert.deepEqual(await agent.done, { exitCode: 0, message: "drained" });
  await eventually(() => !isProcessAlive(identity), { what: "the end of the runner" });
});

test("an agent that hands over leaves its runner and its job to the next one", async (t) => {
  const { server, start, runner } = await setup(t);
  const first = start();
  const stream = await server.stream(0);
  stream.welcome();
  const attemptId = await runJob(stream, "sleep 60");
  const identity = await runner();
  await first.handOver();
  assert.deepEqual(await first.done, { exitCode: HANDED_OVER_EXIT_CODE, message: "handed over" });
  assert.equal(server.unregistrations, 0);
  assert.ok(isProcessAlive(identity));

  const second = start();
  const next = await server.stream(1);
  const hello = await next.next("hello");
  assert.deepEqual(
    hello.attempts.map((attempt) => [attempt.attemptId, attempt.phase]),
    [[attemptId, "running"]],
  );
  assert.deepEqual(await runner(), identity);
  next.welcome();
  second.drain(0);
  assert.equal(await takeResult(next), "cancelled");
  await second.done;
});

test("a static worker that is stopped waits for the server's word, and is the same one when it is started again", async (t) => {
  const { server, start } = await setup(t);
  const first = start({ isStatic: true });
  const stream = await server.stream(0);
  stream.welcome();
  const attemptId = await runJob(stream, "exit 0");
  assert.equal(await takeResult(stream), "succeeded");
  first.drain(60_000);
  const heartbeat = await nextDrainingHeartbeat(stream);
  assert.ok(heartbeat.type === "heartbeat");
  // A job that was given to it before the server heard of it is still done.
  const command = { kind: "script", interpreter: "bash", content: "exit 3", safetyHeaders: true } as const;
  const definition = definitionWith({ name: "late", command });
  const late = attemptId.replace(/a$/, "b");
  stream.send({ type: "run_job", attemptId: late, jobId: "j", attemptNumber: 1, definition });
  stream.send({ type: "heartbeat_ack", sequence: heartbeat.sequence });
  await eventually(() =>
    stream.heard.find((message) => message.type === "result" && message.attemptId === late),
  );
  stream.send({ type: "result_ack", attemptId: late });
  assert.deepEqual(await first.done, { exitCode: 0, message: "stopped" });
  assert.equal(server.unregistrations, 0);

  const second = start({ isStatic: true });
  const next = await server.stream(1);
  assert.equal(next.token, stream.token);
  assert.equal(server.registrations.length, 1);
  next.welcome();
  await server.stop();
  second.drain(60_000);
  assert.deepEqual(await second.done, { exitCode: 0, message: "stopped" });
});

test("a static worker that the server sends away takes leave, and needs a new token afterwards", async (t) => {
  const { directory, server, start } = await setup(t);
  const agent = start({ isStatic: true });
  const stream = await server.stream(0);
  stream.welcome();
  stream.send({ type: "drain", reason: "not needed" });
  assert.deepEqual(await agent.done, {
    exitCode: 0,
    message: "drained, as the server wanted: not needed",
  });
  assert.equal(server.unregistrations, 1);
  await assert.rejects(readFile(join(directory, "session.json")), /ENOENT/);
});

test("a static worker that was removed says so, and its directory takes a new token", async (t) => {
  const { server, start } = await setup(t);
  server.onStream = refuse(Code.Unauthenticated, "worker session: the session token is unknown or revoked");
  const agent = start({ isStatic: true });
  const { exitCode, message } = await agent.done;
  assert.equal(exitCode, AGENT_REFUSED);
  assert.match(message, /unknown or revoked; it was removed, .*`hodei workers token`/);
  server.onStream = () => {};
  start({ isStatic: true });
  const stream = await server.stream(0);
  assert.equal(stream.token, "session-2");
});

test("an agent that is not registered yet leaves at once", async (t) => {
  const { server, start } = await setup(t);
  await server.stop();
  const agent = start();
  agent.drain(60_000);
  assert.equal((await agent.done).exitCode, 0);
});
