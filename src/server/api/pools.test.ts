import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Code } from "@connectrpc/connect";
import {
  PlacementStrategy,
  PoolChange,
  PoolService,
  ProviderStatus,
} from "../../protocol/gen/hodei/v1/pools_pb.ts";
import { rejectsWith } from "./api-fixtures.ts";
import { startTestApi } from "./test-api.ts";

const process = { case: "process" as const, value: {} };
const docker = (fields: object = {}) => ({
  case: "docker" as const,
  value: { image: "debian:13", ...fields },
});

async function setup(t: TestContext) {
  const api = await startTestApi(t);
  return { ...api, poolService: api.client(PoolService) };
}

test("pools are made, listed with their defaults, and deleted, in every protocol", async (t) => {
  const { client, protocols } = await setup(t);
  for (const protocol of protocols) {
    const pools = client(PoolService, protocol);
    const applied = await pools.applyPools({
      pools: [
        { name: "b", provider: process },
        { name: "a", provider: docker() },
      ],
    });
    assert.deepEqual(
      applied.pools.map(({ name, change }) => [name, change]),
      [
        ["b", PoolChange.CREATED],
        ["a", PoolChange.CREATED],
      ],
    );
    const listed = (await pools.listPools({})).pools;
    assert.deepEqual(
      listed.map(({ definition }) => definition?.name),
      ["a", "b"],
    );
    assert.equal(listed[0]?.definition?.maxWorkers, 4);
    assert.equal(listed[0].definition.ephemeral, true);
    assert.equal(listed[1]?.definition?.ephemeral, false);
    assert.equal(listed[1].definition.strategy, PlacementStrategy.LEAST_LOADED);
    assert.equal(listed[0].retryAt, undefined);
    for (const name of ["a", "b"]) await pools.deletePool({ name });
    assert.deepEqual((await pools.listPools({})).pools, []);
  }
});

test("a dry run says what would be done, and prune what would go", async (t) => {
  const { poolService, pools } = await setup(t);
  await poolService.applyPools({ pools: [{ name: "old", provider: process }] });
  const request = { pools: [{ name: "new", provider: process }], prune: true };
  const { pools: planned } = await poolService.applyPools({ ...request, dryRun: true });
  assert.deepEqual(
    planned.map(({ name, change }) => [name, change]),
    [
      ["new", PoolChange.CREATED],
      ["old", PoolChange.DELETED],
    ],
  );
  assert.deepEqual([...pools.definitions.keys()], ["old"]);
  await poolService.applyPools(request);
  assert.deepEqual([...pools.definitions.keys()], ["new"]);
});

test("every problem of every pool is named at once, by the path of its field", async (t) => {
  const { poolService, pools } = await setup(t);
  const wrong = poolService.applyPools({
    pools: [
      { name: "fine", provider: process },
      {
        name: "a",
        provider: process,
        minWorkers: 5,
        maxWorkers: 2,
        warmSpares: 3,
        ephemeral: true,
        jobsPerWorker: 2,
      },
      { name: "fine", provider: docker({ mounts: ["/x:/y", "nonsense"] }) },
    ],
  });
  await rejectsWith(wrong, Code.InvalidArgument, /pools\[1\]\.min_workers: .*; pools\[1\]\.warm_spares: /);
  await rejectsWith(wrong, Code.InvalidArgument, /pools\[1\]\.jobs_per_worker: /);
  await rejectsWith(wrong, Code.InvalidArgument, /pools\[2\]\.docker\.mounts\[1\]: /);
  await rejectsWith(wrong, Code.InvalidArgument, /pools\[2\]\.name: there is another pool fine/);
  assert.equal(pools.definitions.size, 0);
});

test("what the constraints of a pool forbid is refused", async (t) => {
  const { poolService } = await setup(t);
  const wrong: [object, RegExp][] = [
    [{ name: "no-provider" }, /^pools\[0\]\.provider: /],
    [{ name: "Upper", provider: process }, /^pools\[0\]\.name: /],
    [{ name: "", provider: process }, /^pools\[0\]\.name: /],
    [{ name: "x", provider: docker({ image: "" }) }, /^pools\[0\]\.docker\.image: /],
    [{ name: "x", provider: docker({ pull: "sometimes" }) }, /^pools\[0\]\.docker\.pull: /],
    [{ name: "x", provider: process, maxWorkers: 10_001 }, /^pools\[0\]\.max_workers: /],
    [{ name: "x", provider: process, costPerHour: -1 }, /^pools\[0\]\.cost_per_hour: /],
    [{ name: "x", provider: process, costPerHour: Infinity }, /^pools\[0\]\.cost_per_hour: /],
    [{ name: "x", provider: process, strategy: 9 }, /^pools\[0\]\.strategy: /],
    [{ name: "x", provider: process, startTimeout: { seconds: 0n } }, /^pools\[0\]\.start_timeout: /],
    [
      { name: "x", provider: process, taints: [{ key: "k", effect: "Never" }] },
      /^pools\[0\]\.taints\[0\]\.effect: /,
    ],
    [{ name: "x", provider: process, labels: { "-": "v" } }, /^pools\[0\]\.labels/],
  ];
  for (const [pool, message] of wrong) {
    await rejectsWith(poolService.applyPools({ pools: [pool] }), Code.InvalidArgument, message);
  }
  await rejectsWith(poolService.deletePool({ name: "No" }), Code.InvalidArgument, /^name: /);
  await rejectsWith(poolService.deletePool({ name: "no" }), Code.NotFound, /pool no/);
});

test("a pool shows its trouble, and a provider how it is", async (t) => {
  const { poolService, pools } = await setup(t);
  await poolService.applyPools({ pools: [{ name: "p", provider: process }] });
  pools.views = {
    workers: 3,
    arriving: 1,
    busy: 2,
    problem: "no engine",
    retryAtMs: 5_000,
    startTimeMs: 1_234.5,
  };
  const [pool] = (await poolService.listPools({})).pools;
  assert.deepEqual([pool?.workers, pool?.arrivingWorkers, pool?.busyWorkers], [3, 1, 2]);
  assert.deepEqual([pool?.problem, pool?.retryAt?.seconds], ["no engine", 5n]);
  assert.equal(pool?.startTime?.seconds, 1n);
  const provider = { reason: "", checkedAtMs: null, pools: ["p"], orphansDestroyed: 4, orphans: 1 };
  pools.providerViews = [
    { ...provider, name: "process", status: "healthy" },
    { ...provider, name: "docker", status: "unhealthy", reason: "no socket", checkedAtMs: 7_000 },
  ];
  const listed = (await poolService.listProviders({})).providers;
  assert.deepEqual(
    listed.map(({ name, status, reason }) => [name, status, reason]),
    [
      ["docker", ProviderStatus.UNHEALTHY, "no socket"],
      ["process", ProviderStatus.HEALTHY, ""],
    ],
  );
  assert.deepEqual([listed[0]?.orphansDestroyed, listed[0]?.orphans], [4n, 1]);
  const { providers } = await poolService.checkProviders({ name: "docker" });
  assert.equal(providers.length, 1);
  await rejectsWith(poolService.checkProviders({ name: "moon" }), Code.NotFound, /provider moon/);
});
