import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Code } from "@connectrpc/connect";
import { systemClock, type Clock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { ManualClock } from "../base/manual-clock.ts";
import { systemRandom } from "../base/random.ts";
import type { ServerMessage, WorkerMessage } from "../core/link.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import { FakeServer, refuse } from "./fake-server.ts";
import { dial, ServerLink, SILENCE_MS } from "./server-link.ts";

const beat = (sequence: number): WorkerMessage => ({
  type: "heartbeat",
  sequence,
  usage: null,
  attempts: [],
  draining: false,
});

async function setup(t: TestContext, options: { clock?: Clock } = {}) {
  const server = await FakeServer.start();
  const dialled = dial(server.url);
  const heard: ServerMessage[] = [];
  const revoked: string[] = [];
  const logs: WorkerMessage[] = [];
  let closed = 0;
  const link = new ServerLink({
    server: dialled,
    sessionToken: "session",
    clock: options.clock ?? systemClock,
    // The longest waits that the backoff allows.
    random: { ...systemRandom, fraction: () => 1 },
    log: silentLogger,
    hello: () => ({ type: "hello", worker: sampleWorker, attempts: [], draining: false, runnerId: "" }),
    onMessage: (message) => heard.push(message),
    onClosed: () => (closed += 1),
    nextLog: async () => logs.shift() ?? null,
    onRevoked: (message) => revoked.push(message),
  });
  t.after(async () => {
    await link.stop();
    dialled.close();
    await server.stop();
  });
  return { server, link, heard, revoked, logs, closed: () => closed };
}

test("says nothing before the welcome, and everything in order after it", async (t) => {
  const { server, link, heard } = await setup(t);
  const stream = await server.stream(0);
  assert.equal(stream.token, "session");
  link.send(beat(1));
  stream.welcome();
  await eventually(() => heard.length === 1);
  assert.equal(link.offlineSinceMs, null);
  link.send(beat(2));
  link.send(beat(3));
  await eventually(() => stream.heard.length === 3);
  assert.deepEqual(
    stream.heard.flatMap((message) => (message.type === "heartbeat" ? [message.sequence] : [])),
    [2, 3],
  );
});

test("lets messages overtake log", async (t) => {
  const { server, link, heard, logs } = await setup(t);
  const stream = await server.stream(0);
  stream.welcome();
  await eventually(() => heard.length === 1);
  for (let offset = 0; offset < 3; offset += 1) {
    logs.push({
      type: "log_batch",
      attemptId: "01890a5d-ac96-774b-bcce-b302099a8057",
      offset,
      data: new Uint8Array(1),
    });
  }
  link.send(beat(1));
  link.send(beat(2));
  await eventually(() => stream.heard.length === 6);
  assert.deepEqual(
    stream.heard.map(({ type }) => type),
    ["hello", "heartbeat", "heartbeat", "log_batch", "log_batch", "log_batch"],
  );
});

test("opens a new stream when the server ends this one", async (t) => {
  const { server, closed, link } = await setup(t);
  const stream = await server.stream(0);
  stream.welcome();
  stream.outbox.end();
  const second = await server.stream(1);
  assert.equal(closed(), 1);
  assert.notEqual(link.offlineSinceMs, null);
  second.welcome();
  await eventually(() => link.offlineSinceMs === null);
});

test("leaves a server that is silent, together with the connection", async (t) => {
  const clock = new ManualClock();
  const { server, heard } = await setup(t, { clock });
  const stream = await server.stream(0);
  stream.welcome();
  await eventually(() => heard.length === 1);
  clock.advance(SILENCE_MS - 1);
  stream.send({ type: "heartbeat_ack", sequence: 1 });
  await eventually(() => heard.length === 2);
  clock.advance(SILENCE_MS - 1);
  assert.ok(stream.isOpen);
  clock.advance(1);
  await eventually(() => !stream.isOpen && server.connections === 0, { what: "the end of the connection" });
  await eventually(() => {
    clock.advance(1_000);
    return server.streams.length === 2;
  });
});

test("hurries back after a good stream, and waits longer and longer when streams end soon", async (t) => {
  const clock = new ManualClock();
  const { server, link } = await setup(t, { clock });
  /** Lets a stream last so long, and returns how long the link waits before the next one. */
  const waitAfter = async (index: number, lastsMs: number): Promise<number> => {
    (await server.stream(index)).welcome();
    await eventually(() => link.offlineSinceMs === null);
    clock.advance(lastsMs);
    link.reconnect();
    await eventually(() => link.offlineSinceMs !== null && clock.waiting === 1);
    const fromMs = clock.nowMs();
    while (clock.waiting === 1 && clock.nowMs() - fromMs < 60_000) clock.advance(1);
    return clock.nowMs() - fromMs;
  };
  assert.equal(await waitAfter(0, 5_000), 20);
  assert.equal(await waitAfter(1, 100), 200);
  assert.equal(await waitAfter(2, 100), 400);
  assert.equal(await waitAfter(3, 100), 800);
  assert.equal(await waitAfter(4, 5_000), 20);
});

test("ends when the server does not know the session any more", async (t) => {
  const { server, revoked } = await setup(t);
  const stream = await server.stream(0);
  server.onStream = refuse(Code.Unauthenticated, "revoked");
  stream.outbox.end();
  await eventually(() => revoked.length === 1);
  assert.match(revoked[0] ?? "", /revoked/);
  assert.equal(server.streams.length, 1);
});

test("comes back to a server that was away", async (t) => {
  const { server, link } = await setup(t);
  const { port } = server;
  await server.stream(0);
  await server.stop();
  await eventually(() => link.offlineSinceMs !== null);
  const next = await FakeServer.start(port);
  t.after(() => next.stop());
  await next.stream(0);
});
