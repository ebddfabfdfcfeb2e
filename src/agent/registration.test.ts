import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Code } from "@connectrpc/connect";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { sampleWorker } from "../core/session-fixtures.ts";
import { FakeServer, refuse } from "./fake-server.ts";
import { forgetSession, openSession, type RegistrationOptions } from "./registration.ts";
import { dial } from "./server-link.ts";

const worker = { ...sampleWorker, workerId: "01890a5d-ac96-774b-bcce-b302099a8057" };

async function setup(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-registration-"));
  const server = await FakeServer.start();
  const dialled = dial(server.url);
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, "one-time\n");
  t.after(async () => {
    dialled.close();
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  });
  const options: RegistrationOptions = {
    directory,
    server: dialled,
    serverUrl: server.url,
    worker,
    token: null,
    tokenFile,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  };
  return { directory, server, tokenFile, options };
}

const never = new AbortController().signal;

test("trades the token for a session, keeps it for the next agent, and removes the token", async (t) => {
  const { directory, server, tokenFile, options } = await setup(t);
  const session = await openSession(options, never);
  assert.deepEqual(session, { workerId: worker.workerId, sessionToken: "session-1" });
  assert.equal(server.registrations[0]?.token, "one-time");
  await assert.rejects(stat(tokenFile), /ENOENT/);
  assert.equal((await stat(join(directory, "session.json"))).mode & 0o777, 0o600);

  assert.deepEqual(await openSession(options, never), session);
  assert.equal(server.registrations.length, 1);
});

test("tries again with the same key while the server cannot answer", async (t) => {
  const { server, options } = await setup(t);
  server.onRegister = refuse(Code.Unavailable, "starting");
  const opening = openSession(options, never);
  await eventually(() => server.registrations.length >= 2);
  server.onRegister = () => {};
  await opening;
  assert.equal(new Set(server.registrations.map(({ registrationKey }) => registrationKey)).size, 1);
});

test("asks again with the same key when it was killed before it had the session", async (t) => {
  const { directory, server, options } = await setup(t);
  // The answer cannot become a session; then the agent ends.
  await mkdir(join(directory, "session.json.new"));
  const killed = new AbortController();
  const opening = assert.rejects(openSession(options, killed.signal));
  await eventually(() => server.registrations.length >= 1);
  killed.abort();
  await opening;
  await rmdir(join(directory, "session.json.new"));
  await openSession(options, never);
  const keys = server.registrations.map(({ registrationKey }) => registrationKey);
  assert.ok(keys.length >= 2);
  assert.equal(new Set(keys).size, 1);
  await forgetSession(directory);
  await openSession({ ...options, token: "second" }, never);
  assert.notEqual(server.registrations.at(-1)?.registrationKey, keys[0]);
});

test("gives up at once when the token is refused, and says why", async (t) => {
  const { server, options, directory } = await setup(t);
  server.onRegister = refuse(Code.Unauthenticated, "the one-time token was used already");
  await assert.rejects(openSession(options, never), { code: "unauthenticated", message: /was used already/ });
  assert.equal(server.registrations.length, 1);
  await assert.rejects(readFile(join(directory, "session.json")), /ENOENT/);
});

test("tells a person whose token is refused how to get a new one, and a provider's worker not", async (t) => {
  const { server, options } = await setup(t);
  server.onRegister = refuse(Code.Unauthenticated, "register worker: the one-time token is too old");
  await assert.rejects(openSession({ ...options, worker: { ...worker, workerId: "" } }, never), {
    code: "unauthenticated",
    message: `register worker at ${server.url}: the one-time token is too old; \`hodei workers token\` makes a new one`,
  });
  await assert.rejects(openSession(options, never), {
    message: `register worker at ${server.url}: the one-time token is too old`,
  });
  await assert.rejects(openSession({ ...options, tokenFile: null }, never), {
    message: /give a one-time token with --token-file .*`hodei workers token`/,
  });
});

test("stops trying when it is told to", async (t) => {
  const { server, options } = await setup(t);
  server.onRegister = refuse(Code.Unavailable, "starting");
  const stopping = new AbortController();
  const opening = assert.rejects(openSession(options, stopping.signal));
  await eventually(() => server.registrations.length >= 1);
  stopping.abort();
  await opening;
});

test("counts a token file that cannot be removed for nothing", async (t) => {
  const { directory, options } = await setup(t);
  // Something that rm refuses also as root: a directory in the place of the file.
  const session = await openSession({ ...options, token: "given", tokenFile: directory }, never);
  assert.equal(session.sessionToken, "session-1");
});

test("registers anew once the session was forgotten", async (t) => {
  const { server, options, directory } = await setup(t);
  await openSession(options, never);
  await forgetSession(directory);
  await openSession({ ...options, token: "second" }, never);
  assert.deepEqual(
    server.registrations.map(({ token }) => token),
    ["one-time", "second"],
  );
});
