import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom } from "../../base/random.ts";
import { providerName } from "../../core/pool-change.ts";
import { dockerWith, type DockerTemplate, type PoolDefinition } from "../../core/pool.ts";
import { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { openPoolRegistry, type PoolRegistry } from "./pool-registry.ts";
import { sampleDefinitionOf, TEST_MACHINE } from "./pools-fixtures.ts";

function inContainers(name: string, docker: Partial<DockerTemplate> = {}): PoolDefinition {
  return sampleDefinitionOf({
    name,
    provider: { type: "docker", docker: dockerWith({ image: "debian:13", ...docker }) },
  });
}

const small = (changes: Partial<PoolDefinition> = {}): PoolDefinition =>
  sampleDefinitionOf({ name: "small", ...changes });

async function setup() {
  const clock = new ManualClock();
  const store = createMemoryStore({ random: systemRandom });
  const opened: FakeProvider[] = [];
  const closed: FakeProvider[] = [];
  const broken = new Set<string>();
  const makeProvider = async ({ provider }: PoolDefinition): Promise<FakeProvider> => {
    if (provider.type === "docker" && broken.has(provider.docker.image)) {
      throw new AppError("invalid_argument", "its TLS files are not there");
    }
    const made = new FakeProvider();
    const close = made.close.bind(made);
    made.close = async () => {
      closed.push(made);
      await close();
    };
    opened.push(made);
    return made;
  };
  const open = (): Promise<PoolRegistry> =>
    openPoolRegistry({
      store,
      settingsPools: [sampleDefinitionOf()],
      makeProvider,
      nameProvider: (provider) => providerName(provider, { dockerHost: "unix:///d" }),
      machine: TEST_MACHINE,
      allowedMounts: ["/srv"],
      clock,
      log: silentLogger,
    });
  const registry = await open();
  const workers = new Map<string, number>();
  const apply = (definitions: PoolDefinition[], options: { prune?: boolean; dryRun?: boolean } = {}) =>
    registry.apply(definitions, {
      prune: false,
      dryRun: false,
      ...options,
      workerCount: (pool) => workers.get(pool) ?? 0,
    });
  const names = (): string[] => registry.all().map(({ name }) => name);
  return { clock, store, opened, closed, broken, open, registry, workers, apply, names };
}

test("says of each pool what became of it, and keeps them over a restart", async () => {
  const { apply, names, open, registry } = await setup();
  assert.deepEqual(await apply([small(), inContainers("box")]), [
    { name: "small", change: "created" },
    { name: "box", change: "created" },
  ]);
  assert.deepEqual(names(), ["local", "box", "small"]);
  assert.deepEqual(await apply([small({ maxWorkers: 9 }), inContainers("box")]), [
    { name: "small", change: "updated" },
    { name: "box", change: "unchanged" },
  ]);
  assert.equal(registry.get("small")?.definition.maxWorkers, 9);
  const next = await open();
  assert.deepEqual(
    next.all().map(({ definition }) => definition),
    registry.all().map(({ definition }) => definition),
  );
});

test("a pool that an earlier version stored is unchanged by a file that says nothing new", async () => {
  const { store, open } = await setup();
  const box = inContainers("box");
  const { limitDisk: _unknown, ...docker } = dockerWith({ image: "debian:13" });
  await store.putPools([{ ...box, provider: { type: "docker", docker: docker as DockerTemplate } }], 0);
  const options = { prune: false, dryRun: false, workerCount: () => 1 };
  const registry = await open();
  assert.deepEqual(await registry.apply([box], options), [{ name: "box", change: "unchanged" }]);
});

test("a dry run changes nothing", async () => {
  const { apply, names, store } = await setup();
  assert.deepEqual(await apply([small()], { dryRun: true }), [{ name: "small", change: "created" }]);
  assert.deepEqual(names(), ["local"]);
  assert.deepEqual(await store.listPools(), []);
});

test("pruning deletes every other pool that was applied, and none of the settings", async () => {
  const { apply, registry, open } = await setup();
  await apply([small(), inContainers("box")]);
  assert.deepEqual(await apply([small()], { prune: true }), [
    { name: "small", change: "unchanged" },
    { name: "box", change: "deleted" },
  ]);
  assert.equal(registry.get("box")?.isDeleting, true);
  assert.equal(registry.get("local")?.isDeleting, false);
  assert.equal((await open()).get("box")?.isDeleting, true);
  assert.deepEqual(await apply([inContainers("box")]), [{ name: "box", change: "updated" }]);
  assert.equal(registry.get("box")?.isDeleting, false);
});

test("a deleted pool is forgotten when it is told so, and one that is wanted again is not", async () => {
  const { apply, registry, names, store } = await setup();
  await apply([small()]);
  await registry.forget("small");
  assert.deepEqual(names(), ["local", "small"]);
  await registry.delete("small");
  await registry.forget("small");
  assert.deepEqual(names(), ["local"]);
  assert.deepEqual(await store.listPools(), []);
  await assert.rejects(registry.delete("small"), { code: "not_found" });
});

test("pools of the settings are not changed", async () => {
  const { apply, registry, names } = await setup();
  const refused = { code: "failed_precondition", message: /belongs to the settings/ };
  await assert.rejects(apply([small(), sampleDefinitionOf({ maxWorkers: 9 })]), refused);
  await assert.rejects(registry.delete("local"), refused);
  assert.deepEqual(names(), ["local"]);
});

test("refuses all pools of a request for what is wrong with one, and says all that is wrong", async () => {
  const { apply, names } = await setup();
  const wrong = small({ minWorkers: 5, warmSpares: 9 });
  const mounts = inContainers("box", { mounts: ["/etc:/etc", "/srv/x:/x:ro"] });
  await assert.rejects(apply([inContainers("good"), wrong, mounts, wrong]), (error: AppError) => {
    assert.equal(error.code, "invalid_argument");
    assert.match(error.message, /pool small: minWorkers: 5 is more than maxWorkers \(3\)/);
    assert.match(error.message, /pool small: warmSpares/);
    assert.match(
      error.message,
      /pool box: docker.mounts\[0\]: \/etc: the server allows only what is in \/srv/,
    );
    assert.match(error.message, /pool small: name: another pool of the request has it too/);
    return true;
  });
  assert.deepEqual(names(), ["local"]);
});

test("refuses a provider that cannot be opened before anything is changed", async () => {
  const { apply, broken, names, store } = await setup();
  broken.add("nothing:1");
  await assert.rejects(apply([small(), inContainers("box", { image: "nothing:1" })]), /TLS files/);
  assert.deepEqual(names(), ["local"]);
  assert.deepEqual(await store.listPools(), []);
});

test("a pool moves to another place only when it has no workers", async () => {
  const { apply, workers, registry } = await setup();
  await apply([inContainers("box")]);
  workers.set("box", 2);
  const moved = inContainers("box", { host: "tcp://other:2375" });
  await assert.rejects(apply([moved]), {
    code: "failed_precondition",
    message: /has workers at docker unix/,
  });
  await apply([inContainers("box", { image: "debian:14" })]);
  workers.delete("box");
  await apply([moved]);
  assert.equal(registry.get("box")?.providerName, "docker tcp://other:2375");
});

test("pools share a provider, which is closed when none of them nor a worker needs it", async () => {
  const { apply, opened, closed, registry } = await setup();
  await apply([inContainers("a"), inContainers("b"), inContainers("c", { image: "debian:14" })]);
  assert.equal(opened.length, 3);
  assert.equal(registry.get("a")?.provider, registry.get("b")?.provider);
  const old = registry.get("c")?.provider as FakeProvider;
  await apply([inContainers("c", { image: "debian:15" })]);
  await registry.closeUnused(new Set([old]));
  assert.deepEqual(closed, []);
  await registry.closeUnused(new Set());
  assert.deepEqual(closed, [old]);
  await registry.stop();
  assert.equal(new Set(closed).size, opened.length);
});

test("only a change that concerns the workers makes those of an earlier server outdated", async () => {
  const { apply, registry, clock } = await setup();
  await apply([small()]);
  const madeAtMs = clock.nowMs();
  clock.advance(1_000);
  await apply([small({ maxWorkers: 9 })]);
  assert.equal(registry.get("small")?.updatedAtMs, madeAtMs);
  await apply([small({ labels: { zone: "b" } })]);
  assert.equal(registry.get("small")?.updatedAtMs, clock.nowMs());
});

test("a stored pool whose provider cannot be opened stays, says why, and works as soon as it can", async () => {
  const { apply, broken, open, opened, closed } = await setup();
  await apply([inContainers("box"), inContainers("crate")]);
  broken.add("debian:13");
  const registry = await open();
  const box = registry.get("box");
  assert.ok(box);
  assert.equal(box.provider, registry.get("crate")?.provider);
  assert.deepEqual(await box.provider.healthCheck(), {
    status: "unhealthy",
    reason: "its TLS files are not there",
  });
  await assert.rejects(box.provider.list(), { code: "unavailable", message: /TLS files/ });
  const options = { prune: false, dryRun: false, workerCount: () => 0 };
  const wanted = registry.apply([inContainers("third")], options);
  await assert.rejects(wanted, { code: "invalid_argument", message: /TLS files/ });
  broken.clear();
  assert.deepEqual(await box.provider.healthCheck(), { status: "healthy" });
  await registry.apply([inContainers("third")], options);
  assert.equal(registry.get("third")?.provider, box.provider);
  await registry.stop();
  assert.ok(closed.includes(opened.at(-1) ?? assert.fail()));
});

test("workers of a pool have its labels and taints, and share the machine where it does not say", async () => {
  const { apply, registry } = await setup();
  const taints = [{ key: "spot", value: "", effect: "NoSchedule" as const }];
  const nothing = { cpuMillis: null, memoryBytes: null, diskBytes: null, gpu: null };
  await apply([small({ maxWorkers: 4, labels: { zone: "a" }, taints, resources: nothing })]);
  const pool = registry.get("small");
  assert.deepEqual(pool?.labels, {
    hostname: "here",
    zone: "a",
    pool: "small",
    provider: "fake",
    os: "linux",
    arch: "x64",
  });
  assert.deepEqual(pool?.taints, taints);
  assert.deepEqual(pool?.capacity, {
    cpuMillis: 2_000,
    memoryBytes: 2 ** 32,
    diskBytes: Number.MAX_SAFE_INTEGER,
    gpu: 0,
    jobs: 1,
  });
});
