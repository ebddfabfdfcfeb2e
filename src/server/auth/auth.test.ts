import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import { loadOrCreateApiToken } from "./api-token.ts";
import { bearerToken, createTokenGuard } from "./rpc-guard.ts";

async function setup(t: TestContext): Promise<{ directory: string; file: string }> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-auth-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return { directory, file: join(directory, "data", "api-token") };
}

test("a token is made once, readable by its owner only, and found again", async (t) => {
  const { directory, file } = await setup(t);
  const token = await loadOrCreateApiToken(file);
  assert.match(token, /^[A-Za-z0-9_-]{43}$/);
  assert.equal(await loadOrCreateApiToken(file), token);
  assert.equal(await readFile(file, "utf8"), `${token}\n`);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(directory, "data")), ["api-token"]);
});

test("servers that start at once agree on one token", async (t) => {
  const { directory, file } = await setup(t);
  const tokens = await Promise.all(Array.from({ length: 20 }, () => loadOrCreateApiToken(file)));
  assert.equal(new Set(tokens).size, 1);
  assert.deepEqual(await readdir(join(directory, "data")), ["api-token"]);
});

test("a token file that others can read is closed to them", async (t) => {
  const { file } = await setup(t);
  const token = await loadOrCreateApiToken(file);
  await chmod(file, 0o644);
  assert.equal(await loadOrCreateApiToken(file), token);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
});

test("a file that holds something else is refused, and its content is not repeated", async (t) => {
  const { file } = await setup(t);
  await loadOrCreateApiToken(file);
  for (const content of ["", "my secret password\n"]) {
    await writeFile(file, content);
    await assert.rejects(loadOrCreateApiToken(file), (error) => {
      assert.ok(error instanceof AppError);
      assert.ok(error.message.includes(file));
      assert.doesNotMatch(error.message, /password/);
      return true;
    });
  }
});

test("a path that cannot be a file is refused with the path", async (t) => {
  const { directory } = await setup(t);
  await assert.rejects(
    loadOrCreateApiToken(directory),
    (error) => error instanceof AppError && error.message.includes(directory),
  );
});

test("the token is taken from a bearer header and nothing else", () => {
  assert.equal(bearerToken("Bearer abc"), "abc");
  assert.equal(bearerToken("bearer   abc "), "abc");
  for (const header of [
    undefined,
    "",
    "abc",
    "Bearer",
    "Bearer ",
    "Basic abc",
    "Bearer a b",
    "xBearer abc",
  ]) {
    assert.equal(bearerToken(header), null, String(header));
  }
});

test("only the right token passes, and no refusal repeats the wrong one", () => {
  const guard = createTokenGuard({ token: "right" });
  const path = "/hodei.v1.JobService/QueueJob";
  assert.equal(guard({ path, authorization: "Bearer right" }), null);
  for (const authorization of [
    undefined,
    "",
    "Bearer wrong",
    "Bearer righ",
    "Bearer right2",
    "Basic right",
  ]) {
    const refusal = guard({ path, authorization });
    assert.equal(refusal?.code, "unauthenticated", String(authorization));
    assert.doesNotMatch(refusal.message, /wrong|righ\b/);
  }
});

test("only the exact paths of workers and health probes need no token", () => {
  const guard = createTokenGuard({ token: "right" });
  const open = (path: string): boolean => guard({ path, authorization: undefined }) === null;
  for (const path of [
    "/hodei.v1.WorkerService/Register",
    "/hodei.v1.WorkerService/WorkerStream",
    "/hodei.v1.WorkerService/Unregister",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
  ]) {
    assert.equal(open(path), true, path);
  }
  for (const path of [
    "/hodei.v1.WorkerService/ListWorkers",
    "/hodei.v1.WorkerService/Register/",
    "/hodei.v1.workerservice/Register",
    "//hodei.v1.WorkerService/Register",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/",
    "",
  ]) {
    assert.equal(open(path), false, path);
  }
});
