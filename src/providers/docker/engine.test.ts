import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { Engine } from "./engine.ts";

/** An engine that answers as it is told to. */
async function setup(t: TestContext, answer: RequestListener): Promise<Engine> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-engine-"));
  const path = join(directory, "engine.sock");
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const engine = open(`unix://${path}`);
  t.after(async () => {
    engine.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true });
  });
  return engine;
}

function open(host: string): Engine {
  return new Engine({ host, tlsDirectory: null, clock: systemClock });
}

/** Its number on every Linux. */
const NOBODY = 65_534;

const ping = { method: "GET", path: "/_ping", what: "ask" } as const;

test("says what is wrong with an engine that is not there", async (t) => {
  const gone = open("unix:///nowhere/docker.sock");
  t.after(() => gone.close());
  await assert.rejects(gone.call(ping), {
    code: "unavailable",
    message:
      "ask: no container engine at unix:///nowhere/docker.sock: its socket is not there; is it installed and running?",
  });
  const closed = open("tcp://127.0.0.1:9");
  t.after(() => closed.close());
  await assert.rejects(closed.call(ping), { code: "unavailable", message: /nobody listens there/ });
});

test("says that its socket may not be used", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hodei-engine-"));
  const path = join(directory, "engine.sock");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  await chmod(path, 0);
  const isRoot = process.geteuid?.() === 0;
  const engine = open(`unix://${path}`);
  t.after(async () => {
    engine.close();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true });
  });
  // Root may use any socket, and nobody may not even enter the directory.
  if (isRoot) process.seteuid?.(NOBODY);
  try {
    await assert.rejects(engine.call(ping), {
      code: "permission_denied",
      message: `ask: no container engine at unix://${path}: no permission to use its socket; root or a member of its group may`,
    });
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

test("gives up on an engine that does not answer", async (t) => {
  const engine = await setup(t, () => {});
  await assert.rejects(engine.call({ ...ping, timeoutMs: 50 }), {
    code: "unavailable",
    message: /^ask: the engine at unix:.* does not answer$/,
  });
});

test("keeps the words of the engine, and knows what can be tried again", async (t) => {
  const engine = await setup(t, (request, response) => {
    const [, status = "", message = ""] = new URL(request.url ?? "", "http://x").pathname.split("/");
    response.writeHead(Number(status));
    response.end(JSON.stringify({ message: decodeURIComponent(message) }));
  });
  const expected: [string, string, string][] = [
    ["404", "No such image: x", "not_found"],
    ["400", "bad parameter", "invalid_argument"],
    ["409", "in use", "already_exists"],
    ["500", "devicemapper is tired", "unavailable"],
    ["500", "OCI runtime create failed: exec format error", "failed_precondition"],
  ];
  for (const [status, message, code] of expected) {
    const path = `/${status}/${encodeURIComponent(message)}`;
    await assert.rejects(engine.call({ ...ping, path }), { code, message: `ask: ${message}` });
  }
});

test("refuses an address that is none, and TLS files that are not there", () => {
  assert.throws(() => open("docker.sock"), { code: "invalid_argument", message: /"docker.sock"/ });
  const tls = { host: "tcp://127.0.0.1:2376", tlsDirectory: "/nowhere", clock: systemClock };
  assert.throws(() => new Engine(tls), { code: "invalid_argument", message: /ca\.pem/ });
});
