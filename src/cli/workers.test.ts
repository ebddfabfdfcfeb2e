import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { WorkerState } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { cli, startFakeServer, type FakeServices } from "./fake-server.ts";

const WORKER_ID = "01980000-0000-7000-8000-000000000002";
const JOB_ID = "01980000-0000-7000-8000-000000000001";

async function setup(t: { after(run: () => Promise<void>): void }, services: FakeServices): Promise<string> {
  const server = await startFakeServer(services);
  t.after(server.close);
  return server.url;
}

const worker = {
  info: {
    workerId: WORKER_ID,
    name: "w-1",
    version: "9.9.9",
    hostname: "build-1",
    capacity: { jobs: 4, cpuMillis: 2000 },
    labels: { pool: "linux", provider: "docker", zone: "a" },
    taints: [{ key: "gpu", value: "", effect: "NoSchedule" }],
  },
  state: WorkerState.BUSY,
  pool: "linux",
  provider: "docker",
  cordoned: true,
  attemptIds: [JOB_ID],
  usage: { loadMillis: 1500, cpuMillis: 1000 },
  registeredAt: timestampFromMs(1_700_000_000_000),
};

test("workers are listed with state, load, labels, taints and version", async (t) => {
  const url = await setup(t, {
    workers: { listWorkers: () => ({ workers: [worker] }), getWorkerInfo: () => ({ worker }) },
  });
  const text = (await cli(["workers"], { url })).stdout.text;
  assert.match(text, /w-1 +busy, cordoned +linux +docker +1\/4 +1\.50 +zone=a +gpu:NoSchedule +9\.9\.9/);
  assert.doesNotMatch(text, /build-1/);
  assert.match((await cli(["workers", "--wide"], { url })).stdout.text, /4 jobs, 2 CPU.*build-1/);
  const shown = (await cli(["workers", "get", "01980000"], { url })).stdout.text;
  assert.match(shown, /session +since 2023-11-14T22:13:20\.000Z/);
  assert.match(shown, /labels +pool=linux provider=docker zone=a/);
  assert.equal((await cli(["workers", "01980000"], { url })).stdout.text, shown);
  assert.equal((await cli(["workers", "get"], { url })).exitCode, 2);
});

test("workers are cordoned, uncordoned and removed", async (t) => {
  const seen: unknown[] = [];
  const url = await setup(t, {
    workers: {
      cordonWorker: ({ workerId, uncordon }) => {
        seen.push([workerId, uncordon]);
        return { worker };
      },
      removeWorker: ({ workerId, force, reason }) => {
        seen.push([workerId, force, reason]);
        if (workerId === "dddd") throw new ConnectError("remove worker: it is gone", Code.FailedPrecondition);
        const why = `remove worker ${WORKER_ID}: it holds 1 attempt; drain it to let them end, or set \`force\``;
        if (!force) throw new ConnectError(why, Code.FailedPrecondition);
        return { worker: { ...worker, state: WorkerState.TERMINATED } };
      },
    },
  });
  assert.equal((await cli(["workers", "cordon", "aaaa"], { url })).stdout.text, `${WORKER_ID}  busy\n`);
  assert.equal((await cli(["workers", "uncordon", "aaaa", "-o", "json"], { url })).exitCode, 0);
  const refused = await cli(["workers", "remove", "aaaa"], { url });
  assert.equal(refused.exitCode, 5);
  assert.equal(
    refused.stderr.text,
    `hodei: remove worker ${WORKER_ID}: it holds 1 attempt\nhint: let it finish with: hodei workers drain aaaa, or end its jobs with --force\n`,
  );
  const gone = await cli(["workers", "remove", "dddd"], { url });
  assert.doesNotMatch(gone.stderr.text, /hint/);
  const removed = await cli(["workers", "remove", "--force", "--reason", "old", "aaaa"], { url });
  assert.equal(removed.stdout.text, `${WORKER_ID}  terminated\n`);
  assert.deepEqual(seen, [
    ["aaaa", false],
    ["aaaa", true],
    ["aaaa", false, ""],
    ["dddd", false, ""],
    ["aaaa", true, "old"],
  ]);
});

test("a worker token alone is on stdout, and the next command on stderr", async (t) => {
  const seen: unknown[] = [];
  const url = await setup(t, {
    workers: {
      createWorkerToken: ({ name, lifetime }) => {
        seen.push([name, lifetime?.seconds]);
        return {
          workerId: WORKER_ID,
          token: "t-1",
          expiresAt: timestampFromMs(1_700_000_000_000),
          workerPort: 19_090,
        };
      },
    },
  });
  const run = await cli(["workers", "token", "--name", "build-1", "--lifetime", "1h"], { url });
  assert.equal(run.stdout.text, "t-1\n");
  assert.match(run.stderr.text, /once until 2023-11-14T22:13:20\.000Z/);
  assert.match(run.stderr.text, /hodei agent --server http:\/\/127\.0\.0\.1:19090 --token-file FILE/);
  assert.deepEqual(seen, [["build-1", 3600n]]);
});

test("a worker token goes into a new file that only its owner can read", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "hodei-token-"));
  t.after(async () => await rm(directory, { recursive: true }));
  let isRefusing = false;
  const url = await setup(t, {
    workers: {
      createWorkerToken: () => {
        if (isRefusing) throw new ConnectError("no", Code.PermissionDenied);
        return { workerId: WORKER_ID, token: "t-1" };
      },
    },
  });
  const run = await cli(["workers", "token", "--write", "w.token"], { url, cwd: directory });
  assert.equal(run.exitCode, 0, run.stderr.text);
  assert.equal(run.stdout.text, "");
  assert.match(run.stderr.text, /--token-file w\.token/);
  assert.equal(await readFile(join(directory, "w.token"), "utf8"), "t-1\n");
  assert.equal((await stat(join(directory, "w.token"))).mode & 0o777, 0o600);
  const again = await cli(["workers", "token", "--write", "w.token"], { url, cwd: directory });
  assert.equal(again.exitCode, 2);
  assert.match(again.stderr.text, /write the token to .*: it exists already/);
  isRefusing = true;
  assert.equal((await cli(["workers", "token", "--write", "other"], { url, cwd: directory })).exitCode, 6);
  assert.deepEqual(await readdir(directory), ["w.token"]);
});
