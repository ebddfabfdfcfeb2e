import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom, uuidV4, uuidV7 } from "../../base/random.ts";
import { providerConformance, sampleSpec } from "../provider-conformance.ts";
import type { ProviderEvent } from "../provider.ts";
import { containerName, WORKER_DIRECTORY } from "./container.ts";
import { DockerProvider, type DockerProviderOptions } from "./docker-provider.ts";
import { diskLimitProblem } from "./engine-storage.ts";
import { isConflict, type Engine, type EngineCall } from "./engine.ts";
import { tarArchive } from "./tar-archive.ts";
import {
  makeImage,
  QUOTA_ENGINE_HOST,
  skipWithoutEngine,
  skipWithoutQuotaEngine,
  TEST_ENGINE_HOST,
  testEngine,
} from "./test-engine.ts";

// One file, as a worker has it: parts of it would be missing in the container.
const workerProgram = fileURLToPath(new URL("../../../bundle/worker.js", import.meta.url));

const SETTINGS = {
  tlsDirectory: null,
  pull: "never",
  authFile: null,
  network: "host",
  cpuMillis: null,
  memoryBytes: null,
  pids: null,
  user: null,
  noNewPrivileges: true,
  dropCapabilities: [],
  readOnlyRoot: false,
  diskLimitBytes: null,
  mounts: [],
  workerProgram,
  clock: systemClock,
  log: silentLogger,
} as const;

async function setup(t: TestContext, host = TEST_ENGINE_HOST) {
  const image = await makeImage("shell", host);
  const owner = uuidV7(systemClock, systemRandom);
  const engine = testEngine(host);
  const providers: DockerProvider[] = [];
  const open = (changes: Partial<DockerProviderOptions> = {}): DockerProvider => {
    const provider = new DockerProvider({ ...SETTINGS, image, owner, host, ...changes });
    providers.push(provider);
    return provider;
  };
  t.after(async () => {
    for (const provider of providers) await provider.close();
    const last = open();
    for (const { workerId } of await last.list()) await last.destroy(workerId);
    assert.deepEqual(await last.list(), []);
    await last.close();
    engine.close();
  });
  const kill = async (workerId: string): Promise<void> => {
    const path = `/containers/${containerName(workerId)}/kill`;
    await engine.call({ method: "POST", path, what: "kill a container" });
  };
  return { provider: open(), open, reopen: async () => open(), kill, engine, owner };
}

const DISK_LIMIT_BYTES = 64 * 2 ** 20;

interface ContainerView {
  Args: string[];
  Config: { Env: string[]; User: string };
  HostConfig: { Memory: number; NanoCpus: number; PidsLimit: number; ReadonlyRootfs: boolean };
  State: { Pid: number };
}

const skip = await skipWithoutEngine();

if (skip === false) providerConformance("docker", setup);
else test("provider docker", { skip }, () => {});

test(
  "hands the token over in a file, and shows it to nobody who may look at the container",
  { skip },
  async (t) => {
    const { provider, engine } = await setup(t);
    const spec = sampleSpec();
    await provider.create(spec);
    const text = (await engine.bytes(look(spec.workerId))).toString("utf8");
    assert.ok(!text.includes(spec.token));
    const archive = await engine.bytes({
      method: "GET",
      path: `/containers/${containerName(spec.workerId)}/archive`,
      query: { path: `${WORKER_DIRECTORY}/token` },
      what: "read the token",
    });
    assert.ok(archive.includes(spec.token));
  },
);

test("gives a container its limits, and takes away what the settings say", { skip }, async (t) => {
  const { open, engine } = await setup(t);
  const provider = open({
    cpuMillis: 500,
    memoryBytes: 256 * 2 ** 20,
    pids: 128,
    user: "1000:1000",
    readOnlyRoot: true,
    dropCapabilities: ["ALL"],
    network: "none",
  });
  const spec = sampleSpec();
  await provider.create(spec);
  const view = await engine.call<ContainerView>(look(spec.workerId));
  const { Memory, NanoCpus, PidsLimit, ReadonlyRootfs } = view.HostConfig;
  assert.deepEqual([Memory, NanoCpus, PidsLimit, ReadonlyRootfs], [256 * 2 ** 20, 5e8, 128, true]);
  // The agent has started as that user, and can write where it must.
  const status = await readFile(`/proc/${view.State.Pid}/status`, "utf8").catch(() => null);
  if (status === null) return t.diagnostic("the engine is on another machine");
  assert.match(status, /^Uid:\s+1000\s/m);
  assert.match(status, /^CapEff:\s+0+$/m);
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  await eventually(() => saysRunnerRuns(engine, spec.workerId), { timeoutMs: 20_000 });
});

