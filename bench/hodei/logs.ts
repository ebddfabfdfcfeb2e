/** How fast log bytes come from a job's pipe to the server's disk. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { JobState } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { medianOf, type BenchRow } from "../bench-row.ts";
import { streamMegabytesPerSecond } from "../raw-limits/stream.ts";
import { runJob, startBenchServer } from "./bench-server.ts";

const LOG_MEGABYTES = 400;

export const logBytes: BenchRow = {
  name: "log bytes, one job, pipe to acknowledged on disk",
  target: "≥ 0.6 ×",
  rawName: "Connect stream of 64 KiB messages",
  async run() {
    const server = await startBenchServer([]);
    try {
      await runJob(server, "true");
      const value = await medianOf(3, async () => {
        const script = `head -c ${LOG_MEGABYTES}000000 /dev/zero | tr '\\0' x`;
        const job = await runJob(server, "sh", "-c", script);
        if (job.state !== JobState.SUCCEEDED) throw new Error(`writer: ${job.message}`);
        const { events } = await server.jobs.getJobEvents({ jobId: job.id });
        // A job succeeds only when all of its log is on the server's disk.
        const endMs = timestampMs(events.find(({ type }) => type === "succeeded")?.time ?? job.finishedAt!);
        return LOG_MEGABYTES / ((endMs - timestampMs(job.startedAt!)) / 1_000);
      });
      return { value, raw: await streamMegabytesPerSecond(), unit: "MB/s" };
    } finally {
      await server.stop();
    }
  },
};
