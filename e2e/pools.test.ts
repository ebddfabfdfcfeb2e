import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { JobState } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import type { Pool } from "../src/protocol/gen/hodei/v1/pools_pb.ts";
import { allJobs, apiClient, type ApiClient } from "./api-client.ts";
import { Place } from "./program.ts";

describe("pools that people apply", () => {
  let place: Place;
  let api: ApiClient;
  const start = async (): Promise<void> => {
    await place.startServer(["--max-workers", "0"]);
    api = await apiClient(place);
  };
  before(async () => {
    place = await Place.make();
    await start();
  });
  after(async () => {
    for (const { definition } of (await api.pools.listPools({})).pools) {
      const name = definition?.name ?? "";
      if (name !== "local") await api.pools.deletePool({ name });
    }
    await eventually(async () => (await workers()).length === 0, {
      timeoutMs: 30_000,
      what: "the end of the workers",
    });
    await place.stopDev();
    const left = await place.leftovers();
    await place.remove();
    assert.deepEqual(left, []);
  });

  const apply = (pool: object) =>
    api.pools.applyPools({ pools: [{ provider: { case: "process", value: {} }, ...pool }] });
  const pool = async (name: string): Promise<Pool | undefined> =>
    (await api.pools.listPools({})).pools.find(({ definition }) => definition?.name === name);
  const workers = async () => (await api.workers.listWorkers({ pageSize: 100 })).workers;
  const workerCount = (name: string, count: number): Promise<boolean> =>
    eventually(
      async () => {
        const found = await pool(name);
        return found?.workers === count && found.arrivingWorkers === 0;
      },
      { timeoutMs: 20_000, what: `${count} workers of pool ${name}` },
    );
  const queue = async (name: string, seconds: number, resources: object = {}): Promise<string> => {
    const { jobIds } = await api.jobs.queueJobs({
      jobs: [
        {
          definition: {
            name,
            selector: { pool: name },
            resources,
            command: { commandType: { case: "shell", value: { cmd: "sleep", args: [String(seconds)] } } },
          },
        },
      ],
    });
    return jobIds[0] ?? "";
  };
  const ended = (id: string) =>
    eventually(
      async () => {
        const job = (await allJobs(api)).find((each) => each.id === id);
        return job?.state === JobState.SUCCEEDED ? job : null;
      },
      { timeoutMs: 20_000, what: `the success of job ${id}` },
    );

  test("keeps its minimum ready, takes jobs, and keeps its workers when the server is killed", async () => {
    await apply({ name: "ready", minWorkers: 1, maxWorkers: 2, warmSpares: 1 });
    await workerCount("ready", 1);
    const [before] = await workers();
    await ended(await queue("ready", 0));
    await place.stopDev("SIGKILL");
    await start();
    await ended(await queue("ready", 0));
    assert.ok((await workers()).some(({ info }) => info?.workerId === before?.info?.workerId));
  });

  test("gives its workers the disk and the GPUs that it names", async () => {
    const resources = { diskBytes: 2n ** 50n, gpu: 2 };
    await apply({ name: "large", maxWorkers: 1, resources });
    await ended(await queue("large", 0, resources));
  });

  test("replaces its workers when it changes, the busy one after its job", async () => {
    await apply({ name: "changing", minWorkers: 1, maxWorkers: 2, labels: { zone: "a" } });
    await workerCount("changing", 1);
    const id = await queue("changing", 2);
    await eventually(async () => (await pool("changing"))?.busyWorkers === 1);
    await apply({ name: "changing", minWorkers: 1, maxWorkers: 2, labels: { zone: "b" } });
    const { attemptCount } = await ended(id);
    assert.equal(attemptCount, 1);
    const zones = async () =>
      (await workers())
        .filter((worker) => worker.pool === "changing")
        .map(({ info }) => info?.labels["zone"]);
    await eventually(async () => String(await zones()) === "b", { what: "a worker of zone b alone" });
  });

  test("goes with its last worker when it is deleted, which finishes its job", async () => {
    await apply({ name: "leaving", minWorkers: 1, maxWorkers: 1 });
    await workerCount("leaving", 1);
    const id = await queue("leaving", 2);
    await eventually(async () => (await pool("leaving"))?.busyWorkers === 1);
    await api.pools.deletePool({ name: "leaving" });
    assert.equal((await pool("leaving"))?.deleting, true);
    await ended(id);
    await eventually(async () => (await pool("leaving")) === undefined, { what: "the end of the pool" });
  });

  test("an engine that is not there is said at once", async () => {
    const docker = { image: "any:1", host: "unix:///nowhere/docker.sock" };
    await api.pools.applyPools({ pools: [{ name: "box", provider: { case: "docker", value: docker } }] });
    assert.match((await pool("box"))?.problem ?? "", /is unhealthy: .*its socket is not there/);
    const { providers } = await api.pools.checkProviders({ name: "docker unix:///nowhere/docker.sock" });
    assert.match(providers[0]?.reason ?? "", /is it installed and running\?/);
  });
});
