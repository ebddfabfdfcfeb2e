import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { eventually } from "../src/base/eventually.ts";
import { JobState, type Job } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { allJobs, apiClient, type ApiClient } from "./api-client.ts";
import { Place } from "./program.ts";

/** Of each queue. `HODEI_TEST_FAIR_JOBS=2000` is the size that the design promises. */
const JOBS = Number(process.env["HODEI_TEST_FAIR_JOBS"] ?? 200);

const no = { commandType: { case: "shell" as const, value: { cmd: "true", args: [] } } };

describe("queues that share the workers", () => {
  let place: Place;
  let api: ApiClient;
  before(async () => {
    place = await Place.make();
    await place.startDev(["--max-workers", "1", "--worker-jobs", "4"]);
    api = await apiClient(place);
  });
  after(() => place.remove());

  test("with weights 3 and 1 share the starts 3 to 1 while both wait, and a job that fits nowhere delays nobody", async (t) => {
    await api.scheduler.configureScheduler({
      queues: [
        { name: "big", weight: 3, paused: true },
        { name: "small", weight: 1, paused: true },
      ],
    });
    await api.jobs.queueJobs({
      jobs: Array.from({ length: 20 }, () => ({
        definition: {
          name: "giant",
          queue: "big",
          command: no,
          priority: 100,
          resources: { cpuMillis: 900_000 },
        },
        acceptUnplaceable: true,
      })),
    });
    for (const queue of ["big", "small"]) {
      await api.jobs.queueJobs({
        jobs: Array.from({ length: JOBS }, () => ({ definition: { name: queue, queue, command: no } })),
      });
    }
    await api.scheduler.configureScheduler({
      queues: [
        { name: "big", weight: 3 },
        { name: "small", weight: 1 },
      ],
    });
    const ended = await allSucceeded(api, ({ definition }) => definition?.name !== "giant");
    const starts = inOrderOfStart(ended).map(({ definition }) => definition?.queue ?? "");
    const untilEmpty = starts.slice(0, starts.lastIndexOf("big") + 1);
    const share = untilEmpty.filter((queue) => queue === "big").length / untilEmpty.length;
    t.diagnostic(
      `${JOBS} jobs each: ${(share * 100).toFixed(2)} % of ${untilEmpty.length} starts, 75 % is due`,
    );
    assert.ok(Math.abs(share - 0.75) < 0.75 * 0.05, `share ${share}`);
    const { queues } = await api.scheduler.getQueueStatus({});
    const pending = queues.map(({ config, pending: count }) => [config?.name, Number(count)]);
    assert.deepEqual(pending, [
      ["big", 20],
      ["small", 0],
    ]);
  });
});

describe("queues that share the only place there is", () => {
  let place: Place;
  let api: ApiClient;
  before(async () => {
    place = await Place.make();
    await place.startDev(["--max-workers", "1", "--worker-jobs", "1"]);
    api = await apiClient(place);
  });
  after(() => place.remove());

  test("start jobs in the order of their priority", async () => {
    const priorities = Array.from({ length: 60 }, (_, index) => (index * 37) % 10);
    await api.scheduler.configureScheduler({
      queues: ["a", "b", "c"].map((name) => ({ name, paused: true })),
    });
    await api.jobs.queueJobs({
      jobs: priorities.map((priority, index) => ({
        definition: { name: "ranked", queue: ["a", "b", "c"][index % 3] ?? "", command: no, priority },
      })),
    });
    await api.scheduler.configureScheduler({ queues: [], resetQueues: ["a", "b", "c"] });
    const ended = await allSucceeded(api, ({ definition }) => definition?.name === "ranked");
    const started = inOrderOfStart(ended).map(({ definition }) => definition?.priority ?? 0);
    assert.deepEqual(
      started,
      started.toSorted((a, b) => b - a),
    );
  });
});

/** Waits as long as jobs end: how many do in a second is a matter of the machine. */
async function allSucceeded(api: ApiClient, isCounted: (job: Job) => boolean): Promise<Job[]> {
  let left = Infinity;
  for (;;) {
    const jobs = await eventually(
      async () => {
        const counted = (await allJobs(api)).filter(isCounted);
        return leftOf(counted) < left ? counted : null;
      },
      { timeoutMs: 30_000, intervalMs: 500, what: `fewer than ${left} jobs without success` },
    );
    left = leftOf(jobs);
    if (left === 0) return jobs;
  }
}

function leftOf(jobs: readonly Job[]): number {
  return jobs.filter(({ state }) => state !== JobState.SUCCEEDED).length;
}

/** By the time at which they were given to a worker. */
function inOrderOfStart(jobs: readonly Job[]): Job[] {
  const timeOf = ({ attempts }: Job): number => {
    const at = attempts.at(-1)?.scheduledAt;
    return at ? timestampMs(at) : 0;
  };
  return jobs.toSorted((a, b) => timeOf(a) - timeOf(b));
}
