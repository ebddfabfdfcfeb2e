import assert from "node:assert/strict";
import * as http from "node:http";
import * as http2 from "node:http2";
import { connect as connectTcp } from "node:net";
import { after, test, type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { create, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type ConnectRouter, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger, type Logger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Health, HealthCheckResponse_ServingStatus as Status } from "../../protocol/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection, type ServerReflectionResponse } from "../../protocol/gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../protocol/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { JobService, QueueJobRequestSchema, type QueueJobRequest } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createTokenGuard } from "../auth/rpc-guard.ts";
import { errorInterceptor } from "./error-interceptor.ts";
import { startGrpcServer } from "./grpc-server.ts";
import type { HealthReport } from "./health-report.ts";
import { startHttpServer } from "./http-server.ts";
import { validationInterceptor } from "./validation.ts";

const TOKEN = "a-token-of-the-test";
const SCRIPT = { commandType: { case: "script" as const, value: { content: "true" } } };

/** Both servers around a small application, and what it saw. */
async function setup(t: TestContext, options: { drainMs?: number } = {}) {
  const seen: QueueJobRequest[] = [];
  const logged: { fields: Record<string, unknown>; message: string }[] = [];
  const log = { ...silentLogger, error: (fields: Record<string, unknown>, message: string) => logged.push({ fields, message }) } as unknown as Logger;
  const health: { report: HealthReport } = { report: { ready: true, problems: [] } };
  const streams = { open: 0 };
  const routes = (router: ConnectRouter): void => {
    router.service(JobService, {
      queueJob(request) {
        seen.push(request);
        return { jobId: `job-${seen.length}` };
      },
      queueJobs: (request) => ({ jobIds: request.jobs.map((_, index) => String(index)) }),
      getJob({ jobId }) {
        if (jobId === "dead") throw new TypeError("secret-detail");
        throw new AppError("not_found", `job ${jobId} not found`);
      },
      async *watchJob({ jobId }, { signal }) {
        streams.open += 1;
        try {
          yield {};
          if (jobId === "dead") throw new TypeError("secret-detail");
          await systemClock.sleep(60_000, signal);
        } finally {
          streams.open -= 1;
        }
      },
    });
    router.service(ServerService, { getServerInfo: () => ({ version: "1.2.3" }) });
    router.service(WorkerService, {
      async *workerStream(messages) {
        for await (const _ of messages) yield {};
      },
      register() {
        throw new AppError("unauthenticated", "unknown worker token");
      },
    });
  };
  const common = {
    host: "127.0.0.1",
    port: 0,
    routes,
    interceptors: [errorInterceptor({ log, random: systemRandom }), validationInterceptor()],
    auth: createTokenGuard({ token: TOKEN }),
    log,
    clock: systemClock,
    health: () => health.report,
    drainMs: options.drainMs ?? 1_000,
  };
  const web = await startHttpServer(common);
  const grpc = await startGrpcServer(common);
  const sessions = new Http2SessionManager(`http://127.0.0.1:${grpc.port}`);
  t.after(async () => {
    sessions.abort();
    await Promise.all([web.stop(), grpc.stop()]);
  });
  const grpcUrl = `http://127.0.0.1:${grpc.port}`;
  const withToken = (token: string | null): Interceptor[] => [
    (next) => (request) => {
      if (token !== null) request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    },
  ];
  const transports = (token: string | null): Record<string, Transport> => {
    const interceptors = withToken(token);
    return {
      "Connect": createConnectTransport({ baseUrl: web.url, httpVersion: "1.1", interceptors }),
      "Connect with JSON": createConnectTransport({ baseUrl: web.url, httpVersion: "1.1", useBinaryFormat: false, interceptors }),
      "gRPC-Web": createGrpcWebTransport({ baseUrl: web.url, httpVersion: "1.1", interceptors }),
      "gRPC": createGrpcTransport({ baseUrl: grpcUrl, sessionManager: sessions, interceptors }),
    };
  };
  return { web, grpc, grpcUrl, sessions, transports, seen, logged, health, streams };
}

