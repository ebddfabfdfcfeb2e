/** The public API of a cluster, for callers that outlast its server. */

import { Agent } from "node:http";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { systemClock } from "../src/base/clock.ts";
import { JobService, JobState, type Job } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService, LogStream } from "../src/protocol/gen/hodei/v1/logs_pb.ts";
import { WorkerService } from "../src/protocol/gen/hodei/v1/workers_pb.ts";

export interface ClusterClient {
  jobs: Client<typeof JobService>;
  logs: Client<typeof LogService>;
  workers: Client<typeof WorkerService>;
  close(): void;
}

/** A call to a server that was stopped with SIGSTOP would hang for ever without this. */
const CALL_TIMEOUT_MS = 10_000;

export function openClient(server: { url: string; token: string }): ClusterClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 });
  const transport = createConnectTransport({
    baseUrl: server.url,
    httpVersion: "1.1",
    nodeOptions: { agent },
    defaultTimeoutMs: CALL_TIMEOUT_MS,
    acceptCompression: [],
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${server.token}`);
        return next(request);
      },
    ],
  });
  return {
    jobs: createClient(JobService, transport),
    logs: createClient(LogService, transport),
    workers: createClient(WorkerService, transport),
    close: () => agent.destroy(),
  };
}

/** What a server says no to, however often it is asked. Anything else is worth another try. */
const REFUSALS: readonly Code[] = [
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.Unimplemented,
  Code.Unauthenticated,
];
const RETRY_DELAY_MS = 250;

/** Repeats a call until the server answers it, with an answer or with a refusal. */
export async function persist<T>(
  call: () => Promise<T>,
  options: { timeoutMs: number; onRetry?: (error: ConnectError) => void },
): Promise<T> {
  const endMs = systemClock.monotonicMs() + options.timeoutMs;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const failure = ConnectError.from(error);
      if (REFUSALS.includes(failure.code) || systemClock.monotonicMs() > endMs) throw failure;
      options.onRetry?.(failure);
      await systemClock.sleep(RETRY_DELAY_MS);
    }
  }
}

export const FINAL_STATES: readonly JobState[] = [
  JobState.SUCCEEDED,
  JobState.FAILED,
  JobState.CANCELLED,
  JobState.TIMED_OUT,
];

const WATCH_INTERVAL_MS = 250;

/** Waits for the end of a job, whatever happens to the server meanwhile. */
export async function untilFinal(client: ClusterClient, jobId: string, timeoutMs: number): Promise<Job> {
  const endMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    const { job } = await persist(() => client.jobs.getJob({ jobId }), { timeoutMs });
    if (job && FINAL_STATES.includes(job.state)) return job;
    if (systemClock.monotonicMs() > endMs) {
      throw new Error(`job ${jobId} is ${job ? JobState[job.state] : "gone"} after ${timeoutMs} ms`);
    }
    await systemClock.sleep(WATCH_INTERVAL_MS);
  }
}

/** A whole log, by stream. */
export interface AttemptLog {
  stdout: Buffer;
  stderr: Buffer;
  /** What Hodei itself says. */
  system: string;
  /** Nothing will be added. */
  isComplete: boolean;
}

const READ_TIMEOUT_MS = 120_000;

/** Reads what the server has of the log of one attempt. */
export async function readLog(client: ClusterClient, jobId: string, attempt: number): Promise<AttemptLog> {
  const pieces = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[], system: [] as Uint8Array[] };
  let isComplete = false;
  for await (const answer of client.logs.readLog({ jobId, attempt }, { timeoutMs: READ_TIMEOUT_MS })) {
    for (const { stream, data } of answer.entries) {
      if (stream === LogStream.STDOUT) pieces.stdout.push(data);
      else if (stream === LogStream.STDERR) pieces.stderr.push(data);
      else pieces.system.push(data);
    }
    isComplete = answer.complete;
  }
  return {
    stdout: Buffer.concat(pieces.stdout),
    stderr: Buffer.concat(pieces.stderr),
    system: Buffer.concat(pieces.system).toString(),
    isComplete,
  };
}
