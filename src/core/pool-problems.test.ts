import assert from "node:assert/strict";
import { test } from "node:test";
import { hostPathOfMount, mountProblems, poolProblems } from "./pool-problems.ts";
import { dockerWith, poolWith, type DockerTemplate, type PoolDefinition } from "./pool.ts";

function local(changes: Partial<PoolDefinition> = {}): PoolDefinition {
  return poolWith({ name: "small", provider: { type: "process" }, ...changes });
}

function inContainers(
  docker: Partial<DockerTemplate>,
  changes: Partial<PoolDefinition> = {},
): PoolDefinition {
  return local({
    provider: { type: "docker", docker: dockerWith({ image: "debian:13", ...docker }) },
    ...changes,
  });
}

const anything = { cpuMillis: null, memoryBytes: null, diskBytes: null, gpu: null };

const texts = (pool: PoolDefinition): string[] =>
  poolProblems(pool).map(({ path, message }) => `${path}: ${message}`);

test("a pool that can be made has no problem", () => {
  const labels = { zone: "a", "example.org/gpu": "h100" };
  const taints = [{ key: "spot", value: "", effect: "NoSchedule" as const }];
  const sized = { minWorkers: 2, maxWorkers: 2, warmSpares: 2, costPerHour: 0.25, maxLifetimeMs: 1_000 };
  assert.deepEqual(texts(local({ labels, taints, ...sized })), []);
  assert.deepEqual(texts(inContainers({ mounts: ["/srv/cache:/cache:ro", "/a:/b"], host: "tcp://h:1" })), []);
  assert.deepEqual(texts(inContainers({ network: "bridge" }, { serverUrl: "http://10.0.0.1:9090" })), []);
  const resources = { ...anything, diskBytes: 64 * 2 ** 20 };
  assert.deepEqual(texts(inContainers({ limitDisk: true }, { resources })), []);
});

test("all problems are named at once", () => {
  const pool = local({
    name: "Big Pool",
    minWorkers: 3,
    maxWorkers: 2,
    warmSpares: 5,
    ephemeral: true,
    jobsPerWorker: 4,
    labels: { pool: "mine", "-x": "1", zone: "a,b" },
    taints: [{ key: "spot", value: "x:y", effect: "Never" as "NoExecute" }],
    serverUrl: "example.org",
  });
  assert.deepEqual(
    poolProblems(pool).map(({ path }) => path),
    [
      "name",
      "minWorkers",
      "warmSpares",
      "jobsPerWorker",
      "labels.pool",
      "labels.-x",
      "labels.zone",
      "taints[0].value",
      "taints[0].effect",
      "serverUrl",
    ],
  );
  assert.match(texts(pool)[1] ?? "", /^minWorkers: 3 is more than maxWorkers \(2\)$/);
});

for (const [what, pool, problem] of [
  ["a size that is no whole number", local({ maxWorkers: 1.5 }), /maxWorkers: 1.5 is not a whole number/],
  [
    "a worker without room for a job",
    local({ jobsPerWorker: 0 }),
    /jobsPerWorker: 0 is not a whole number from 1/,
  ],
  [
    "an address with a path, which agents would refuse",
    local({ serverUrl: "http://hodei.example:9090/workers" }),
    /serverUrl: "http:\/\/hodei.example:9090\/workers" is not of the form http:/,
  ],
  ["a negative cost", local({ costPerHour: -1 }), /costPerHour/],
  ["a lifetime under a second", local({ maxLifetimeMs: 999 }), /maxLifetimeMs: 999 ms is less than 1000 ms/],
  ["no time to start", local({ startTimeoutMs: 0 }), /startTimeoutMs/],
  [
    "the same taint twice",
    local({
      taints: Array.from({ length: 2 }, () => ({ key: "a", value: "b", effect: "NoExecute" as const })),
    }),
    /taints\[1\]: there is one of a with NoExecute already/,
  ],
  [
    "a mount that is none",
    inContainers({ mounts: ["cache:/cache"] }),
    /docker.mounts\[0\].*is not of the form/,
  ],
  ["a mount that climbs", inContainers({ mounts: ["/srv/../etc:/e"] }), /docker.mounts\[0\]/],
  ["an engine without an address", inContainers({ host: "docker" }), /docker.host.*give unix:/],
  ["an image without a name", inContainers({ image: "" }), /docker.image/],
  ["a limit of no size", inContainers({ limitDisk: true }), /docker.limitDisk: how much .* resources.disk/],
  [
    "a limit that no worker can live with",
    inContainers({ limitDisk: true }, { resources: { ...anything, diskBytes: 2 ** 20 } }),
    /resources.diskBytes: 1048576 bytes are no limit .* at least 64Mi/,
  ],
  [
    "a limit of a root file system that cannot be written",
    inContainers({ limitDisk: true, readOnlyRoot: true }, { resources: { ...anything, diskBytes: 2 ** 30 } }),
    /docker.limitDisk: it cannot go with readOnlyRoot/,
  ],
  [
    "a network without a way out",
    inContainers({ network: "bridge" }),
    /serverUrl: containers in network bridge/,
  ],
] as const) {
  test(`refuses ${what}`, () => {
    assert.equal(poolProblems(pool).length, 1);
    assert.match(texts(pool)[0] ?? "", problem);
  });
}

test("a worker may have no disk and no GPU, but not no CPU and no memory", () => {
  const resources = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpu: 0 };
  const paths = poolProblems(local({ resources })).map(({ path }) => path);
  assert.deepEqual(paths, ["resources.cpuMillis", "resources.memoryBytes"]);
});

test("a mount names a directory of the machine", () => {
  assert.equal(hostPathOfMount("/srv/cache:/cache:ro"), "/srv/cache");
  assert.equal(hostPathOfMount("/srv/cache"), null);
});

test("only mounts below an allowed directory are allowed", () => {
  const allowed = ["/srv/cache/", "/data"];
  const mounts = ["/srv/cache:/a", "/srv/cache/x:/b:ro", "/srv/cached:/c", "/data:/d", "/:/e"];
  const problems = mountProblems(inContainers({ mounts }), allowed);
  assert.deepEqual(
    problems.map(({ path }) => path),
    ["docker.mounts[2]", "docker.mounts[4]"],
  );
  assert.match(problems[0]?.message ?? "", /\/srv\/cached: the server allows only what is in/);
  assert.deepEqual(mountProblems(inContainers({ mounts: ["/x:/y"] }), ["/"]), []);
  assert.match(mountProblems(inContainers({ mounts: ["/x:/y"] }), [])[0]?.message ?? "", /allows no mounts/);
});
