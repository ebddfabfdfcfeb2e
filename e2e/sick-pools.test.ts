import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { JobState, type Job } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { allJobs, apiClient, type ApiClient } from "./api-client.ts";
import { FakeEngine } from "./fake-engine.ts";
import { Place } from "./program.ts";

/** Both pools fit, and `containers` is the cheaper one, so it is asked first. */
describe("two pools, of which one is sick", () => {
  let place: Place;
  let engine: FakeEngine;
  let api: ApiClient;

  beforeEach(async () => {
    place = await Place.make();
    engine = await FakeEngine.start(join(place.directory, "docker.sock"));
    await place.startServer(["--max-workers", "0"]);
    api = await apiClient(place);
    const labels = { kind: "batch" };
    const docker = { image: "any:1", host: engine.host, pull: "never" };
    await api.pools.applyPools({
      pools: [
        {
          name: "containers",
          labels,
          startTimeout: { seconds: 2n },
          provider: { case: "docker", value: docker },
        },
        { name: "processes", labels, costPerHour: 1, provider: { case: "process", value: {} } },
      ],
    });
  });

  afterEach(async () => {
    engine.wake();
    for (const { definition } of (await api.pools.listPools({})).pools) {
      const name = definition?.name ?? "";
      if (name !== "local") await api.pools.deletePool({ name });
    }
    await eventually(async () => (await api.pools.listPools({})).pools.length === 1, {
      timeoutMs: 30_000,
      what: "the end of the pools with their workers",
    });
    await place.stopDev();
    const left = await place.leftovers();
    await engine.stop();
    await place.remove();
    assert.deepEqual(left, []);
    assert.deepEqual([...engine.containers.keys()], []);
  });

  const queue = async (selector: Record<string, string>): Promise<string> => {
    const command = { commandType: { case: "shell" as const, value: { cmd: "true", args: [] } } };
    const { jobIds } = await api.jobs.queueJobs({
      jobs: [{ definition: { name: "one", selector, command } }],
    });
    return jobIds[0] ?? "";
  };
  const ended = (id: string): Promise<Job> =>
    eventually(
      async () => {
        const job = (await allJobs(api)).find((each) => each.id === id);
        return job?.state === JobState.SUCCEEDED || job?.state === JobState.FAILED ? job : null;
      },
      { timeoutMs: 30_000, what: `the end of job ${id}` },
    );
  const poolOf = async (job: Job): Promise<string | undefined> => {
    const { workers } = await api.workers.listWorkers({ pageSize: 100, includeTerminated: true });
    return workers.find(({ info }) => info?.workerId === job.workerId)?.pool;
  };
  const creations = (): number => engine.asked.filter((call) => call === "POST /containers/create").length;

  test("a job goes to the other pool when the first one cannot make a worker", async () => {
    engine.sickness = "the disk is on strike";
    const job = await ended(await queue({ kind: "batch" }));
    assert.equal(job.state, JobState.SUCCEEDED);
    assert.ok(creations() > 0, "the cheaper pool was not asked");
    assert.equal(await poolOf(job), "processes");
    assert.equal(job.attemptCount, 1);
  });

  test("a job goes to the other pool when workers of the first one never come", async () => {
    const job = await ended(await queue({ kind: "batch" }));
    assert.equal(job.state, JobState.SUCCEEDED);
    assert.ok(
      engine.asked.some((call) => /^POST .*\/start$/.test(call)),
      "no container was started",
    );
    assert.equal(await poolOf(job), "processes");
    await eventually(() => engine.containers.size === 0, { what: "the end of the container" });
  });

  test("a job that only the sick pool can take fails with what its engine says, if that stays so", async () => {
    engine.hasImage = false;
    const job = await ended(await queue({ pool: "containers" }));
    assert.equal(job.state, JobState.FAILED);
    assert.match(job.message, /image any:1: the engine does not have it, and pulling is set to never/);
    assert.equal((await ended(await queue({ kind: "batch" }))).state, JobState.SUCCEEDED);
  });

  test("an engine that never answers holds up no pool of another provider", async () => {
    engine.hang();
    const before = engine.asked.length;
    // What its pool may have left is looked for.
    await eventually(() => engine.asked.slice(before).includes("GET /containers/json"));
    const provider = { case: "process" as const, value: {} };
    await api.pools.applyPools({ pools: [{ name: "ready", minWorkers: 1, maxWorkers: 1, provider }] });
    await eventually(
      async () => {
        const { pools } = await api.pools.listPools({});
        const ready = pools.find(({ definition }) => definition?.name === "ready");
        return ready?.workers === 1 && ready.arrivingWorkers === 0;
      },
      { timeoutMs: 10_000, what: "the worker of a pool that is well" },
    );
  });

  test("a command that only reads asks no engine, whatever pools there are", async () => {
    await place.stopDev();
    const before = engine.asked.length;
    const env = { HODEI_DOCKER_IMAGE: "any:1", DOCKER_HOST: engine.host };
    const { code, stdout } = await place.run(["list", "--output", "json"], { env });
    const asked = engine.asked.slice(before);
    // Its pools are deleted after the test.
    await place.startServer(["--max-workers", "0"]);
    api = await apiClient(place);
    assert.equal(code, 0);
    assert.match(stdout.toString(), /\[/);
    assert.deepEqual(asked, []);
  });
});
