import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { eventually } from "../src/base/eventually.ts";
import { JobState, type JobDefinitionSchema } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { ProviderStatus } from "../src/protocol/gen/hodei/v1/pools_pb.ts";
import { BlockerKind, DecisionKind } from "../src/protocol/gen/hodei/v1/scheduling_pb.ts";
import { allJobs, apiClient, type ApiClient } from "./api-client.ts";
import { Place } from "./program.ts";

type Definition = Extract<MessageInitShape<typeof JobDefinitionSchema>, { $typeName?: never }>;

/** A kind of job that waits, and what must be said of it. */
interface Kind {
  definition: Partial<Definition>;
  decision: DecisionKind;
  /** In the reason, and in the message of the job as it is listed. */
  says: RegExp;
  /** What keeps it from this pool; none if its queue or key holds it. */
  pool?: { name: string; blocker: BlockerKind };
}

const KINDS: { readonly [name: string]: Kind } = {
  "too-big": {
    definition: { resources: { cpuMillis: 64_000 } },
    decision: DecisionKind.IMPOSSIBLE,
    says: /64/,
    pool: { name: "single", blocker: BlockerKind.TOO_SMALL },
  },
  "wrong-label": {
    definition: { selector: { gpu: "h100" } },
    decision: DecisionKind.IMPOSSIBLE,
    says: /gpu=h100/,
    pool: { name: "single", blocker: BlockerKind.LABEL },
  },
  taint: {
    definition: { selector: { pool: "tainted" } },
    decision: DecisionKind.IMPOSSIBLE,
    says: /taint|tolerat/,
    pool: { name: "tainted", blocker: BlockerKind.TAINT },
  },
  "key-held": {
    definition: { selector: { pool: "local" }, concurrency: { key: "deploy", limit: 1 } },
    decision: DecisionKind.WAITING,
    says: /deploy/,
  },
  "queue-paused": {
    definition: { queue: "paused", selector: { pool: "local" } },
    decision: DecisionKind.WAITING,
    says: /paused/,
  },
  "pool-full": {
    definition: { selector: { pool: "single" } },
    decision: DecisionKind.WAITING,
    says: /single.*(maximum|most)|busy/,
    pool: { name: "single", blocker: BlockerKind.POOL_FULL },
  },
  "provider-sick": {
    definition: { selector: { pool: "sick" } },
    decision: DecisionKind.WAITING,
    says: /sick|docker/i,
    pool: { name: "sick", blocker: BlockerKind.PROVIDER },
  },
};
const JOBS = 500;
const command = (cmd: string, ...args: string[]): Definition["command"] => ({
  commandType: { case: "shell", value: { cmd, args } },
});

describe("five hundred jobs that wait for seven reasons", () => {
  let place: Place;
  let api: ApiClient;
  before(async () => {
    place = await Place.make();
    await place.startDev(["--max-workers", "1", "--worker-jobs", "4"]);
    api = await apiClient(place);
    const process = { provider: { case: "process" as const, value: {} }, resources: { cpuMillis: 1_000 } };
    await api.pools.applyPools({
      pools: [
        { ...process, name: "single", maxWorkers: 1, labels: { gpu: "a100" } },
        {
          ...process,
          name: "tainted",
          maxWorkers: 1,
          taints: [{ key: "dedicated", value: "release", effect: "NoSchedule" }],
        },
        {
          name: "sick",
          provider: {
            case: "docker",
            value: { image: "none", host: `unix://${place.directory}/no-such.sock` },
          },
        },
      ],
    });
    await api.pools.checkProviders({});
    await api.scheduler.configureScheduler({ queues: [{ name: "paused", paused: true }] });
    const hold = async (definition: Partial<Definition>): Promise<void> => {
      const { jobId } = await api.jobs.queueJob({
        definition: { name: "holds", command: command("sleep", "600"), ...definition },
      });
      await eventually(async () => (await api.jobs.getJob({ jobId })).job?.state === JobState.RUNNING, {
        timeoutMs: 30_000,
        what: "the start of a job that holds something",
      });
    };
    await hold({ selector: { pool: "single" } });
    await hold({ selector: { pool: "local" }, concurrency: { key: "deploy", limit: 1 } });
  });
  after(() => place.remove());

  test("each get the right reason, in its list and in its explanation", async () => {
    const names = Object.keys(KINDS);
    const nameOf = (index: number): string => names[index % names.length] ?? "";
    const { jobIds } = await api.jobs.queueJobs({
      jobs: Array.from({ length: JOBS }, (_, index) => ({
        definition: { name: nameOf(index), command: command("true"), ...KINDS[nameOf(index)]?.definition },
        acceptUnplaceable: true,
      })),
    });
    assert.equal(jobIds.length, JOBS);
    await eventually(
      async () => {
        const wrong = (await allJobs(api)).filter(
          ({ definition, message }) => !(KINDS[definition?.name ?? ""]?.says ?? /./).test(message || "-"),
        );
        return wrong.length === 0;
      },
      { timeoutMs: 10_000, intervalMs: 250, what: "a reason for each job in the list" },
    );
    for (const [index, jobId] of jobIds.entries()) await checkExplanation(jobId, nameOf(index));
  });

  async function checkExplanation(jobId: string, name: string): Promise<void> {
    const kind = KINDS[name] ?? assert.fail(name);
    const answer = await api.scheduler.getSchedulingDecision({ jobId });
    assert.equal(answer.state, JobState.PENDING, name);
    assert.equal(answer.decision?.kind, kind.decision, `${name}: ${answer.decision?.reason}`);
    assert.match(answer.decision?.reason ?? "", kind.says, name);
    assert.equal(answer.heldBy !== "", kind.pool === undefined, `${name}: held by ${answer.heldBy}`);
    if (kind.pool === undefined) return;
    const { name: poolName, blocker } = kind.pool;
    const verdict = answer.pools.find((pool) => pool.name === poolName) ?? assert.fail(poolName);
    assert.equal(verdict.fits, false);
    const found = verdict.blockers.find(({ kind: found }) => found === blocker);
    assert.ok(found, `${name} and ${poolName}: ${verdict.blockers.map(({ message }) => message).join("; ")}`);
    assert.notEqual(found.change, "", `${name}: what would have to change`);
  }

  test("a reason goes when what held the job is gone", async () => {
    await api.scheduler.configureScheduler({ queues: [], resetQueues: ["paused"] });
    await eventually(
      async () => {
        const jobs = (await allJobs(api)).filter(({ definition }) => definition?.name === "queue-paused");
        return jobs.every(({ state }) => state === JobState.SUCCEEDED);
      },
      { timeoutMs: 60_000, intervalMs: 500, what: "the end of the jobs of the queue" },
    );
  });

  test("providers tell how they are", async () => {
    const { providers } = await api.pools.listProviders({});
    const sick = providers.find(({ pools }) => pools.includes("sick"));
    assert.equal(sick?.status, ProviderStatus.UNHEALTHY);
    assert.match(sick.reason, /no-such\.sock/);
    const local = providers.find(({ pools }) => pools.includes("local"));
    assert.equal(local?.status, ProviderStatus.HEALTHY);
  });

  test("a job that nobody could ever take is refused, with what comes closest", async () => {
    const impossible = { name: "x", command: command("true"), selector: { gpu: "h100" } };
    await assert.rejects(api.jobs.queueJob({ definition: impossible }), /gpu=h100.*gpu=a100/s);
    const giant = { name: "x", command: command("true"), resources: { cpuMillis: 64_000 } };
    await assert.rejects(api.jobs.queueJob({ definition: giant }), /64/);
  });
});
