import assert from "node:assert/strict";
import * as http2 from "node:http2";
import { connect as connectTcp } from "node:net";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { JobService, QueueJobRequestSchema } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { TOKEN, SCRIPT, setup, post, rawRequest, codeOf } from "./test-servers.ts";

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
    {
      body: JSON.stringify({ definition: { name: "x", command, timeout: "soon" } }),
      names: /timeout|Duration/,
    },
    {
      body: JSON.stringify({ definition: { name: "x", command, priority: 5000 } }),
      names: /definition\.priority/,
    },
    { body: JSON.stringify({}), names: /^definition: / },
    {
      body: JSON.stringify({ definition: { name: "x" } }),
      names: /^definition: one of command, steps must be set/,
    },
    {
      body: JSON.stringify({ definition: { name: "x", command: {} } }),
      names: /definition\.command\.command_type/,
    },
    {
      body: JSON.stringify({ definition: { name: "x", command, steps: [{ name: "y", command }] } }),
      names: /only one of command, steps can be set/,
    },
    {
      body: JSON.stringify({
        definition: { name: "x", steps: [{ name: "a", command }, { name: "b", command }, { name: "c" }] },
      }),
      names: /definition\.steps\[2\]\.command: /,
    },
    { body: JSON.stringify({ definition: { name: "a\u0000b", command } }), names: /definition\.name/ },
    {
      body: JSON.stringify({ definition: { name: "x", command: { script: { content: "a\u0000b" } } } }),
      names: /script\.content/,
    },
    {
      body: JSON.stringify({ definition: { name: "x", command, env: { A: "\u0000" } } }),
      names: /definition\.env\["A"\]/,
    },
    {
      body: JSON.stringify({ definition: { name: "x", command, env: { "1A": "" } } }),
      names: /definition\.env\["1A"\]/,
    },
    {
      body: '{"definition":{"name":"x\\ud800","command":{"script":{"content":"true"}}}}',
      names: /name|UTF/i,
    },
    {
      body: Buffer.concat([
        Buffer.from('{"definition":{"name":"'),
        Buffer.from([0xff, 0xfe]),
        Buffer.from('"}}'),
      ]),
      names: /./,
    },
    {
      body: JSON.stringify({
        definition: { name: "x", command: { script: { content: "x".repeat(10 * 1024 * 1024) } } },
      }),
      names: /definition\.command\.script\.content/,
    },
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
  assert.equal(
    (await post(url, { body: JSON.stringify({ definition: { name: "x", command } }) })).status,
    200,
  );
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
    assert.equal(
      trailers["grpc-status"],
      String(Code.Internal),
      `${name}: ${String(trailers["grpc-message"])}`,
    );
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
    const call = createClient(JobService, transport).queueJob({
      definition: { name: "x", command: SCRIPT, env },
    });
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
  const headers = await new Promise<http2.IncomingHttpHeaders & { ":status"?: number }>((resolve) =>
    stream.on("response", resolve),
  );
  assert.notEqual(headers[":status"], 200);
  stream.resume();
  session.close();
});

test("a server on loopback answers only to names of loopback", async (t) => {
  const { web } = await setup(t);
  for (const host of [
    "localhost",
    "127.0.0.1",
    "[::1]",
    `localhost:${web.port}`,
    `127.0.0.1:${web.port}`,
    "LocalHost:80",
  ]) {
    assert.equal((await rawRequest(web.port, { path: "/healthz", headers: { host } })).status, 200, host);
  }
  for (const host of [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "a b",
  ]) {
    assert.equal(
      (await rawRequest(web.port, { path: "/healthz", headers: { host } })).status,
      403,
      `host "${host}"`,
    );
  }
  const foreign = await rawRequest(web.port, {
    path: "/hodei.v1.ServerService/GetServerInfo",
    headers: { host: "evil.example", authorization: `Bearer ${TOKEN}` },
  });
  assert.equal(foreign.status, 403);
});

test("a malformed authority does not stop the gRPC server", async (t) => {
  const { grpcUrl, transports } = await setup(t);
  const session = http2.connect(grpcUrl);
  const stream = session.request({
    ":method": "POST",
    ":path": "/hodei.v1.ServerService/GetServerInfo",
    ":authority": "a:99999",
    "content-type": "application/grpc",
  });
  const status = await new Promise((resolve) =>
    stream.on("response", (headers) => resolve(headers[":status"])),
  );
  assert.equal(status, 400);
  stream.resume();
  session.close();
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  assert.equal((await createClient(ServerService, gRPC).getServerInfo({})).version, "1.2.3");
});

test("something that is not HTTP/2 does not stop the gRPC server", async (t) => {
  const { grpc, transports } = await setup(t);
  for (const bytes of [
    "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "\u0000\u0001garbage",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff",
  ]) {
    const socket = connectTcp(grpc.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.end(bytes);
    await new Promise((resolve) => socket.resume().once("close", resolve));
  }
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  assert.equal((await createClient(ServerService, gRPC).getServerInfo({})).version, "1.2.3");
});
