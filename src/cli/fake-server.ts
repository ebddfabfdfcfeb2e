/**
 * The far end of the command line in its tests: a real HTTP server whose services do what a test
 * says. And a command line in this process, with streams that a test can read.
 */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { PassThrough, Writable } from "node:stream";
import { Code, ConnectError, type ConnectRouter, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { JobService } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { PoolService } from "../protocol/gen/hodei/v1/pools_pb.ts";
import { SchedulerService } from "../protocol/gen/hodei/v1/scheduling_pb.ts";
import { ServerService } from "../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { runCli } from "./cli.ts";
import type { CliEnvironment, Interruption } from "./environment.ts";

export const TOKEN = "test-token";

export interface FakeServices {
  jobs?: Partial<ServiceImpl<typeof JobService>>;
  logs?: Partial<ServiceImpl<typeof LogService>>;
  workers?: Partial<ServiceImpl<typeof WorkerService>>;
  pools?: Partial<ServiceImpl<typeof PoolService>>;
  scheduler?: Partial<ServiceImpl<typeof SchedulerService>>;
  server?: Partial<ServiceImpl<typeof ServerService>>;
}

export interface FakeServer {
  url: string;
  close(): Promise<void>;
}

/** On a free port unless one is given: a server that comes back has that of the one before. */
export async function startFakeServer(services: FakeServices, port = 0): Promise<FakeServer> {
  const routes = (router: ConnectRouter): void => {
    router.service(JobService, services.jobs ?? {});
    router.service(LogService, services.logs ?? {});
    router.service(WorkerService, services.workers ?? {});
    router.service(PoolService, services.pools ?? {});
    router.service(SchedulerService, services.scheduler ?? {});
    router.service(ServerService, services.server ?? {});
  };
  const handler = connectNodeAdapter({
    routes,
    interceptors: [
      (next) => (request) => {
        if (request.header.get("authorization") !== `Bearer ${TOKEN}`)
          throw new ConnectError("no valid token", Code.Unauthenticated);
        return next(request);
      },
    ],
  });
  const server = createServer((request, response) => {
    if (request.url === "/healthz") response.end("ok");
    else handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Keeps what was written, and takes as long for each write as a test wants. */
export class CollectingStream extends Writable {
  readonly chunks: Buffer[] = [];
  delayMs = 0;
  /** The most bytes that ever waited here. */
  peakWaiting = 0;

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.peakWaiting = Math.max(this.peakWaiting, this.writableLength);
    this.chunks.push(Buffer.from(chunk));
    if (this.delayMs > 0) systemClock.schedule(this.delayMs, done);
    else done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.bytes.toString("utf8");
  }
}

export interface CliRun {
  exitCode: number;
  stdout: CollectingStream;
  stderr: CollectingStream;
}

export interface StartedCli {
  result: Promise<CliRun>;
  stdout: CollectingStream;
  stderr: CollectingStream;
  stdin: PassThrough;
  interrupt(signal: Interruption): void;
}

export interface CliOptions extends Partial<
  Pick<CliEnvironment, "isTty" | "cwd" | "startEmbeddedServer" | "processCommands">
> {
  url?: string;
  variables?: Record<string, string>;
  stdin?: string | Uint8Array;
  delayMs?: number;
}

export function startCli(argv: string[], options: CliOptions = {}): StartedCli {
  const stdout = new CollectingStream();
  const stderr = new CollectingStream();
  stdout.delayMs = options.delayMs ?? 0;
  const stdin = new PassThrough();
  if (options.stdin !== undefined) stdin.end(options.stdin);
  const listeners = new Set<(signal: Interruption) => void>();
  const server: Record<string, string> =
    options.url === undefined ? {} : { HODEI_SERVER: options.url, HODEI_API_TOKEN: TOKEN };
  const environment: CliEnvironment = {
    stdout,
    stderr,
    stdin,
    isTty: options.isTty ?? { stdin: false, stdout: false, stderr: false },
    variables: { HODEI_DATA_DIR: "/nonexistent/hodei", ...server, ...options.variables },
    cwd: options.cwd ?? "/",
    uid: 1000,
    clock: systemClock,
    random: systemRandom,
    version: "1.2.3",
    onInterruption: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    startEmbeddedServer:
      options.startEmbeddedServer ?? (() => Promise.reject(new Error("no embedded server in this test"))),
    processCommands: options.processCommands ?? [],
  };
  const result = runCli(argv, environment).then((exitCode) => ({ exitCode, stdout, stderr }));
  return {
    result,
    stdout,
    stderr,
    stdin,
    interrupt: (signal) => listeners.forEach((listener) => listener(signal)),
  };
}

export async function cli(argv: string[], options: CliOptions = {}): Promise<CliRun> {
  return await startCli(argv, options).result;
}
