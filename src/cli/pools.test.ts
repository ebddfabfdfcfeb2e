import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { systemClock } from "../base/clock.ts";
import { PoolChange, ProviderStatus, type ApplyPoolsRequest } from "../protocol/gen/hodei/v1/pools_pb.ts";
import { parsePoolFile } from "../spec/pool-file.ts";
import { cli, startFakeServer, type FakeServices } from "./fake-server.ts";

async function setup(
  t: { after(run: () => Promise<void>): void },
  services: FakeServices,
): Promise<{ url: string; directory: string }> {
  const server = await startFakeServer(services);
  t.after(server.close);
  const directory = await mkdtemp(join(tmpdir(), "hodei-pools-"));
  t.after(async () => await rm(directory, { recursive: true }));
  return { url: server.url, directory };
}

const linux = {
  definition: {
    name: "linux",
    provider: { case: "docker" as const, value: { image: "debian:12" } },
    labels: { zone: "a" },
    taints: [{ key: "gpu", value: "a100", effect: "NoSchedule" }],
    maxWorkers: 8,
  },
  workers: 3,
  arrivingWorkers: 1,
  busyWorkers: 2,
  startTime: { seconds: 2n },
};

const broken = {
  definition: { name: "broken", provider: { case: "process" as const, value: {} } },
  problem: "worker program is missing",
  retryAt: timestampFromMs(systemClock.nowMs() + 60_500),
};

