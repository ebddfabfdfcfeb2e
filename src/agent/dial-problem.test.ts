/** Real ports of the wrong kind, as an address with a mistake in it reaches them. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import * as http from "node:http";
import * as http2 from "node:http2";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger, type Logger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import { dialProblem } from "./dial-problem.ts";
import { openSession } from "./registration.ts";
import { dial } from "./server-link.ts";

const skip =
  spawnSync("openssl", ["version"]).status === 0 ? false : "there is no openssl to make a certificate";

async function listen(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return (server.address() as AddressInfo).port;
}

/** Tries to register there; what was logged on the way, and how it ended. */
async function register(t: TestContext, serverUrl: string) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-dial-"));
  const server = dial(serverUrl);
  const stopping = new AbortController();
  const warned: { err: string; server: string; hint: string }[] = [];
  const warn = (fields: (typeof warned)[number]): void => void warned.push(fields);
  const log = { ...silentLogger, warn } as unknown as Logger;
  const registration = { directory, server, serverUrl, worker: { ...sampleWorker, workerId: "" }, log };
  const rest = { token: "one-time", tokenFile: null, clock: systemClock, random: systemRandom };
  const ended = openSession({ ...registration, ...rest }, stopping.signal).then(
    () => "registered",
    (error: unknown) => (error as Error).message,
  );
  t.after(async () => {
    stopping.abort();
    await ended;
    server.close();
    await rm(directory, { recursive: true, force: true });
  });
  return { warned, ended };
}

async function certificate(t: TestContext): Promise<{ key: string; cert: string }> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-dial-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      ...curve,
      "-nodes",
      "-keyout",
      key,
      "-out",
      cert,
      "-days",
      "1",
      "-subj",
      "/CN=localhost",
    ],
    { stdio: "ignore" },
  );
  return { key: await readFile(key, "utf8"), cert: await readFile(cert, "utf8") };
}

test("a port where nobody listens is tried again, with the word to look for the server", async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  const { warned } = await register(t, `http://127.0.0.1:${port}`);
  await eventually(() => warned.length >= 2);
  assert.match(warned[0]?.err ?? "", /ECONNREFUSED/);
  assert.equal(warned[0]?.server, `http://127.0.0.1:${port}`);
  assert.match(warned[0]?.hint ?? "", /is the server running/);
});

test("an address without a port is said to be one while nobody answers there", () => {
  const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  const error = new ConnectError("connect", Code.Unavailable, undefined, undefined, refused);
  assert.match(dialProblem(error, "http://h").hint, /no port, so 80 was dialled/);
  assert.match(dialProblem(error, "https://h").hint, /no port, so 443 was dialled/);
  assert.doesNotMatch(dialProblem(error, "http://h:9090").hint, /port/);
});

test("the port for people is told from the one for workers, and does not end the process", async (t) => {
  const port = await listen(
    t,
    http.createServer((_request, response) => response.end()),
  );
  const { warned } = await register(t, `http://127.0.0.1:${port}`);
  await eventually(() => warned.length >= 3);
  for (const { hint } of warned) assert.match(hint, /port for workers, 9090/);
});

test("https to a server without TLS is refused with the address to give", async (t) => {
  const port = await listen(t, http2.createServer());
  const { warned, ended } = await register(t, `https://127.0.0.1:${port}`);
  assert.match(await ended, /^register worker at https:.*speaks no TLS there: give --server as http:/s);
  assert.deepEqual(warned, []);
});

test("a certificate of an unknown CA is refused with the variable that names the CA", { skip }, async (t) => {
  const server = http2.createSecureServer(await certificate(t));
  server.on("sessionError", () => {});
  const port = await listen(t, server);
  const { ended } = await register(t, `https://localhost:${port}`);
  assert.match(await ended, /self-signed certificate; .*NODE_EXTRA_CA_CERTS/);
});

test("http to a server with TLS is tried again, with the word that it may be TLS", { skip }, async (t) => {
  const server = http2.createSecureServer(await certificate(t));
  server.on("sessionError", () => {});
  server.on("tlsClientError", () => {});
  const port = await listen(t, server);
  const { warned } = await register(t, `http://127.0.0.1:${port}`);
  await eventually(() => warned.length >= 2);
  assert.match(warned[0]?.hint ?? "", /give --server as https:/);
});
