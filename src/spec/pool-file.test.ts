import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TAINT_EFFECTS } from "../core/labels.ts";
import { PLACEMENT_STRATEGIES, poolWith, type PoolDefinition } from "../core/pool.ts";
import { formatPool, parsePoolFile } from "./pool-file.ts";
import { formatProblem } from "./problem.ts";

function pools(text: string): PoolDefinition[] {
  const result = parsePoolFile(text);
  assert.ok(
    result.ok,
    result.ok ? "" : result.problems.map((problem) => formatProblem(problem, "p")).join("\n"),
  );
  return result.pools;
}

function complaint(text: string): string {
  const result = parsePoolFile(text);
  assert.ok(!result.ok, "the file was accepted");
  return result.problems.map((problem) => formatProblem(problem, "p.yaml")).join("\n");
}

test("a pool needs a name and a provider, and the rest is as usual", () => {
  const [pool] = pools("name: small\nprocess: {}\n");
  assert.deepEqual(pool, poolWith({ name: "small", provider: { type: "process" } }));
  assert.equal(pools("name: small\nprocess:\n")[0]?.provider.type, "process");
});

test("every key of the format reaches the pool", () => {
  const [pool] = pools(`
pools:
  - name: big
    docker:
      image: debian:12
      host: tcp://10.0.0.1:2376
      tlsDirectory: /etc/tls
      pull: always
      authFile: /etc/docker.json
      network: bridge
      pids: 100
      user: 1000
      allowNewPrivileges: true
      dropCapabilities: [ALL]
      limitDisk: true
      mounts: ["/cache:/cache:ro"]
    labels: { zone: a, release: 1.10 }
    taints: [gpu=a100:NoSchedule, { key: team, effect: NoExecute }]
    resources: { cpu: 500m, memory: 2Gi, disk: 10G, gpu: 1 }
    jobsPerWorker: 3
    minWorkers: 1
    maxWorkers: 8
    warmSpares: 2
    ephemeral: false
    idleTimeout: 5m
    maxLifetime: 1d
    startTimeout: 90
    strategy: best_fit
    costPerHour: 0.25
    serverUrl: https://hodei.example:9090
`);
  assert.deepEqual(pool, {
    name: "big",
    provider: {
      type: "docker",
      docker: {
        image: "debian:12",
        host: "tcp://10.0.0.1:2376",
        tlsDirectory: "/etc/tls",
        pull: "always",
        authFile: "/etc/docker.json",
        network: "bridge",
        pids: 100,
        user: "1000",
        noNewPrivileges: false,
        dropCapabilities: ["ALL"],
        readOnlyRoot: false,
        limitDisk: true,
        mounts: ["/cache:/cache:ro"],
      },
    },
    labels: { zone: "a", release: "1.10" },
    taints: [
      { key: "gpu", value: "a100", effect: "NoSchedule" },
      { key: "team", value: "", effect: "NoExecute" },
    ],
    resources: { cpuMillis: 500, memoryBytes: 2 * 2 ** 30, diskBytes: 10e9, gpu: 1 },
    jobsPerWorker: 3,
    minWorkers: 1,
    maxWorkers: 8,
    warmSpares: 2,
    ephemeral: false,
    idleTimeoutMs: 300_000,
    maxLifetimeMs: 86_400_000,
    startTimeoutMs: 90_000,
    strategy: "best_fit",
    costPerHour: 0.25,
    serverUrl: "https://hodei.example:9090",
  });
});

test("several documents, a list and JSON are pool files too", () => {
  const names = (text: string): string[] => pools(text).map((pool) => pool.name);
  assert.deepEqual(names("name: a\nprocess: {}\n---\nname: b\ndocker: { image: x }\n"), ["a", "b"]);
  assert.deepEqual(names("- { name: a, process: {} }\n- { name: b, process: {} }\n"), ["a", "b"]);
  assert.deepEqual(names('{"pools": [{"name": "a", "process": {}}]}'), ["a"]);
});

