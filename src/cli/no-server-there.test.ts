import assert from "node:assert/strict";
import { createServer as createHttp2Server } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { test, type TestContext } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { call } from "./call.ts";
import { cli, startFakeServer } from "./fake-server.ts";

const JOB_ID = "01980000-0000-7000-8000-000000000001";

async function portOf(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return (server.address() as AddressInfo).port;
}

for (const argv of [
  ["get", JOB_ID],
  ["logs", "--follow", JOB_ID],
  ["run", "--", "true"],
]) {
  test(`hodei ${argv[0]} does not wait for a server at the port for workers, and names the other`, async (t) => {
    const port = await portOf(t, createHttp2Server());
    const run = await cli(argv, { url: `http://127.0.0.1:${port}` });
    assert.equal(run.exitCode, 4, run.stderr.text);
    assert.match(run.stderr.text, /\nhint: is the server running, and is it the port for people and tools/);
  });
}

test("https to a server without TLS says so", async (t) => {
  const { url, close } = await startFakeServer({});
  t.after(close);
  const run = await cli(["get", JOB_ID], { url: url.replace("http:", "https:") });
  assert.equal(run.exitCode, 4, run.stderr.text);
  assert.match(run.stderr.text, /\nhint: the server speaks no TLS there: give its address as http:/);
});

test("a connection that breaks while something is written to it, or a lost network, may come back", async () => {
  for (const code of ["EPIPE", "EHOSTUNREACH", "ENETUNREACH"]) {
    const cause = Object.assign(new Error(`write ${code}`), { code });
    const failing = call("submit job x", () =>
      Promise.reject(new ConnectError(cause.message, Code.Internal, undefined, undefined, cause)),
    );
    await assert.rejects(failing, { code: "unavailable", message: `submit job x: write ${code}` });
  }
});

test("what a server itself calls a fault of its own stays one", async () => {
  const failing = call("submit job x", () => Promise.reject(new ConnectError("oh", Code.Internal)));
  await assert.rejects(failing, { code: "internal", message: "submit job x: oh" });
});
