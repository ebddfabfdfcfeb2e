import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer as createPlainServer, type Server } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { promisify } from "node:util";
import { systemClock } from "../../base/clock.ts";
import { Engine } from "./engine.ts";

const run = promisify(execFile);
const ping = { method: "GET", path: "/_ping", what: "ask" } as const;

async function skipWithoutOpenssl(): Promise<string | false> {
  const found = await run("openssl", ["version"]).catch(() => null);
  return found ? false : "needs openssl, to make certificates";
}

/** A directory with certificates of two authorities that know nothing of each other. */
async function setup(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), "hodei-tls-"));
  t.after(() => rm(root, { recursive: true }));
  const authority = async (name: string): Promise<string> => {
    const directory = join(root, name);
    await mkdir(directory);
    const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    await run("openssl", ["req", "-x509", ...kind, "-keyout", key, "-out", cert, ...subject]);
    await copyFile(cert, join(directory, "ca.pem"));
    return directory;
  };
  const listen = async (server: Server): Promise<string> => {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
    return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const open = (host: string, tlsDirectory: string | null): Engine => {
    const engine = new Engine({ host, tlsDirectory, clock: systemClock });
    t.after(() => engine.close());
    return engine;
  };
  return { authority, listen, open };
}

const skip = await skipWithoutOpenssl();

test(
  "speaks TLS with an engine of the same authority, and says that it does not know another one",
  { skip },
  async (t) => {
    const { authority, listen, open } = await setup(t);
    const [ours, others] = [await authority("ours"), await authority("others")];
    const [key, cert] = [await readFile(join(ours, "key.pem")), await readFile(join(ours, "cert.pem"))];
    const host = await listen(createServer({ key, cert }, (_, response) => response.end("OK")));
    assert.equal(String(await open(host, ours).bytes(ping)), "OK");
    await assert.rejects(open(host, others).bytes(ping), {
      code: "unavailable",
      message: /its certificate is not of the authority in ca\.pem/,
    });
  },
);

test("says that an engine speaks no TLS", { skip }, async (t) => {
  const { authority, listen, open } = await setup(t);
  const host = await listen(createPlainServer((_, response) => response.end("OK")));
  await assert.rejects(open(host, await authority("ours")).bytes(ping), {
    code: "unavailable",
    message: /it does not speak TLS there/,
  });
});

test("says that an engine wants TLS", async (t) => {
  const { listen, open } = await setup(t);
  // As an engine answers whoever speaks plain HTTP to its TLS port.
  const server = createPlainServer((_, response) => {
    response.writeHead(400);
    response.end("Client sent an HTTP request to an HTTPS server.\n");
  });
  await assert.rejects(open(await listen(server), null).bytes(ping), {
    code: "failed_precondition",
    message: /the engine wants TLS; give the directory/,
  });
});