function post(url: string, options: { body: string | Uint8Array; headers?: Record<string, string> }): Promise<Response> {
  return fetch(url, {
    method: "POST",
    body: options.body,
    headers: { "content-type": "application/json", authorization: `Bearer ${TOKEN}`, ...options.headers },
  });
}

/** A request whose head is exactly what the test wants: fetch would correct it. */
function rawRequest(port: number, options: { path: string; headers?: Record<string, string> }) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const request = http.get({ port, host: "127.0.0.1", agent: false, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    request.on("error", reject);
  });
}

async function codeOf(call: Promise<unknown>): Promise<Code> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error.code;
  }
  return assert.fail("the call should have failed");
}

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
  const stream = session.request({ ":method": "POST", ":path": "/hodei.v1.JobService/QueueJob", "content-type": "application/grpc" });
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
  const response = await post(`${web.url}/hodei.v1.JobService/QueueJob`, { body, headers: { authorization: "Basic eA==" } });
  assert.equal(response.status, 401);
  assert.equal(((await response.json()) as { code: string }).code, "unauthenticated");
});

test("bad JSON is refused with the field that is wrong, and the server goes on", async (t) => {
  const { web, seen } = await setup(t);
  const url = `${web.url}/hodei.v1.JobService/QueueJob`;
  const command = { script: { content: "true" } };
  const cases: { body: string | Uint8Array; names: RegExp }[] = [
    { body: "{", names: /JSON/ },
    { body: "[]", names: /QueueJobRequest/ },
    { body: JSON.stringify({ definition: { name: "x", command }, colour: 1 }), names: /colour/ },
    { body: JSON.stringify({ definition: { nam: "x", command } }), names: /nam/ },
    { body: JSON.stringify({ definition: { name: 5, command } }), names: /name/ },
    { body: JSON.stringify({ definition: { name: "x", command, timeout: "soon" } }), names: /timeout|Duration/ },
    { body: JSON.stringify({ definition: { name: "x", command, priority: 5000 } }), names: /definition\.priority/ },
    { body: JSON.stringify({}), names: /^definition: / },
    { body: JSON.stringify({ definition: { name: "x" } }), names: /^definition: one of command, steps must be set/ },
    { body: JSON.stringify({ definition: { name: "x", command: {} } }), names: /definition\.command\.command_type/ },
    { body: JSON.stringify({ definition: { name: "x", command, steps: [{ name: "y", command }] } }), names: /only one of command, steps can be set/ },
    { body: JSON.stringify({ definition: { name: "x", steps: [{ name: "a", command }, { name: "b", command }, { name: "c" }] } }), names: /definition\.steps\[2\]\.command: / },
    { body: JSON.stringify({ definition: { name: "a\u0000b", command } }), names: /definition\.name/ },
    { body: JSON.stringify({ definition: { name: "x", command: { script: { content: "a\u0000b" } } } }), names: /script\.content/ },
    { body: JSON.stringify({ definition: { name: "x", command, env: { A: "\u0000" } } }), names: /definition\.env\["A"\]/ },
    { body: JSON.stringify({ definition: { name: "x", command, env: { "1A": "" } } }), names: /definition\.env\["1A"\]/ },
    { body: '{"definition":{"name":"x\\ud800","command":{"script":{"content":"true"}}}}', names: /name|UTF/i },
    { body: Buffer.concat([Buffer.from('{"definition":{"name":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}}')]), names: /./ },
    { body: JSON.stringify({ definition: { name: "x", command: { script: { content: "x".repeat(10 * 1024 * 1024) } } } }), names: /definition\.command\.script\.content/ },
  ];
  for (const { body, names } of cases) {
    const response = await post(url, { body });
    const label = body.slice(0, 120).toString();
    const answer = (await response.json()) as { code: string; message: string };
    assert.equal(answer.code, "invalid_argument", `${label}: ${answer.message}`);
    assert.equal(response.status, 400, label);
    assert.match(answer.message, names, label);
  }
  assert.equal(seen.length, 0);
  assert.equal((await post(url, { body: JSON.stringify({ definition: { name: "x", command } }) })).status, 200);
  assert.equal(seen.length, 1);
});

