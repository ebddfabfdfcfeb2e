import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ProviderStatus } from "../protocol/gen/hodei/v1/pools_pb.ts";
import { WorkerState } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { cli, startFakeServer, type FakeServices } from "./fake-server.ts";

async function setup(t: { after(run: () => Promise<void>): void }, services: FakeServices): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

/** The version is that of the command line in tests. */
const info = { version: "1.2.3", databaseVersion: "PostgreSQL 18.4" };

function cluster(parts: Partial<FakeServices>): FakeServices {
  return {
    server: { getServerInfo: () => info },
    pools: {
      checkProviders: () => ({ providers: [{ name: "process", status: ProviderStatus.HEALTHY }] }),
      listPools: () => ({ pools: [{ definition: { name: "local" } }] }),
    },
    workers: { listWorkers: () => ({ workers: [] }) },
    scheduler: { getQueueStatus: () => ({ queues: [] }) },
    ...parts,
  };
}

test("doctor finds nothing wrong with a cluster that is well", async (t) => {
  const url = await setup(t, cluster({}));
  const run = await cli(["doctor"], { url });
  assert.equal(run.exitCode, 0, run.stdout.text);
  assert.match(run.stdout.text, /✓ server +version 1\.2\.3 answers at http/);
  assert.match(run.stdout.text, /✓ database +PostgreSQL 18\.4\n/);
  assert.match(run.stdout.text, /all is well\n$/);
  assert.doesNotMatch(run.stdout.text, /next:/);
});

test("doctor names each problem with the next step, and exits with 1", async (t) => {
  const broken = { info: { workerId: "w-id", name: "w-1" }, state: WorkerState.BROKEN, message: "no kill" };
  const lost = { info: { workerId: "l-id", name: "w-2" }, state: WorkerState.UNREACHABLE };
  const docker = { name: "docker", status: ProviderStatus.UNHEALTHY, reason: "no socket", pools: ["linux"] };
  const url = await setup(
    t,
    cluster({
      pools: {
        checkProviders: () => ({ providers: [{ ...docker, orphans: 2 }] }),
        listPools: () => ({ pools: [{ definition: { name: "linux" }, problem: "no such image: x" }] }),
      },
      workers: { listWorkers: () => ({ workers: [broken, lost] }) },
      scheduler: {
        getQueueStatus: () => ({ queues: [{ config: { name: "nightly", paused: true }, pending: 3n }] }),
      },
    }),
  );
  const run = await cli(["doctor"], { url });
  assert.equal(run.exitCode, 1);
  for (const expected of [
    /✗ providers +docker is unhealthy: no socket\n +next: put it right \(pools linux\), then: hodei providers check/,
    /✗ orphans +docker still has 2 instances that nobody owns/,
    /✗ pools +linux: no such image: x\n +next: it is tried again; see the pool with: hodei pools get linux/,
    /✗ workers +w-1 \(w-id\) is broken: no kill\n +next: look at its machine, then: hodei workers remove w-id/,
    /✗ workers +w-2 \(l-id\) is unreachable\n/,
    /! queues +nightly is paused, and 3 jobs wait in it\n +next: let it go on: hodei queue set nightly --resume/,
    /5 problems, 1 warning\n$/,
  ]) {
    assert.match(run.stdout.text, expected);
  }
  const findings = JSON.parse((await cli(["doctor", "-o", "json"], { url })).stdout.text) as {
    check: string;
    status: string;
  }[];
  assert.ok(findings.some(({ check, status }) => check === "orphans" && status === "problem"));
});

test("doctor warns of other versions, and of a server without pools", async (t) => {
  const url = await setup(
    t,
    cluster({
      server: { getServerInfo: () => ({ ...info, version: "2.0.0" }) },
      pools: { checkProviders: () => ({}), listPools: () => ({}) },
      workers: { listWorkers: () => ({ workers: [{ info: { name: "w", version: "1.0.0" } }] }) },
    }),
  );
  const run = await cli(["doctor"], { url });
  assert.equal(run.exitCode, 0);
  assert.match(run.stdout.text, /! server +version 2\.0\.0 answers at \S+, this is 1\.2\.3/);
  assert.match(run.stdout.text, /! workers +some run version 1\.0\.0, not 1\.2\.3/);
  assert.match(run.stdout.text, /! pools +there are none: no worker is made on demand/);
});

test("doctor says what a question that failed was, and asks the others", async (t) => {
  const url = await setup(
    t,
    cluster({
      workers: {
        listWorkers: () => {
          throw new ConnectError("the database is away", Code.Unavailable);
        },
      },
    }),
  );
  const run = await cli(["doctor"], { url });
  assert.equal(run.exitCode, 1);
  assert.match(run.stdout.text, /✗ workers +list workers: the database is away/);
  assert.match(run.stdout.text, /✓ pools/);
});

test("doctor without a server says how to start or name one", async () => {
  const none = await cli(["doctor"]);
  assert.equal(none.exitCode, 1);
  assert.match(
    none.stdout.text,
    /✗ server +connect: no server is running for .*\n +next: start one with: hodei dev/,
  );
  const away = await cli(["doctor"], { url: "http://127.0.0.1:1" });
  assert.equal(away.exitCode, 1);
  assert.match(away.stdout.text, /✗ server +.*ECONNREFUSED.*\n +next: is the server running/);
});
