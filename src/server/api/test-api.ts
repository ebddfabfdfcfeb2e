/** The public API on real ports over the memory store, for tests. */

import type { TestContext } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import {
  createClient,
  type Client,
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
import { systemClock, type Clock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import type { Worker } from "../../core/worker.ts";
import { JobService } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../../protocol/gen/hodei/v1/logs_pb.ts";
import { PoolService } from "../../protocol/gen/hodei/v1/pools_pb.ts";
import { SchedulerService } from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import type { NewJob, Store } from "../../storage/store.ts";
import { createTokenGuard } from "../auth/rpc-guard.ts";
import { errorInterceptor } from "../http/error-interceptor.ts";
import { startGrpcServer } from "../http/grpc-server.ts";
import { databaseHealth } from "../http/health-report.ts";
import { startHttpServer } from "../http/http-server.ts";
import { validationInterceptor } from "../http/validation.ts";
import { JobBus } from "../job-bus.ts";
import { WorkerConnections } from "../workers/worker-connections.ts";
import { FakePools } from "./fake-pools.ts";
import { FakeScheduler } from "./fake-scheduler.ts";
import { jobsApi } from "./jobs.ts";
import { logsApi, type LogReader } from "./logs.ts";
import { poolsApi } from "./pools.ts";
import { schedulingApi, type StartTimePart } from "./scheduling.ts";
import { serverApi } from "./server.ts";
import { Submissions } from "./submissions.ts";
import { workersApi } from "./workers.ts";

export const TEST_TOKEN = "a-token-of-the-test";
export const TEST_WORKER_PORT = 19_090;

export interface TestApiOptions {
  logs?: (store: Store) => Promise<LogReader>;
  clock?: Clock;
  startTimes?: StartTimePart[];
}

const noLogs: Pick<LogReader, "read"> = { async *read() {} };

const withToken: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${TEST_TOKEN}`);
  return next(request);
};

export async function startTestApi(t: TestContext, options: TestApiOptions = {}) {
  const parts = await openParts(options);
  const { store, events } = parts;
  const servers = {
    host: "127.0.0.1",
    port: 0,
    routes: parts.routes,
    interceptors: [errorInterceptor({ log: silentLogger, random: systemRandom }), validationInterceptor()],
    auth: createTokenGuard({ token: TEST_TOKEN }),
    log: silentLogger,
    clock: systemClock,
    health: databaseHealth({ store, clock: systemClock }),
    drainMs: 1_000,
  };
  const web = await startHttpServer(servers);
  const grpc = await startGrpcServer(servers);
  const sessionManager = new Http2SessionManager(`http://127.0.0.1:${grpc.port}`);
  t.after(async () => {
    sessionManager.abort();
    await Promise.all([web.stop(), grpc.stop()]);
  });
  const interceptors = [withToken];
  const http1 = { baseUrl: web.url, httpVersion: "1.1", interceptors } as const;
  const transports: Record<string, Transport> = {
    Connect: createConnectTransport(http1),
    "gRPC-Web": createGrpcWebTransport(http1),
    gRPC: createGrpcTransport({ baseUrl: `http://127.0.0.1:${grpc.port}`, sessionManager, interceptors }),
  };
  return {
    ...parts,
    web,
    grpc,
    /** A client over one of the protocols; plain Connect if none is named. */
    client<S extends DescService>(service: S, protocol = "Connect"): Client<S> {
      return createClient(service, transports[protocol] as Transport);
    },
    protocols: Object.keys(transports),
    newId: () => uuidV7(systemClock, systemRandom),
    /** Applies an input as the server does: stored first, then published. Fails if it is refused. */
    async apply(jobId: string, input: JobInput): Promise<Job> {
      const applied = await store.applyInput({ jobId, input, nowMs: systemClock.nowMs() });
      if (!applied.ok) throw new Error(`${input.type} was refused: ${applied.refusal}`);
      events.publish(applied.job);
      return applied.job;
    },
  };
}

/** What the API stands on, and what it told the rest of the server. */
async function openParts(options: TestApiOptions) {
  const store = createMemoryStore({ random: systemRandom });
  const queued: NewJob[] = [];
  const wanted: Job[] = [];
  const drained: string[] = [];
  const cordoned: string[] = [];
  const removed: { worker: Worker; reason: string }[] = [];
  const scheduler = new FakeScheduler(store);
  const pools = new FakePools();
  const logs = await options.logs?.(store);
  const base = {
    store,
    clock: options.clock ?? systemClock,
    random: systemRandom,
    scheduler,
    onQueued: (jobs: NewJob[]) => queued.push(...jobs),
  };
  const deps = {
    ...base,
    events: new JobBus(),
    logs: logs ?? noLogs,
    submissions: new Submissions(base),
    onWanted: (job: Job) => wanted.push(job),
    onDrained: (workerId: string) => drained.push(workerId),
    onCordoned: async (workerId: string) => void cordoned.push(workerId),
    removeWorker: (workerId: string, reason: string) => pools.removeWorker(workerId, reason),
    removeStatic: async (worker: Worker, reason: string) => {
      removed.push({ worker, reason });
      await store.changeWorker({ workerId: worker.id, state: "terminated", message: reason });
    },
    workerPort: { port: TEST_WORKER_PORT },
    connections: new WorkerConnections(() => null),
    startTimes: () => options.startTimes ?? [],
  };
  const routes = (router: ConnectRouter): void => {
    router.service(JobService, jobsApi(deps));
    router.service(WorkerService, workersApi(deps));
    router.service(SchedulerService, schedulingApi(deps));
    router.service(PoolService, poolsApi({ pools }));
    router.service(ServerService, serverApi({ store, version: "1.2.3", instanceId: "i-1" }));
    if (logs) router.service(LogService, logsApi({ ...deps, logs }));
  };
  const { events } = deps;
  return { store, events, scheduler, pools, queued, wanted, drained, cordoned, removed, routes };
}
