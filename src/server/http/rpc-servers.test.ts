import assert from "node:assert/strict";
import * as http2 from "node:http2";
import { connect as connectTcp } from "node:net";
import { test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from "../../protocol/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../protocol/gen/grpc/reflection/v1/reflection_pb.ts";
import { JobService } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { startGrpcServer } from "./grpc-server.ts";
import { startHttpServer } from "./http-server.ts";
import { TOKEN, SCRIPT, setup, post, codeOf } from "./test-servers.ts";

test("every protocol answers a call, and says what a handler's AppError says", async (t) => {
  const { transports } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const info = await createClient(ServerService, transport).getServerInfo({});
    assert.equal(info.version, "1.2.3", name);
    const call = createClient(JobService, transport).getJob({ jobId: "0198" });
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.NotFound, name);
      assert.equal(error.rawMessage, "job 0198 not found", name);
      return true;
    });
  }
});

test("a handler's unexpected error is logged under an id, and only the id leaves the server", async (t) => {
  const { transports, logged } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const client = createClient(JobService, transport);
    const watch = async (): Promise<void> => {
      for await (const _ of client.watchJob({ jobId: "dead" })) continue;
    };
    for (const call of [() => client.getJob({ jobId: "dead" }), watch]) {
      await assert.rejects(call(), (error) => {
        assert.ok(error instanceof ConnectError, name);
        assert.equal(error.code, Code.Internal, name);
        assert.doesNotMatch(error.message, /secret-detail/);
        const line = logged.at(-1);
        assert.match(error.rawMessage, new RegExp(String(line?.fields["errorId"])));
        assert.match(String(line?.fields["err"]), /secret-detail/);
        return true;
      });
    }
  }
});

test("a call without the right token is refused in every protocol, with a hint", async (t) => {
  const { transports, seen } = await setup(t);
  for (const token of [null, "wrong", ""]) {
    for (const [name, transport] of Object.entries(transports(token))) {
      const client = createClient(JobService, transport);
      await assert.rejects(client.queueJob({ definition: { name: "x", command: SCRIPT } }), (error) => {
        assert.ok(error instanceof ConnectError);
        assert.equal(error.code, Code.Unauthenticated, name);
        assert.match(error.rawMessage, /api-token/);
        return true;
      });
      const stream = client.watchJob({ jobId: "0198" })[Symbol.asyncIterator]();
      assert.equal(await codeOf(stream.next()), Code.Unauthenticated, `${name}, stream`);
    }
  }
  assert.equal(seen.length, 0);
});

test("a refusal over gRPC is one header frame that ends the stream, as C++ clients want it", async (t) => {
  const { grpcUrl } = await setup(t);
  const session = http2.connect(grpcUrl);
  const stream = session.request({
    ":method": "POST",
    ":path": "/hodei.v1.JobService/QueueJob",
    "content-type": "application/grpc",
  });
  const [headers, flags] = await new Promise<[http2.IncomingHttpHeaders, number]>((resolve) => {
    stream.on("response", (received, receivedFlags) => resolve([received, receivedFlags]));
  });
  assert.equal(headers["grpc-status"], String(Code.Unauthenticated));
  assert.ok((flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0);
  stream.close();
  session.close();
});

test("health probes and worker calls need no token, reflection does", async (t) => {
  const { transports } = await setup(t);
  const { gRPC: transport } = transports(null);
  assert.ok(transport);
  assert.equal((await createClient(Health, transport).check({})).status, Status.SERVING);
  await assert.rejects(
    createClient(WorkerService, transport).register({
      token: "t",
      worker: { name: "w", capacity: { jobs: 1 } },
      protocolVersion: 1,
      registrationKey: "0123456789abcdef",
    }),
    /unknown worker token/,
  );
  assert.equal(await codeOf(createClient(WorkerService, transport).listWorkers({})), Code.Unauthenticated);
  async function* question() {
    yield { messageRequest: { case: "listServices" as const, value: "" } };
  }
  const reflection = createClient(ServerReflection, transport).serverReflectionInfo(question());
  assert.equal(await codeOf(reflection[Symbol.asyncIterator]().next()), Code.Unauthenticated);
});

test("a refused call of a stranger with a large body is answered without reading it", async (t) => {
  const { web } = await setup(t);
  const body = new Uint8Array(8 * 1024 * 1024);
  const response = await post(`${web.url}/hodei.v1.JobService/QueueJob`, {
    body,
    headers: { authorization: "Basic eA==" },
  });
  assert.equal(response.status, 401);
  assert.equal(((await response.json()) as { code: string }).code, "unauthenticated");
});

test("answers carry the headers that keep browsers from guessing, and no permission for other origins", async (t) => {
  const { web } = await setup(t);
  const response = await post(`${web.url}/hodei.v1.ServerService/GetServerInfo`, {
    body: "{}",
    headers: { origin: "https://evil.example" },
  });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.equal(response.headers.get("access-control-allow-origin"), null);
});

test("a client that leaves ends its stream's handler", async (t) => {
  const { transports, streams } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const leave = new AbortController();
    const streamCall = createClient(JobService, transport).watchJob(
      { jobId: "0198" },
      { signal: leave.signal },
    );
    const stream = streamCall[Symbol.asyncIterator]();
    await stream.next();
    assert.equal(streams.open, 1, name);
    leave.abort();
    await assert.rejects(stream.next());
    await eventually(() => streams.open === 0, { what: `the end of the handler (${name})` });
  }
});

