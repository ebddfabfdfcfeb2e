import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { isProcessAlive, signalProcess, type ProcessIdentity } from "../base/process-identity.ts";
import { withSocketPath } from "../base/socket-path.ts";
import type { RunnerToAgent } from "../core/runner-link.ts";
import { runnerSocketPath } from "../protocol/spool-layout.ts";
import { RunnerClient } from "./runner-client.ts";

const workerProgram = fileURLToPath(new URL("../worker-main.js", import.meta.url));

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-runner-client-"));
  const clients: RunnerClient[] = [];
  const runnerIdentity = async (): Promise<ProcessIdentity | null> => {
    const text = await readFile(join(directory, "runner.pid"), "utf8").catch(() => null);
    return text === null ? null : (JSON.parse(text) as ProcessIdentity);
  };
  t.after(async () => {
    await Promise.all(clients.map((client) => client.stop()));
    const runner = await runnerIdentity();
    if (runner) signalProcess(runner, "SIGKILL");
    await eventually(() => !runner || !isProcessAlive(runner));
    await rm(directory, { recursive: true, force: true });
  });
  const connect = () => {
    const heard: RunnerToAgent[] = [];
    const client = new RunnerClient({
      directory,
      workerProgram,
      environment: { PATH: "/usr/bin:/bin", HODEI_TOKEN: "secret", HODEI_LOG_LEVEL: "silent" },
      clock: systemClock,
      log: silentLogger,
      onMessage: (message) => heard.push(message),
    });
    clients.push(client);
    const hellos = (): number[] =>
      heard.flatMap((message) => (message.type === "hello" ? [message.pid] : []));
    return { client, heard, hellos };
  };
  return { directory, connect, runnerIdentity };
}

/** A runner of the test's own making on the socket. */
async function fakeRunner(
  t: TestContext,
  directory: string,
  onConnect: (socket: Socket) => void,
): Promise<void> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => socket.destroy());
    onConnect(socket);
  });
  await withSocketPath(runnerSocketPath(directory), (path) => once(server.listen(path), "listening"));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
}

const hello = `${JSON.stringify({ type: "hello", pid: 1, version: "", capabilities: [], attempts: [] })}\n`;

test("starts a runner, adopts it the next time, and comes back after it was killed", async (t) => {
  const { connect, runnerIdentity } = await setup(t);
  const first = connect();
  const [pid] = await eventually(() => (first.hellos().length > 0 ? first.hellos() : null));
  await first.client.stop();

  const second = connect();
  assert.deepEqual(await eventually(() => (second.hellos().length > 0 ? second.hellos() : null)), [pid]);
  process.kill(pid ?? 0, "SIGKILL");
  const [, newPid] = await eventually(() => (second.hellos().length > 1 ? second.hellos() : null));
  assert.notEqual(newPid, pid);

  await second.client.shutDownRunner(true);
  const runner = await runnerIdentity();
  assert.equal(runner?.pid, newPid);
  await eventually(() => runner && !isProcessAlive(runner), { what: "the end of the runner" });
});

test("ends a runner that it has only just started", async (t) => {
  const { connect, runnerIdentity } = await setup(t);
  const { client } = connect();
  const runner = await eventually(runnerIdentity);
  await client.shutDownRunner(true);
  await eventually(() => !isProcessAlive(runner), { what: "the end of the runner" });
});

test("sends no order before the runner has said what it holds", async (t) => {
  const { directory, connect } = await setup(t);
  let said = "";
  let isConnected = false;
  let greet = (): void => {};
  await fakeRunner(t, directory, (socket) => {
    isConnected = true;
    socket.on("data", (chunk) => (said += chunk.toString()));
    greet = () => socket.write(hello);
  });
  const { client, heard } = connect();
  await eventually(() => isConnected);
  client.send({ type: "forget", attemptId: "early" });
  greet();
  await eventually(() => heard.length > 0);
  client.send({ type: "forget", attemptId: "late" });
  await eventually(() => said.includes("late"));
  assert.doesNotMatch(said, /early/);
});

test("connects again when the runner says what is no message", async (t) => {
  const { directory, connect } = await setup(t);
  let connections = 0;
  await fakeRunner(t, directory, (socket) => {
    connections += 1;
    socket.write(connections === 1 ? "{ not json\n" : hello);
  });
  const { heard } = connect();
  await eventually(() => heard.length > 0);
  assert.equal(connections, 2);
});