test("bad binary messages are refused in every protocol, and the servers go on", async (t) => {
  const { web, grpcUrl, transports, seen } = await setup(t);
  const bodies = {
    "not protobuf": new Uint8Array([0xff, 0xff, 0xff, 0xff]),
    // definition { name: <ff fe> }
    "invalid UTF-8": new Uint8Array([0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe]),
  };
  for (const [name, body] of Object.entries(bodies)) {
    const headers = { "content-type": "application/proto" };
    const response = await post(`${web.url}/hodei.v1.JobService/QueueJob`, { body, headers });
    // INTERNAL is what grpc/doc/statuscodes.md wants for a request that cannot be parsed.
    assert.equal(((await response.json()) as { code: string }).code, "internal", name);
    const trailers = await rawGrpc(grpcUrl, body);
    assert.equal(trailers["grpc-status"], String(Code.Internal), `${name}: ${String(trailers["grpc-message"])}`);
  }
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const client = createClient(JobService, transport);
    assert.equal(await codeOf(client.queueJob({})), Code.InvalidArgument, name);
    assert.equal(await codeOf(client.getJob({ jobId: "xyz!" })), Code.InvalidArgument, name);
    const stream = client.watchJob({ jobId: "'; drop table" })[Symbol.asyncIterator]();
    assert.equal(await codeOf(stream.next()), Code.InvalidArgument, name);
  }
  assert.equal(seen.length, 0);
});

/** One gRPC call with any bytes as its message; returns all headers and trailers. */
function rawGrpc(url: string, message: Uint8Array): Promise<http2.IncomingHttpHeaders> {
  const session = http2.connect(url);
  const stream = session.request({
    ":method": "POST",
    ":path": "/hodei.v1.JobService/QueueJob",
    "content-type": "application/grpc+proto",
    authorization: `Bearer ${TOKEN}`,
    te: "trailers",
  });
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  stream.end(frame);
  return new Promise<http2.IncomingHttpHeaders>((resolve, reject) => {
    let all: http2.IncomingHttpHeaders = {};
    stream.on("response", (headers) => (all = { ...all, ...headers }));
    stream.on("trailers", (headers) => (all = { ...all, ...headers }));
    stream.on("error", reject);
    stream.on("end", () => resolve(all));
    stream.resume();
  }).finally(() => session.close());
}

test("a request larger than the limit is resource_exhausted, compressed or not", async (t) => {
  const { web } = await setup(t);
  const huge = new Uint8Array(65 * 1024 * 1024).fill(32);
  const url = `${web.url}/hodei.v1.JobService/QueueJob`;
  for (const [body, headers] of [
    [huge, {}],
    [gzipSync(huge, { level: 1 }), { "content-encoding": "gzip" }],
  ] as const) {
    const response = await post(url, { body, headers: { ...headers } });
    assert.equal(((await response.json()) as { code: string }).code, "resource_exhausted");
  }
  assert.equal((await fetch(`${web.url}/healthz`)).status, 200);
});

test("ten thousand mistakes give a short answer", async (t) => {
  const { transports } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const jobs = Array.from({ length: 10_000 }, () => create(QueueJobRequestSchema));
    await assert.rejects(createClient(JobService, transport).queueJobs({ jobs }), (error) => {
      assert.ok(error instanceof ConnectError, name);
      assert.equal(error.code, Code.InvalidArgument, `${name}: ${error.message}`);
      assert.match(error.rawMessage, /jobs\[0\]\.definition: .*jobs\[9\]\.definition: .*and 9990 more/);
      return true;
    });
  }
});

test("a map key of a megabyte does not come back in the message", async (t) => {
  const { transports } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const env = { ["1".repeat(1024 * 1024)]: "" };
    const call = createClient(JobService, transport).queueJob({ definition: { name: "x", command: SCRIPT, env } });
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof ConnectError, name);
      assert.equal(error.code, Code.InvalidArgument, `${name}: ${error.message.slice(0, 200)}`);
      assert.ok(error.rawMessage.length < 2_000, name);
      return true;
    });
  }
});