test("a stop ends open streams with unavailable and frees both ports", async (t) => {
  const { web, grpc, transports, streams } = await setup(t, { drainMs: 20_000 });
  const open = [];
  for (const transport of Object.values(transports(TOKEN))) {
    const stream = createClient(JobService, transport).watchJob({ jobId: "0198" })[Symbol.asyncIterator]();
    await stream.next();
    open.push(codeOf(stream.next()));
  }
  assert.equal(streams.open, open.length);
  const startedMs = systemClock.monotonicMs();
  await Promise.all([web.stop(), grpc.stop(), web.stop()]);
  assert.ok(systemClock.monotonicMs() - startedMs < 10_000, "the stop waited for its deadline");
  assert.deepEqual(
    await Promise.all(open),
    open.map(() => Code.Unavailable),
  );
  assert.equal(streams.open, 0);
  for (const port of [web.port, grpc.port]) {
    const refused = await new Promise((resolve) => {
      const socket = connectTcp(port, "127.0.0.1");
      socket.once("error", () => resolve(true)).once("connect", () => resolve(false));
    });
    assert.equal(refused, true);
  }
});

test("a stop does not wait longer than its deadline for a client that never ends", async (t) => {
  const { web, grpc } = await setup(t, { drainMs: 100 });
  const half = connectTcp(web.port, "127.0.0.1");
  half.on("error", () => {});
  half.write(
    "POST /hodei.v1.JobService/QueueJob HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" +
      `authorization: Bearer ${TOKEN}\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n{`,
  );
  const session = http2.connect(`http://127.0.0.1:${grpc.port}`);
  session.on("error", () => {});
  const stream = session.request({
    ":method": "POST",
    ":path": "/hodei.v1.JobService/QueueJob",
    "content-type": "application/grpc",
    authorization: `Bearer ${TOKEN}`,
  });
  stream.on("error", () => {});
  stream.write(new Uint8Array([0, 0, 0, 0, 9, 1]));
  const gone = Promise.all([
    new Promise((resolve) => half.once("close", resolve)),
    new Promise((resolve) => session.once("close", resolve)),
  ]);
  // Both servers have begun with the calls when these answers are here.
  await new Promise((resolve) => half.once("data", resolve));
  await new Promise((resolve) => session.ping(resolve));
  await Promise.all([web.stop(), grpc.stop()]);
  await gone;
});

test("a port in use is said to be", async (t) => {
  const { web, grpc } = await setup(t);
  for (const [start, port] of [
    [startHttpServer, web.port],
    [startGrpcServer, grpc.port],
  ] as const) {
    const options = {
      host: "127.0.0.1",
      port,
      routes: () => {},
      interceptors: [],
      auth: () => null,
      log: silentLogger,
      clock: systemClock,
      health: () => ({ ready: true, problems: [] }),
    };
    await assert.rejects(
      start(options),
      (error) =>
        error instanceof AppError &&
        new RegExp(`listen on 127.0.0.1:${port}: .*EADDRINUSE`).test(error.message),
    );
  }
});

test("a stop does not wait for a connection whose other end is dead", { timeout: 20_000 }, async (t) => {
  const { grpc } = await setup(t, { drainMs: 100 });
  // It never answers the end of the connection with its own, as a machine that lost its network.
  const socket = connectTcp({ port: grpc.port, host: "127.0.0.1", allowHalfOpen: true });
  t.after(() => socket.destroy());
  const settingsFrame = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
  socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settingsFrame]));
  await new Promise((resolve) => socket.once("data", resolve));
  socket.on("error", () => {
    // The server may well reset it.
  });
  await grpc.stop();
});
