import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../src/base/eventually.ts";
import { Cause, JobState, type Job } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { apiClient, type ApiClient } from "./api-client.ts";
import { Place } from "./program.ts";

describe("a job with a higher priority than what runs", () => {
  let place: Place;
  let api: ApiClient;
  before(async () => {
    place = await Place.make();
    await place.startDev(["--max-workers", "1", "--worker-jobs", "1"]);
    api = await apiClient(place);
  });
  after(() => place.remove());

  const script = (content: string) => ({
    commandType: { case: "script" as const, value: { interpreter: "sh", content } },
  });
  const jobOf = async (jobId: string): Promise<Job> =>
    (await api.jobs.getJob({ jobId })).job ?? assert.fail(jobId);
  const inState = (jobId: string, state: JobState): Promise<unknown> =>
    eventually(async () => (await jobOf(jobId)).state === state, {
      timeoutMs: 30_000,
      what: `state ${JobState[state]} of job ${jobId}`,
    });

  test("makes one that allows it give way, and that one runs again afterwards, at no cost", async () => {
    const witness = `${place.directory}/attempts`;
    const low = await api.jobs.queueJob({
      definition: {
        name: "low",
        command: script(`echo $HODEI_ATTEMPT >> ${witness}; [ "$HODEI_ATTEMPT" = 2 ] || sleep 600`),
        preemptible: true,
        retry: { maxInfrastructureRetries: 0 },
      },
    });
    await inState(low.jobId, JobState.RUNNING);
    const high = await api.jobs.queueJob({
      definition: { name: "high", command: script("true"), priority: 10 },
    });
    await inState(high.jobId, JobState.SUCCEEDED);
    await inState(low.jobId, JobState.SUCCEEDED);
    const { attempts } = await jobOf(low.jobId);
    assert.deepEqual(
      attempts.map(({ cause }) => cause),
      [Cause.PREEMPTED, Cause.UNSPECIFIED],
    );
    const [first, second] = [attempts[0]?.finishedAt, (await jobOf(high.jobId)).startedAt];
    assert.ok(first && second && first.seconds <= second.seconds, "the place was free before it was taken");
  });

  test("waits for one that does not allow it, and says so", async () => {
    const firm = await api.jobs.queueJob({ definition: { name: "firm", command: script("sleep 600") } });
    await inState(firm.jobId, JobState.RUNNING);
    const high = await api.jobs.queueJob({
      definition: { name: "high", command: script("true"), priority: 10 },
    });
    await place.eventualMessage(high.jobId, /busy|maximum/);
    const { decision } = await api.scheduler.getSchedulingDecision({ jobId: high.jobId });
    assert.match(decision?.reason ?? "", /busy|maximum/);
    assert.equal((await jobOf(firm.jobId)).state, JobState.RUNNING);
    await api.jobs.cancelJob({ jobId: firm.jobId });
    await inState(high.jobId, JobState.SUCCEEDED);
  });
});