test(
  "limits all that a container writes, as the user that it is for",
  { skip: await skipWithoutQuotaEngine() },
  async (t) => {
    const { open, engine } = await setup(t, QUOTA_ENGINE_HOST);
    const provider = open({ diskLimitBytes: DISK_LIMIT_BYTES, user: "1000:1000" });
    assert.deepEqual(await provider.healthCheck(), { status: "healthy" });
    const spec = sampleSpec();
    await provider.create(spec);
    const { HostConfig, Mounts } = await engine.call<{
      HostConfig: { StorageOpt: unknown };
      Mounts: { Destination: string; RW: boolean }[];
    }>(look(spec.workerId));
    assert.deepEqual(HostConfig.StorageOpt, { size: String(DISK_LIMIT_BYTES) });
    assert.deepEqual(
      Mounts.map(({ Destination, RW }) => [Destination, RW]),
      [["/hodei", false]],
    );
    await eventually(() => saysRunnerRuns(engine, spec.workerId), { timeoutMs: 20_000 });
    const small = open({ diskLimitBytes: 2 ** 20 });
    await assert.rejects(small.create(sampleSpec()), {
      code: "failed_precondition",
      message: /quota exceeded: its limit is 1Mi, which the image counts against, too; give resources.disk/,
    });
  },
);

test("refuses a limit of the disk for good where the engine cannot hold it", { skip }, async (t) => {
  const { open, engine } = await setup(t);
  const provider = open({ diskLimitBytes: DISK_LIMIT_BYTES });
  const reason = diskLimitProblem(await engine.call({ method: "GET", path: "/info", what: "ask" }));
  if (reason === null) return t.skip("the engine can limit disk");
  assert.deepEqual(await provider.healthCheck(), { status: "degraded", reason });
  const spec = sampleSpec();
  await assert.rejects(provider.create(spec), {
    code: "failed_precondition",
    message: `make worker ${spec.workerId} in a container: ${reason}`,
  });
  // What an engine says of a file system that only seemed to be able to.
  const asked = engine.call({
    method: "POST",
    path: "/containers/create",
    body: { Image: await makeImage("shell"), Cmd: ["true"], HostConfig: { StorageOpt: { size: "100m" } } },
    what: "make a container",
  });
  await assert.rejects(asked, { code: "failed_precondition", message: /--storage-opt is supported only/ });
});

test("refuses a limit for an image that keeps files in a volume", { skip }, async (t) => {
  const { open, engine } = await setup(t);
  const image = `hodei-test-volume:${uuidV4()}`;
  const query = { fromSrc: "-", repo: image, changes: "VOLUME /data" };
  const body = tarArchive([{ type: "directory", name: "data/", mode: 0o755 }]);
  await engine.bytes({ method: "POST", path: "/images/create", query, body, what: "make an image" });
  t.after(() => engine.call({ method: "DELETE", path: `/images/${image}`, what: "remove the image" }));
  await assert.rejects(open({ image, diskLimitBytes: DISK_LIMIT_BYTES }).create(sampleSpec()), {
    code: "failed_precondition",
    message: /its image keeps \/data in volumes, which no limit covers/,
  });
});

test("says why a container is gone: killed, out of memory, or ended by itself", { skip }, async (t) => {
  const { provider, open, kill } = await setup(t);
  const events: ProviderEvent[] = [];
  const small = open({ memoryBytes: 8 * 2 ** 20 });
  provider.onEvent((event) => events.push(event));
  const killed = sampleSpec();
  await provider.create(killed);
  await kill(killed.workerId);
  const starved = sampleSpec();
  await small.create(starved).catch(() => null);
  const refused = sampleSpec();
  await provider.create({ ...refused, environment: { HODEI_SERVER: "no address" } });
  const messageOf = (workerId: string): Promise<string> =>
    eventually(() => events.find((event) => event.workerId === workerId)?.message ?? null, {
      timeoutMs: 20_000,
    });
  assert.equal(await messageOf(killed.workerId), "its container ended with SIGKILL (code 137)");
  assert.match(
    await messageOf(refused.workerId),
    /^its container ended with code 78: .*HODEI_SERVER: "no address" is not the address of a server/s,
  );
  assert.match(await messageOf(starved.workerId), /want of memory/);
});

test("counts a container as gone that a server had made and not started", { skip }, async (t) => {
  const { provider, open, engine } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const { Config, HostConfig } = await engine.call<{ Config: object; HostConfig: object }>(
    look(spec.workerId),
  );
  await provider.destroy(spec.workerId);
  await engine.call({
    method: "POST",
    path: "/containers/create",
    query: { name: containerName(spec.workerId) },
    body: { ...Config, HostConfig },
    what: "make what a killed server leaves",
  });
  const next = open();
  assert.equal(await next.inspect(spec.workerId), "gone");
  assert.equal((await next.list()).length, 1);
  const handle = await next.create(spec);
  assert.equal(await next.inspect(spec.workerId), "running");
  assert.deepEqual(await next.list(), [handle]);
});