test("every problem of every pool is told with its line, and what to do", () => {
  const text = complaint(`pools:
  - name: Big
    process: {}
    maxWorkers: -1
  - name: both
    process: {}
    docker: { image: "a b", imgae: x }
  - name: none
    labels: { zone: a }
  - name: rules
    process: {}
    minWorkers: 5
    warmSpares: 6
    jobsPerWorker: 2
    ephemeral: true
    labels: { pool: x }
    resources: { cpu: 1 }
  - name: mounts
    docker: { image: x, network: bridge, mounts: ["a:/b"], readOnlyRoot: true, limitDisk: true }
    resources: { disk: 1Ki }
    serverUrl: ftp://x
  - name: rules
    process: {}
    taints: [gpu]
`);
  for (const expected of [
    /^p\.yaml:2:11: pools\[0\]\.name: must be lower case letters/m,
    /^p\.yaml:4:17: pools\[0\]\.maxWorkers: must be a whole number from 0 to 10000/m,
    /^p\.yaml:7:\d+: pools\[1\]\.docker\.image: must have no spaces/m,
    /^p\.yaml:7:\d+: pools\[1\]\.docker\.imgae: unknown key `imgae`; did you mean `image`\?/m,
    /^p\.yaml:6:14: pools\[1\]\.process: docker and process are given, but a pool has only one/m,
    /^p\.yaml:8:5: pools\[2\]: nothing makes its workers: a pool needs docker or process/m,
    /^p\.yaml:12:17: pools\[3\]\.minWorkers: 5 is more than maxWorkers \(4\)/m,
    /^p\.yaml:13:17: pools\[3\]\.warmSpares: 6 is more than maxWorkers \(4\)/m,
    /^p\.yaml:14:20: pools\[3\]\.jobsPerWorker: 2: an ephemeral worker takes one job/m,
    /^p\.yaml:16:21: pools\[3\]\.labels\.pool: the server sets pool itself/m,
    /^p\.yaml:19:\d+: pools\[4\]\.docker\.mounts\[0\]: "a:\/b" is not of the form/m,
    /^p\.yaml:19:\d+: pools\[4\]\.docker\.limitDisk: it cannot go with readOnlyRoot/m,
    /^p\.yaml:20:\d+: pools\[4\]\.resources\.disk: 1024 bytes are no limit/m,
    /^p\.yaml:21:16: pools\[4\]\.serverUrl: "ftp:\/\/x" is not of the form http:/m,
    /^p\.yaml:24:14: pools\[5\]\.taints\[0\]: "gpu" has no effect: write gpu:NoSchedule/m,
  ]) {
    assert.match(text, expected);
  }
  assert.match(
    complaint("- { name: a, process: {} }\n- { name: a, process: {} }\n"),
    /^p\.yaml:2:11: \[1\]\.name: there are two pools a; rename one of them/,
  );
});

test("a worker without CPU or memory is refused, for its agent would never start", () => {
  const text = complaint("name: a\nprocess: {}\nresources: { cpu: 0, memory: 0, disk: 0, gpu: 0 }\n");
  assert.match(text, /resources\.cpu: 0 is too small/);
  assert.match(text, /resources\.memory: 0 is too small/);
  assert.doesNotMatch(text, /disk|gpu/);
});

test("a key where none may be is told that none may be", () => {
  assert.match(complaint("name: a\nprocess: { image: x }\n"), /unknown key `image`; there are no keys here/);
});

test("an empty file and one that is no pool file say so", () => {
  assert.match(complaint("# nothing\n"), /has no pool; write at least `name: …`/);
  assert.match(complaint("pools: 3\n"), /pools: must be a list of pools; begin each pool with `- `/);
  assert.match(complaint("pools: []\nother: 1\n"), /other: cannot stand beside `pools`/);
  assert.match(complaint("just text"), /must be a mapping/);
});