test("pools are listed with what there is of them and what is wrong", async (t) => {
  const { url } = await setup(t, { pools: { listPools: () => ({ pools: [broken, linux] }) } });
  const { stdout } = await cli(["pools"], { url });
  assert.match(
    stdout.text,
    /linux +ok +docker debian:12 +3 of 0-8 +2 +1 +2\.0 s +zone=a +gpu=a100:NoSchedule\n/,
  );
  assert.match(
    stdout.text,
    /broken +problem +process +0 of 0-4 .*worker program is missing \(next try in \d/,
  );
  const json = JSON.parse((await cli(["pools", "-o", "json"], { url })).stdout.text) as {
    definition: { name: string };
    arriving: number;
  }[];
  assert.deepEqual(
    json.map(({ definition, arriving }) => [definition.name, arriving]),
    [
      ["broken", 0],
      ["linux", 1],
    ],
  );
});

test("pools get prints a file that apply takes again", async (t) => {
  const { url } = await setup(t, { pools: { listPools: () => ({ pools: [broken, linux] }) } });
  const yaml = (await cli(["pools", "get", "linux"], { url })).stdout.text;
  assert.match(yaml, /^name: linux\ndocker:\n {2}image: debian:12\n/);
  const read = parsePoolFile(yaml);
  assert.ok(read.ok);
  assert.equal(read.pools[0]?.maxWorkers, 8);
  assert.match((await cli(["pools", "get", "linux", "-o", "json"], { url })).stdout.text, /"busy": 2/);
  const missing = await cli(["pools", "get", "linus"], { url });
  assert.equal(missing.exitCode, 3);
  assert.match(missing.stderr.text, /"linus": there is none\nhint: pools are broken, linux/);
  assert.equal((await cli(["pools", "get", "linux", "-o", "xml"], { url })).exitCode, 2);
});

test("pools apply sends the pools of a file, and says what became of each", async (t) => {
  const seen: ApplyPoolsRequest[] = [];
  const { url, directory } = await setup(t, {
    pools: {
      applyPools: (request) => {
        seen.push(request);
        return {
          pools: [
            { name: "a", change: PoolChange.CREATED },
            { name: "old", change: PoolChange.DELETED },
          ],
        };
      },
    },
  });
  await writeFile(join(directory, "pools.yaml"), "name: a\ndocker: { image: x }\nidleTimeout: 5m\n");
  const run = await cli(["pools", "apply", "-f", "pools.yaml", "--prune", "--dry-run"], {
    url,
    cwd: directory,
  });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.equal(run.stdout.text, "a  created\nold  deleted\n");
  assert.match(run.stderr.text, /nothing was changed/);
  assert.equal(seen[0]?.prune, true);
  assert.equal(seen[0]?.dryRun, true);
  assert.equal(seen[0]?.pools[0]?.idleTimeout?.seconds, 300n);
  assert.equal(seen[0]?.pools[0]?.ephemeral, true);
  const piped = await cli(["pools", "apply", "-f", "-", "-o", "json"], {
    url,
    stdin: "name: b\nprocess: {}\n",
  });
  assert.deepEqual(JSON.parse(piped.stdout.text), [
    { name: "a", change: "created" },
    { name: "old", change: "deleted" },
  ]);
  assert.equal(seen[1]?.pools[0]?.provider.case, "process");
  assert.equal(seen[1]?.dryRun, false);
});

test("pools apply tells every problem of the file, or of the server, and exits with 2", async (t) => {
  const { url, directory } = await setup(t, {
    pools: {
      applyPools: () => {
        const message = "pools[0].docker.mounts[0]: /etc is not allowed; pools[0].name: is taken";
        throw new ConnectError(message, Code.InvalidArgument);
      },
      deletePool: ({ name }) => {
        if (name === "linux") return {};
        throw new ConnectError("delete pool: local belongs to the settings", Code.FailedPrecondition);
      },
    },
  });
  await writeFile(join(directory, "bad.yaml"), "name: A\nmaxWorkers: x\n");
  const bad = await cli(["pools", "apply", "-f", "bad.yaml"], { url, cwd: directory });
  assert.equal(bad.exitCode, 2);
  assert.match(bad.stderr.text, /^hodei: read bad\.yaml: 3 problems\n {2}bad\.yaml:1:7: name: must be lower/);
  await writeFile(join(directory, "good.yaml"), "name: a\nprocess: {}\n");
  const refused = await cli(["pools", "apply", "-f", "good.yaml"], { url, cwd: directory });
  assert.equal(refused.exitCode, 2);
  assert.match(
    refused.stderr.text,
    /refused 2 values\n {2}pools\[0\]\.docker\.mounts\[0\]: \/etc is not allowed\n/,
  );
  const absent = await cli(["pools", "apply", "-f", "none.yaml"], { url, cwd: directory });
  assert.equal(absent.exitCode, 2);
  assert.match(absent.stderr.text, /read pool file .*none\.yaml: there is no such file/);
  assert.equal((await cli(["pools", "apply"], { url })).exitCode, 2);
  const deleted = await cli(["pools", "delete", "local"], { url });
  assert.equal(deleted.exitCode, 5);
  assert.match(deleted.stderr.text, /^hodei: delete pool: local belongs to the settings/);
  const gone = await cli(["pools", "delete", "linux", "-o", "json"], { url });
  assert.deepEqual(JSON.parse(gone.stdout.text), { name: "linux", change: "deleted" });
});

const healthy = { name: "process", status: ProviderStatus.HEALTHY, pools: ["local"] };
const unhealthy = {
  name: "docker",
  status: ProviderStatus.UNHEALTHY,
  reason: "permission denied",
  pools: ["linux"],
  orphans: 2,
  orphansDestroyed: 5n,
};

test("providers shows their health, and check fails if one is unhealthy", async (t) => {
  const asked: string[] = [];
  const { url } = await setup(t, {
    pools: {
      listProviders: () => ({ providers: [healthy, unhealthy] }),
      checkProviders: ({ name }) => {
        asked.push(name);
        return { providers: name === "process" ? [healthy] : [healthy, unhealthy] };
      },
    },
  });
  const listed = await cli(["providers"], { url });
  assert.equal(listed.exitCode, 0);
  assert.match(listed.stdout.text, /docker +unhealthy +linux +2 \(5 destroyed\) +never +permission denied/);
  assert.equal((await cli(["providers", "check"], { url })).exitCode, 1);
  assert.equal((await cli(["providers", "check", "process"], { url })).exitCode, 0);
  assert.deepEqual(asked, ["", "process"]);
});
