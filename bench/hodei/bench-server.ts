/** A real `hodei dev` in a process of its own, for the rows that measure Hodei itself. */

import { spawn, type ChildProcess } from "node:child_process";
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
  /** Of the running process; another one after a restart. */
  pid: number;
  /** Where workers dial. */
  workerUrl(): Promise<string>;
  /** The private PostgreSQL, for what the API does not offer. */
  databaseConnection: { host: string; port: number; user: string; database: string };
  /** Ends the process with SIGKILL and starts another one on the same data and ports. */
  killAndRestart(): Promise<void>;
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
  let running = await startProcess(dataDirectory, ["--http-port", "0", ...args]);
  const token = await readFile(join(dataDirectory, "api-token"), "utf8");
  const agent = new Agent({ keepAlive: true });
  const transport = createConnectTransport({
    baseUrl: running.url,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token.trim()}`);
        return next(request);
      },
    ],
  });
  const server: BenchServer = {
    jobs: createClient(JobService, transport),
    logs: createClient(LogService, transport),
    dataDirectory,
    pid: running.child.pid ?? 0,
    databaseConnection: {
      host: join(dataDirectory, "postgres", "run"),
      port: 5432,
      user: "hodei",
      database: "postgres",
    },
    async workerUrl() {
      return `http://127.0.0.1:${await readFile(join(dataDirectory, "worker-port"), "utf8")}`;
    },
    async killAndRestart() {
      await end(running.child, "SIGKILL");
      running = await startProcess(dataDirectory, ["--http-port", new URL(running.url).port, ...args]);
      server.pid = running.child.pid ?? 0;
    },
    async stop() {
      agent.destroy();
      await end(running.child, "SIGTERM");
      await rm(dataDirectory, { recursive: true, force: true });
    },
  };
  return server;
}

interface RunningProcess {
  child: ChildProcess;
  url: string;
}

async function startProcess(dataDirectory: string, args: readonly string[]): Promise<RunningProcess> {
  const child = spawn(process.execPath, [program, "dev", "--grpc-port", "0", ...args], {
    env: { ...process.env, HODEI_DATA_DIR: dataDirectory },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const { url } = await eventually(
    async () => {
      const text = await readFile(join(dataDirectory, "server.json"), "utf8").catch(() => null);
      const server = text === null ? null : (JSON.parse(text) as { url: string; pid: number });
      return server?.pid === child.pid ? server : null;
    },
    { timeoutMs: 30_000, what: "the start of hodei dev" },
  );
  return { child, url };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
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