test("unknown paths, methods and content types get their HTTP status", async (t) => {
  const { web, grpcUrl } = await setup(t);
  assert.equal((await fetch(`${web.url}/nothing`)).status, 404);
  assert.equal((await post(`${web.url}/hodei.v1.JobService/Nothing`, { body: "{}" })).status, 404);
  const path = `${web.url}/hodei.v1.JobService/QueueJob`;
  assert.equal((await post(path, { body: "{}", headers: { "content-type": "text/plain" } })).status, 415);
  assert.equal((await fetch(path, { headers: { authorization: `Bearer ${TOKEN}` } })).status, 405);
  const session = http2.connect(grpcUrl);
  const stream = session.request({ ":path": "/nothing" });
  const headers = await new Promise<http2.IncomingHttpHeaders & { ":status"?: number }>((resolve) => stream.on("response", resolve));
  assert.notEqual(headers[":status"], 200);
  stream.resume();
  session.close();
});

test("a server on loopback answers only to names of loopback", async (t) => {
  const { web } = await setup(t);
  for (const host of ["localhost", "127.0.0.1", "[::1]", `localhost:${web.port}`, `127.0.0.1:${web.port}`, "LocalHost:80"]) {
    assert.equal((await rawRequest(web.port, { path: "/healthz", headers: { host } })).status, 200, host);
  }
  for (const host of ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "a b"]) {
    assert.equal((await rawRequest(web.port, { path: "/healthz", headers: { host } })).status, 403, `host "${host}"`);
  }
  const foreign = await rawRequest(web.port, { path: "/hodei.v1.ServerService/GetServerInfo", headers: { host: "evil.example", authorization: `Bearer ${TOKEN}` } });
  assert.equal(foreign.status, 403);
});

test("a malformed authority does not stop the gRPC server", async (t) => {
  const { grpcUrl, transports } = await setup(t);
  const session = http2.connect(grpcUrl);
  const stream = session.request({ ":method": "POST", ":path": "/hodei.v1.ServerService/GetServerInfo", ":authority": "a:99999", "content-type": "application/grpc" });
  const status = await new Promise((resolve) => stream.on("response", (headers) => resolve(headers[":status"])));
  assert.equal(status, 400);
  stream.resume();
  session.close();
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  assert.equal((await createClient(ServerService, gRPC).getServerInfo({})).version, "1.2.3");
});

test("something that is not HTTP/2 does not stop the gRPC server", async (t) => {
  const { grpc, transports } = await setup(t);
  for (const bytes of ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\u0000\u0001garbage", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff"]) {
    const socket = connectTcp(grpc.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.end(bytes);
    await new Promise((resolve) => socket.resume().once("close", resolve));
  }
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  assert.equal((await createClient(ServerService, gRPC).getServerInfo({})).version, "1.2.3");
});

test("the probes tell a living server from a ready one", async (t) => {
  const { web, health, transports } = await setup(t);
  const { gRPC } = transports(null);
  assert.ok(gRPC);
  const client = createClient(Health, gRPC);
  assert.equal((await fetch(`${web.url}/readyz`)).status, 200);
  assert.equal(await codeOf(client.check({ service: "no.such.Service" })), Code.NotFound);
  assert.equal((await client.check({ service: "hodei.v1.JobService" })).status, Status.SERVING);

  const watch = client.watch({})[Symbol.asyncIterator]();
  assert.equal((await watch.next()).value?.status, Status.SERVING);
  health.report = { ready: false, problems: ["database: connection refused"] };
  const response = await fetch(`${web.url}/readyz`);
  assert.equal(response.status, 503);
  assert.match(await response.text(), /- database: connection refused/);
  assert.equal((await fetch(`${web.url}/healthz`)).status, 200);
  assert.equal((await client.check({})).status, Status.NOT_SERVING);
  assert.equal((await watch.next()).value?.status, Status.NOT_SERVING);
  await watch.return?.();
});

test("answers carry the headers that keep browsers from guessing, and no permission for other origins", async (t) => {
  const { web } = await setup(t);
  const response = await post(`${web.url}/hodei.v1.ServerService/GetServerInfo`, { body: "{}", headers: { origin: "https://evil.example" } });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.equal(response.headers.get("access-control-allow-origin"), null);
});