const name = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
const text = fc.stringMatching(/^[a-zA-Z0-9:#'" %{}?!.-]{0,20}$/);
const pathText = fc.stringMatching(/^\/[a-z0-9 #]{1,8}:\/[a-z0-9 #]{1,8}(:ro)?$/);
const labelKey = fc
  .stringMatching(/^[a-z]([a-z0-9._/-]{0,8}[a-z0-9])?$/)
  .filter((key) => !["pool", "provider", "os", "arch"].includes(key));
const durationMs = fc.integer({ min: 1_000, max: 86_400_000 });

const anyPool: fc.Arbitrary<PoolDefinition> = fc
  .record({
    name,
    labels: fc.dictionary(labelKey, text, { noNullPrototype: true }),
    taints: fc.uniqueArray(
      fc.record(
        {
          key: labelKey,
          value: fc.stringMatching(/^[a-z0-9.]{0,8}$/),
          effect: fc.constantFrom(...TAINT_EFFECTS),
        },
        { noNullPrototype: true },
      ),
      { maxLength: 3, selector: (taint) => `${taint.key} ${taint.effect}` },
    ),
    resources: fc.record(
      {
        cpuMillis: fc.option(fc.integer({ min: 1, max: 64_000 })),
        memoryBytes: fc.option(fc.integer({ min: 1, max: 2 ** 40 })),
        diskBytes: fc.option(fc.integer({ min: 0, max: 2 ** 40 })),
        gpu: fc.option(fc.integer({ min: 0, max: 8 })),
      },
      { noNullPrototype: true },
    ),
    minWorkers: fc.integer({ min: 0, max: 5 }),
    maxWorkers: fc.integer({ min: 5, max: 50 }),
    warmSpares: fc.integer({ min: 0, max: 5 }),
    idleTimeoutMs: fc.integer({ min: 0, max: 86_400_000 }),
    maxLifetimeMs: fc.option(durationMs),
    startTimeoutMs: durationMs,
    strategy: fc.constantFrom(...PLACEMENT_STRATEGIES),
    costPerHour: fc.integer({ min: 0, max: 1000 }).map((cents) => cents / 100),
    serverUrl: fc.option(fc.constant("https://hodei.example:9090")),
    image: fc.stringMatching(/^[a-z0-9./:@-]{1,20}$/),
    host: fc.option(fc.constant("unix:///run/docker.sock")),
    pids: fc.option(fc.integer({ min: 1, max: 1000 })),
    user: fc.option(fc.constantFrom("1000", "nobody", "1000:1000")),
    mounts: fc.array(pathText, { maxLength: 2 }),
    flags: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
  })
  .map(({ image, host, pids, user, mounts, flags, ...pool }) => {
    const [isDocker, noNewPrivileges, readOnlyRoot, ephemeral] = flags;
    const docker = {
      image,
      host,
      tlsDirectory: null,
      pull: "never" as const,
      authFile: null,
      network: "host",
      pids,
      user,
      noNewPrivileges,
      dropCapabilities: [],
      readOnlyRoot,
      limitDisk: pool.resources.diskBytes !== null && pool.resources.diskBytes >= 2 ** 26 && !readOnlyRoot,
      mounts,
    };
    const provider = isDocker ? { type: "docker" as const, docker } : { type: "process" as const };
    return poolWith({ ...pool, provider, ephemeral, jobsPerWorker: ephemeral ? 1 : 3 });
  });

test("what is written for a pool is read back as the same pool", () => {
  fc.assert(
    fc.property(anyPool, (pool) => {
      assert.deepEqual(pools(formatPool(pool)), [pool]);
    }),
    { numRuns: 300 },
  );
});

test("any text gives pools or problems, and never an exception", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (source) => {
      const result = parsePoolFile(source);
      assert.ok(result.ok ? result.pools.length > 0 : result.problems.length > 0);
    }),
    { numRuns: 300 },
  );
});
