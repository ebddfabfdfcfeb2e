/** How fast jobs are taken in, started and run. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { systemClock } from "../../src/base/clock.ts";
import { eventually } from "../../src/base/eventually.ts";
import { JobState } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { callsPerSecond, durationMs, medianOf, percentile, type BenchRow } from "../bench-row.ts";
import { echoCallsPerSecond } from "../raw-limits/echo.ts";
import { rowsPerSecond } from "../raw-limits/postgres.ts";
import { spawnLatencyMs, spawnsPerSecond } from "../raw-limits/spawn.ts";
import { runJob, startBenchServer, untilFinal, type BenchServer } from "./bench-server.ts";

const NO_OP = {
  name: "no-op",
  command: { commandType: { case: "shell" as const, value: { cmd: "bash", args: ["-c", ":"] } } },
};
const UNFINISHED = [
  JobState.PENDING,
  JobState.SCHEDULED,
  JobState.RUNNING,
  JobState.UNREACHABLE,
  JobState.CANCELLING,
];

const STARTS = 200;

export const startLatencyMedian: BenchRow = startLatency("p50", 0.5, "≤ 8 ms");
export const startLatencyTail: BenchRow = startLatency("p99", 0.99, "≤ 30 ms");

function startLatency(label: string, part: number, target: string): BenchRow {
  return {
    name: `submit → process started, idle worker, ${label}`,
    target,
    rawName: `spawn of bash, ${label}`,
    async run() {
      const server = await startBenchServer([]);
      try {
        await runJob(server, "true");
        const latencies: number[] = [];
        for (let index = 0; index < STARTS; index += 1) latencies.push(await startLatencyMs(server));
        return { value: percentile(latencies, part), raw: await spawnLatencyMs(part), unit: "ms" };
      } finally {
        await server.stop();
      }
    },
  };
}

/** How long a started job is left alone: looking at it would slow down what is measured. */
const UNWATCHED_MS = 50;

/** From before the call to the time at which the runner saw its process begin; one clock. */
async function startLatencyMs(server: BenchServer): Promise<number> {
  const submittedAtMs = systemClock.nowMs();
  const { jobId } = await server.jobs.queueJob({ definition: NO_OP });
  await systemClock.sleep(UNWATCHED_MS);
  const { startedAt } = await untilFinal(server, jobId);
  if (!startedAt) throw new Error(`job ${jobId} did not start`);
  return timestampMs(startedAt) - submittedAtMs;
}

const NO_OP_JOBS = 3_000;

export const noOpJobs: BenchRow = {
  name: "no-op shell jobs end to end, one worker, 16 at a time",
  target: "≥ 400 jobs/s",
  rawName: "bare loop of spawns of bash, 16 at a time",
  async run() {
    const server = await startBenchServer(["--worker-jobs", "16"]);
    try {
      await runJob(server, "true");
      const value = await medianOf(3, async () => {
        const jobs = Array.from({ length: NO_OP_JOBS / 3 }, () => ({ definition: NO_OP }));
        const tookMs = await durationMs(async () => {
          await server.jobs.queueJobs({ jobs });
          await eventually(() => isAllDone(server), { timeoutMs: 120_000, intervalMs: 25 });
        });
        return jobs.length / (tookMs / 1_000);
      });
      return { value, raw: await spawnsPerSecond({ atATime: 16 }), unit: "jobs/s" };
    } finally {
      await server.stop();
    }
  },
};

async function isAllDone(server: BenchServer): Promise<boolean> {
  const { jobs } = await server.jobs.listJobs({ states: UNFINISHED, pageSize: 1 });
  return jobs.length === 0;
}

export const unaryQueueJob: BenchRow = {
  name: "unary QueueJob, 64 callers",
  target: "≥ 0.7 ×",
  rawName: "Connect echo, 64 callers",
  async run() {
    const server = await startBenchServer(["--max-workers", "0"]);
    try {
      const call = (): Promise<unknown> => server.jobs.queueJob({ definition: NO_OP });
      await callsPerSecond({ callers: 64, durationMs: 1_000, call });
      const value = await medianOf(3, () => callsPerSecond({ callers: 64, durationMs: 2_000, call }));
      return { value, raw: await echoCallsPerSecond({ callers: 64 }), unit: "calls/s" };
    } finally {
      await server.stop();
    }
  },
};

const BATCH_JOBS = 1_000;
const BATCHES = 20;

export const batchedQueueJobs: BenchRow = {
  name: "QueueJobs in batches of 1,000",
  target: "≥ 20,000 jobs/s",
  rawName: "rows inserted 1,000 a statement",
  async run() {
    const server = await startBenchServer(["--max-workers", "0"]);
    const jobs = Array.from({ length: BATCH_JOBS }, () => ({ definition: NO_OP }));
    try {
      await server.jobs.queueJobs({ jobs });
      const value = await medianOf(3, async () => {
        const tookMs = await durationMs(async () => {
          for (let batch = 0; batch < BATCHES; batch += 2) {
            await Promise.all([server.jobs.queueJobs({ jobs }), server.jobs.queueJobs({ jobs })]);
          }
        });
        return (BATCHES * BATCH_JOBS) / (tookMs / 1_000);
      });
      return { value, raw: await rowsPerSecond({ rowsPerStatement: 1_000 }), unit: "jobs/s" };
    } finally {
      await server.stop();
    }
  },
};
