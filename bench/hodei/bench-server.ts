/** A real `hodei dev` in a process of its own, for the rows that measure Hodei itself. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { Agent } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { eventually } from "../../src/base/eventually.ts";
import { JobService, type Job } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../../src/protocol/gen/hodei/v1/logs_pb.ts";

export interface BenchServer {
  jobs: Client<typeof JobService>;
  logs: Client<typeof LogService>;
  dataDirectory: string;
  pid: number;
  stop(): Promise<void>;
}

export const program = join(process.cwd(), "bin", "hodei.js");

export async function makeDataDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "hodei-bench-"));
  // As root, PostgreSQL runs as another user and must get through.
  await chmod(directory, 0o755);
  return directory;
}

export async function startBenchServer(args: readonly string[]): Promise<BenchServer> {
  const dataDirectory = await makeDataDirectory();
  const child = spawn(process.execPath, [program, "dev", "--http-port", "0", "--grpc-port", "0", ...args], {
    env: { ...process.env, HODEI_DATA_DIR: dataDirectory },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const server = await eventually(
    async () => {
      const text = await readFile(join(dataDirectory, "server.json"), "utf8").catch(() => null);
      return text === null ? null : (JSON.parse(text) as { url: string });
    },
    { timeoutMs: 30_000, what: "the start of hodei dev" },
  );
  const token = await readFile(join(dataDirectory, "api-token"), "utf8");
  const agent = new Agent({ keepAlive: true });
  const transport = createConnectTransport({
    baseUrl: server.url,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token.trim()}`);
        return next(request);
      },
    ],
  });
  return {
    jobs: createClient(JobService, transport),
    logs: createClient(LogService, transport),
    dataDirectory,
    pid: child.pid ?? 0,
    async stop() {
      agent.destroy();
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "exit");
      await rm(dataDirectory, { recursive: true, force: true });
    },
  };
}

/** Runs a command to its end and returns the job. */
export async function runJob(server: BenchServer, cmd: string, ...args: string[]): Promise<Job> {
  const command = { commandType: { case: "shell" as const, value: { cmd, args } } };
  const { jobId } = await server.jobs.queueJob({ definition: { name: "bench", command } });
  return untilFinal(server, jobId);
}

export async function untilFinal(server: BenchServer, jobId: string): Promise<Job> {
  let last: Job | undefined;
  for await (const { job } of server.jobs.watchJob({ jobId })) last = job;
  if (!last) throw new Error(`watch job ${jobId}: nothing came`);
  return last;
}