test("tells of a container that died while nobody listened", { skip }, async (t) => {
  const { provider, open, kill } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  await provider.close();
  await kill(spec.workerId);
  const next = open();
  const events: ProviderEvent[] = [];
  next.onEvent((event) => events.push(event));
  const [event] = await eventually(() => (events.length > 0 ? events : null));
  assert.equal(event?.workerId, spec.workerId);
});

test("never sees containers of another owner", { skip }, async (t) => {
  const { provider, open } = await setup(t);
  const spec = sampleSpec();
  await provider.create(spec);
  const other = open({ owner: "somebody else" });
  assert.deepEqual(await other.list(), []);
});

test("refuses for good what no further try can help, in the engine's own words", { skip }, async (t) => {
  const { open } = await setup(t);
  const refusals: [Partial<DockerProviderOptions>, string, RegExp][] = [
    [{ image: "hodei-no-such:1" }, "not_found", /hodei-no-such:1: the engine does not have it/],
    [{ image: "UPPER" }, "invalid_argument", /UPPER.*invalid reference format/],
    [{ network: "no-such-network" }, "not_found", /network no-such-network not found/],
    [{ dropCapabilities: ["NONSENSE"] }, "invalid_argument", /NONSENSE/],
    [{ mounts: ["/no/such/directory:relative"] }, "failed_precondition", /mount path must be absolute/],
    [{ user: "nobody-here" }, "failed_precondition", /unable to find user nobody-here/],
    [{ workerProgram: "/nowhere/worker.js" }, "failed_precondition", /nowhere/],
  ];
  for (const [changes, code, message] of refusals) {
    const spec = sampleSpec();
    await assert.rejects(open(changes).create(spec), (error: unknown) => {
      assert.ok(error instanceof AppError);
      assert.match(error.message, message);
      assert.equal(error.code, code, error.message);
      return true;
    });
    assert.equal(await open().inspect(spec.workerId), "gone");
  }
});

test("is degraded without its image where it may not pull", { skip }, async (t) => {
  const { open } = await setup(t);
  assert.deepEqual(await open({ image: "hodei-no-such:1" }).healthCheck(), {
    status: "degraded",
    reason: "image hodei-no-such:1 is not there, and pulling is set to never",
  });
});

test("fills the volume of the program again after somebody has removed it", { skip }, async (t) => {
  const { provider, engine } = await setup(t);
  const events: ProviderEvent[] = [];
  provider.onEvent((event) => events.push(event));
  const first = sampleSpec();
  await provider.create(first);
  const view = await engine.call<{ Mounts: { Name?: string }[] }>(look(first.workerId));
  await provider.destroy(first.workerId);
  const volume = view.Mounts.find(({ Name: name }) => name?.startsWith("hodei-runtime-"))?.Name ?? "";
  try {
    await engine.call({ method: "DELETE", path: `/volumes/${volume}`, what: "remove the volume" });
  } catch (error) {
    if (!isConflict(error)) throw error;
    return t.skip("another test runs on the volume");
  }
  const second = sampleSpec();
  await provider.create(second).catch(() => null);
  await eventually(() => events.some(({ workerId }) => workerId === second.workerId));
  const third = sampleSpec();
  await provider.create(third);
  assert.equal(await provider.inspect(third.workerId), "running");
});

test("refuses an engine on another kind of machine, where the worker's program cannot run", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hodei-engine-"));
  const socket = join(directory, "engine.sock");
  const machine = process.arch === "x64" ? "aarch64" : "x86_64";
  const server = createServer(({ url = "" }, response) => {
    if (url.startsWith("/containers/")) response.writeHead(404);
    response.end(JSON.stringify(url === "/info" ? { OSType: "linux", Architecture: machine } : {}));
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const provider = new DockerProvider({ ...SETTINGS, host: `unix://${socket}`, image: "any", owner: "me" });
  t.after(async () => {
    await provider.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true });
  });
  await assert.rejects(provider.create(sampleSpec()), {
    code: "failed_precondition",
    message: new RegExp(`run linux on ${machine}, and are given the Node.js of this server`),
  });
});

function look(workerId: string): EngineCall {
  return { method: "GET", path: `/containers/${containerName(workerId)}/json`, what: "look at a container" };
}

async function saysRunnerRuns(engine: Engine, workerId: string): Promise<boolean> {
  const path = `/containers/${containerName(workerId)}/top`;
  const { Processes } = await engine.call<{ Processes: string[][] }>({
    method: "GET",
    path,
    what: "list processes",
  });
  return Processes.some((words) => words.join(" ").endsWith("worker.js runner"));
}