test("reflection describes every service with all that its files import, in both versions", async (t) => {
  const { transports } = await setup(t);
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  for (const service of [ServerReflection, ServerReflectionAlpha] as const) {
    type Answer = ServerReflectionResponse["messageResponse"];
    const ask = async (question: { case: "listServices" | "fileContainingSymbol" | "fileByFilename" | "allExtensionNumbersOfType"; value: string }): Promise<Answer> => {
      async function* questions() {
        yield { host: "h", messageRequest: question };
      }
      const client = createClient(service as typeof ServerReflection, gRPC);
      for await (const answer of client.serverReflectionInfo(questions())) {
        assert.deepEqual(answer.originalRequest?.messageRequest, question);
        return answer.messageResponse;
      }
      return assert.fail("no answer");
    };
    const list = await ask({ case: "listServices", value: "" });
    assert.ok(list.case === "listServicesResponse");
    assert.deepEqual(
      list.value.service.map(({ name }) => name),
      ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "hodei.v1.JobService", "hodei.v1.ServerService", "hodei.v1.WorkerService"],
    );
    for (const symbol of ["hodei.v1.JobService", "hodei.v1.JobService.QueueJob", "hodei.v1.Job", "hodei.v1.Job.state", "hodei.v1.JobState"]) {
      const answer = await ask({ case: "fileContainingSymbol", value: symbol });
      assert.ok(answer.case === "fileDescriptorResponse", symbol);
      const files = answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
      assert.equal(files[0]?.name, "hodei/v1/jobs.proto", symbol);
      const names = new Set(files.map(({ name }) => name));
      for (const { dependency } of files) for (const name of dependency) assert.ok(names.has(name), `${name} is missing`);
      assert.ok(names.has("buf/validate/validate.proto") && names.has("google/protobuf/descriptor.proto"));
    }
    const byName = await ask({ case: "fileByFilename", value: "google/protobuf/timestamp.proto" });
    assert.equal(byName.case, "fileDescriptorResponse");
    const extensions = await ask({ case: "allExtensionNumbersOfType", value: "google.protobuf.FieldOptions" });
    assert.ok(extensions.case === "allExtensionNumbersResponse");
    assert.ok(extensions.value.extensionNumber.includes(1159));
    for (const question of [{ case: "fileByFilename", value: "../../etc/passwd" }, { case: "fileContainingSymbol", value: "hodei.v1.Nothing" }] as const) {
      const answer = await ask(question);
      assert.ok(answer.case === "errorResponse");
      assert.equal(answer.value.errorCode, Code.NotFound);
    }
  }
});

test("a client that leaves ends its stream's handler", async (t) => {
  const { transports, streams } = await setup(t);
  for (const [name, transport] of Object.entries(transports(TOKEN))) {
    const leave = new AbortController();
    const stream = createClient(JobService, transport).watchJob({ jobId: "0198" }, { signal: leave.signal })[Symbol.asyncIterator]();
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
  assert.deepEqual(await Promise.all(open), open.map(() => Code.Unavailable));
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
  half.write("POST /hodei.v1.JobService/QueueJob HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" + `authorization: Bearer ${TOKEN}\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n{`);
  const session = http2.connect(`http://127.0.0.1:${grpc.port}`);
  session.on("error", () => {});
  const stream = session.request({ ":method": "POST", ":path": "/hodei.v1.JobService/QueueJob", "content-type": "application/grpc", authorization: `Bearer ${TOKEN}` });
  stream.on("error", () => {});
  stream.write(new Uint8Array([0, 0, 0, 0, 9, 1]));
  const gone = Promise.all([new Promise((resolve) => half.once("close", resolve)), new Promise((resolve) => session.once("close", resolve))]);
  // Both servers have begun with the calls when these answers are here.
  await new Promise((resolve) => half.once("data", resolve));
  await new Promise((resolve) => session.ping(resolve));
  await Promise.all([web.stop(), grpc.stop()]);
  await gone;
});

test("a port in use is said to be", async (t) => {
  const { web, grpc } = await setup(t);
  for (const [start, port] of [[startHttpServer, web.port], [startGrpcServer, grpc.port]] as const) {
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
    await assert.rejects(start(options), (error) => error instanceof AppError && new RegExp(`listen on 127.0.0.1:${port}: .*EADDRINUSE`).test(error.message));
  }
});

after(() => http.globalAgent.destroy());
