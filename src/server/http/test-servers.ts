/** Both servers around a small application, for tests. */

import assert from "node:assert/strict";
import * as http from "node:http";
import type { TestContext } from "node:test";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { systemClock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { silentLogger, type Logger } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { JobService, type QueueJobRequest } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createTokenGuard } from "../auth/rpc-guard.ts";
import { errorInterceptor } from "./error-interceptor.ts";
import { startGrpcServer } from "./grpc-server.ts";
import type { HealthReport } from "./health-report.ts";
import { startHttpServer } from "./http-server.ts";
import { validationInterceptor } from "./validation.ts";

export const TOKEN = "a-token-of-the-test";
export const SCRIPT = { commandType: { case: "script" as const, value: { content: "true" } } };

/** Both servers around a small application, and what it saw. */
export async function setup(t: TestContext, options: { drainMs?: number } = {}) {
  const seen: QueueJobRequest[] = [];
  const logged: { fields: Record<string, unknown>; message: string }[] = [];
  const log = {
    ...silentLogger,
    error: (fields: Record<string, unknown>, message: string) => logged.push({ fields, message }),
  } as unknown as Logger;
  const health: { report: HealthReport } = { report: { ready: true, problems: [] } };
  const streams = { open: 0 };
  const common = {
    host: "127.0.0.1",
    port: 0,
    routes: application({ seen, streams }),
    interceptors: [errorInterceptor({ log, random: systemRandom }), validationInterceptor()],
    auth: createTokenGuard({ token: TOKEN }),
    log,
    clock: systemClock,
    health: () => health.report,
    drainMs: options.drainMs ?? 1_000,
  };
  const web = await startHttpServer(common);
  const grpc = await startGrpcServer(common);
  const sessions = new Http2SessionManager(`http://127.0.0.1:${grpc.port}`);
  t.after(async () => {
    sessions.abort();
    await Promise.all([web.stop(), grpc.stop()]);
  });
  const grpcUrl = `http://127.0.0.1:${grpc.port}`;
  const transports = (token: string | null): Record<string, Transport> => {
    const interceptors = token === null ? [] : [sendToken(token)];
    const http1 = { baseUrl: web.url, httpVersion: "1.1", interceptors } as const;
    return {
      Connect: createConnectTransport(http1),
      "Connect with JSON": createConnectTransport({ ...http1, useBinaryFormat: false }),
      "gRPC-Web": createGrpcWebTransport(http1),
      gRPC: createGrpcTransport({ baseUrl: grpcUrl, sessionManager: sessions, interceptors }),
    };
  };
  return { web, grpc, grpcUrl, sessions, transports, seen, logged, health, streams };
}

/** Jobs whose id is `dead` meet a fault of the server. */
function application(state: { seen: QueueJobRequest[]; streams: { open: number } }) {
  const { seen, streams } = state;
  return (router: ConnectRouter): void => {
    router.service(JobService, {
      queueJob(request) {
        seen.push(request);
        return { jobId: `job-${seen.length}` };
      },
      queueJobs: (request) => ({ jobIds: request.jobs.map((_, index) => String(index)) }),
      getJob({ jobId }) {
        if (jobId === "dead") throw new TypeError("secret-detail");
        throw new AppError("not_found", `job ${jobId} not found`);
      },
      async *watchJob({ jobId }, { signal }) {
        streams.open += 1;
        try {
          yield {};
          if (jobId === "dead") throw new TypeError("secret-detail");
          await systemClock.sleep(60_000, signal);
        } finally {
          streams.open -= 1;
        }
      },
    });
    router.service(ServerService, { getServerInfo: () => ({ version: "1.2.3" }) });
    router.service(WorkerService, {
      async *workerStream(messages) {
        for await (const _ of messages) yield {};
      },
      register() {
        throw new AppError("unauthenticated", "unknown worker token");
      },
    });
  };
}

function sendToken(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

export function post(
  url: string,
  options: { body: string | Uint8Array; headers?: Record<string, string> },
): Promise<Response> {
  return fetch(url, {
    method: "POST",
    body: options.body,
    headers: { "content-type": "application/json", authorization: `Bearer ${TOKEN}`, ...options.headers },
  });
}

/** A request whose head is exactly what the test wants: fetch would correct it. */
export function rawRequest(port: number, options: { path: string; headers?: Record<string, string> }) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const request = http.get({ port, host: "127.0.0.1", agent: false, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    request.on("error", reject);
  });
}

export async function codeOf(call: Promise<unknown>): Promise<Code> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error.code;
  }
  return assert.fail("the call should have failed");
}
