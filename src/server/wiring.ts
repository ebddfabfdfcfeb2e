/**
 * A whole control plane in this process: store, log store, API, worker connections and loops, put
 * together here and nowhere else. Loaded by start-server.ts while the database starts.
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ConnectRouter } from "@connectrpc/connect";
import { apiTokenPath, serverFilePath, type ServerFile } from "../base/data-directory.ts";
import { Loop } from "../base/loop.ts";
import { uuidV7 } from "../base/random.ts";
import { stopAll, type Service } from "../base/service.ts";
import type { StartedServices } from "../base/started-services.ts";
import { isFinal, type Job } from "../core/job.ts";
import { providerName } from "../core/pool-change.ts";
import { JobService } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { ServerService } from "../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { openDirectoryBlobStore } from "../storage/directory-blob-store.ts";
import type { PostgresConnection } from "../storage/postgres/database.ts";
import { openPostgresStore } from "../storage/postgres/open-postgres-store.ts";
import type { Store } from "../storage/store.ts";
import { ActiveCalls } from "./active-calls.ts";
import { jobsApi } from "./api/jobs.ts";
import { logsApi } from "./api/logs.ts";
import { serverApi } from "./api/server.ts";
import { workersApi } from "./api/workers.ts";
import { loadOrCreateApiToken } from "./auth/api-token.ts";
import { createTokenGuard } from "./auth/rpc-guard.ts";
import { errorInterceptor } from "./http/error-interceptor.ts";
import { startGrpcServer, type GrpcServer } from "./http/grpc-server.ts";
import { databaseHealth } from "./http/health-report.ts";
import { startHttpServer } from "./http/http-server.ts";
import type { RpcServerOptions } from "./http/rpc-options.ts";
import { validationInterceptor } from "./http/validation.ts";
import { JobBus } from "./job-bus.ts";
import { dockerPool } from "./docker-pool.ts";
import { localPool } from "./local-pool.ts";
import { openLogStore, type LogStore } from "./logs/log-store.ts";
import { deadlineRound } from "./loops/deadlines.ts";
import { livenessRound } from "./loops/liveness.ts";
import { Scheduler } from "./loops/scheduling.ts";
import { makeProvider } from "./pools/make-provider.ts";
import { openPoolRegistry, type PoolRegistry } from "./pools/pool-registry.ts";
import { thisMachine } from "./pools/pool.ts";
import { PROVIDER_CHECK_PERIOD_MS } from "./pools/provider-checks.ts";
import { Provisioner } from "./pools/provisioner.ts";
import type { DatabaseServer, RunningServer, ServerOptions } from "./start-server.ts";
import { HeartbeatWriter } from "./workers/heartbeat-writer.ts";
import { linkApi } from "./workers/link-api.ts";
import { WorkerConnections } from "./workers/worker-connections.ts";

const SCHEDULING_PERIOD_MS = 1_000;
const PROVISIONING_PERIOD_MS = 2_000;
const DEADLINE_PERIOD_MS = 1_000;
const LIVENESS_PERIOD_MS = 5_000;
const SEALING_PERIOD_MS = 30_000;

/** Adds what it starts to `started`, so that the caller can stop it if a later part fails. */
export async function startControlPlane(
  options: ServerOptions,
  database: DatabaseServer,
  started: StartedServices,
): Promise<RunningServer> {
  const { dataDirectory, clock, random, log } = options;
  const parts = await openParts(options, database.connection, started);
  const { store, connections } = parts;
  const rpc: Omit<RpcServerOptions, "port"> = {
    host: options.host,
    routes: (router) => addRoutes(router, options, parts),
    interceptors: [parts.calls.interceptor, errorInterceptor({ log, random }), validationInterceptor()],
    auth: createTokenGuard({ token: parts.apiToken }),
    log,
    clock,
    health: databaseHealth({ store, clock, problem: () => database.problem() }),
  };

  const grpc = await startWorkerPort(dataDirectory, { ...rpc, port: options.grpcPort });
  started.add("worker port", grpc);
  const grpcUrl = `http://${hostInUrl(options.host)}:${grpc.port}`;
  if (!options.readOnly) {
    const provisioner = new Provisioner({
      ...parts,
      clock,
      random,
      log,
      serverUrl: () => grpcUrl,
    });
    await provisioner.adopt();
    if (options.expectsJob) makeFirstWorker(provisioner);
    const loops = startLoops(options, parts, provisioner);
    // Workers that shall end are not told to look for another server first.
    started.add("worker connections", connections);
    started.add("workers", { stop: () => endWorkers(options, provisioner, parts.pools) });
    started.add("background loops", loops);
  }
  const http = await startHttpServer({ ...rpc, port: options.httpPort });
  const announcement = await announce(dataDirectory, {
    url: http.url,
    pid: process.pid,
    instanceId: parts.instanceId,
    readOnly: options.readOnly,
  });
  started.add("HTTP port", http);
  started.add("announcement", announcement);

  return {
    url: http.url,
    grpcUrl,
    apiToken: parts.apiToken,
    databaseVersion: await store.version(),
    hide: () => announcement.stop(),
    idle: () => parts.calls.idle(),
    stopsNow: () => started.stopsNow,
    stop: () => started.stop(),
  };
}

/** What API, worker connections and loops share. */
interface Parts {
  apiToken: string;
  instanceId: string;
  store: Store;
  logs: LogStore;
  heartbeats: HeartbeatWriter;
  jobs: JobBus;
  calls: ActiveCalls;
  pools: PoolRegistry;
  connections: WorkerConnections;
  /** Wake-ups of the loops; they do nothing while no loop runs. */
  hints: { scheduling(): void; provisioning(): void; sealing(): void };
  onJobChanged(job: Job): void;
  onRoom(): void;
  onIdle(): void;
}

async function openParts(
  options: ServerOptions,
  connection: PostgresConnection,
  started: StartedServices,
): Promise<Parts> {
  const { dataDirectory, clock, random, log } = options;
  const apiToken = await loadOrCreateApiToken(apiTokenPath(dataDirectory), random);
  const store = await openPostgresStore({ connection, clock, random, log });
  started.add("store", { stop: () => store.close() });
  const logs = await openLogStore({
    directory: join(dataDirectory, "logs"),
    blobs: openDirectoryBlobStore(join(dataDirectory, "blobs")),
    store,
    clock,
    log,
  });
  const heartbeats = new HeartbeatWriter({ store, clock, log });
  started.add("heartbeats", heartbeats);
  started.add("logs", logs);
  const pools = await openPools(options, store);
  const jobs = new JobBus();
  const nothing = (): void => {};
  const hints = { scheduling: nothing, provisioning: nothing, sealing: nothing };
  return {
    apiToken,
    instanceId: uuidV7(clock, random),
    store,
    logs,
    heartbeats,
    jobs,
    calls: new ActiveCalls(),
    pools,
    connections: new WorkerConnections((name) => pools.get(name)?.definition ?? null),
    hints,
    onJobChanged(job) {
      jobs.publish(job);
      if (isFinal(job.state) || job.state === "pending") hints.scheduling();
      // A worker that was lost will not finish its log: followers wait for the seal.
      const mayBeLost = job.cause === "worker_lost" || (job.state === "pending" && job.attemptCount > 0);
      if (mayBeLost) hints.sealing();
    },
    onRoom: () => hints.scheduling(),
    onIdle: () => hints.provisioning(),
  };
}

/** Those of the settings, and those that people have applied. */
function openPools(options: ServerOptions, store: Store): Promise<PoolRegistry> {
  const { docker, dockerEngine, localWorkers } = options;
  const { host: dockerHost, tlsDirectory: dockerTlsDirectory, allowedMounts } = dockerEngine;
  const context = { ...options, dockerHost, dockerTlsDirectory };
  return openPoolRegistry({
    ...options,
    store,
    settingsPools: [localPool(localWorkers), ...(docker === null ? [] : [dockerPool(docker)])],
    makeProvider: (definition) => makeProvider(definition, context),
    nameProvider: (provider) => providerName(provider, { dockerHost }),
    machine: thisMachine(),
    allowedMounts,
  });
}

function addRoutes(router: ConnectRouter, options: ServerOptions, parts: Parts): void {
  const { clock, random, log } = options;
  const {
    store,
    logs,
    heartbeats,
    jobs: events,
    connections,
    onJobChanged,
    onRoom,
    onIdle,
    instanceId,
  } = parts;
  const onQueued = (): void => parts.hints.scheduling();
  const onWanted = (job: Job): void => {
    connections.jobSeen(job);
    onJobChanged(job);
  };
  const onDrained = (workerId: string, reason: string): void => {
    connections.get(workerId)?.drain(reason);
    onIdle();
  };
  const link = linkApi({
    store,
    logs,
    heartbeats,
    clock,
    random,
    log,
    connections,
    onJobChanged,
    onRoom,
    onIdle,
  });
  router.service(JobService, jobsApi({ store, clock, random, events, onQueued, onWanted }));
  router.service(LogService, logsApi({ store, logs, events, clock }));
  router.service(WorkerService, { ...workersApi({ store, onDrained }), ...link });
  router.service(ServerService, serverApi({ store, version: options.version, instanceId }));
}

/**
 * Workers that outlived the server before this one dial the port they know, so "a free one" is the
 * same as last time where that can be had.
 */
async function startWorkerPort(dataDirectory: string, rpc: RpcServerOptions): Promise<GrpcServer> {
  const path = join(dataDirectory, "worker-port");
  const last = rpc.port === 0 ? await readFile(path, "utf8").then(Number, () => 0) : 0;
  if (last > 0) {
    try {
      return await startGrpcServer({ ...rpc, port: last });
    } catch (error) {
      rpc.log.info({ err: error, port: last }, "the last worker port is taken");
    }
  }
  const server = await startGrpcServer(rpc);
  await writeFile(path, String(server.port));
  return server;
}

function startLoops(options: ServerOptions, parts: Parts, provisioner: Provisioner): Service {
  const { clock, random, log } = options;
  const { store, logs, connections, hints, onJobChanged } = parts;
  const deps = { store, connections, clock, random, log, onJobChanged };
  const loop = (name: string, periodMs: number, run: (signal: AbortSignal) => Promise<void>): Loop =>
    new Loop({ name, periodMs, run, clock, log });

  const provisioning = loop("provisioning", PROVISIONING_PERIOD_MS, () => provisioner.round());
  const health = loop("provider health", PROVIDER_CHECK_PERIOD_MS, () => provisioner.checkAllProviders());
  const scheduler = new Scheduler({ ...deps, provisioner, hint: () => hints.scheduling() });
  const scheduling = loop("scheduling", SCHEDULING_PERIOD_MS, (signal) => scheduler.round(signal));
  const sealing = loop("sealing", SEALING_PERIOD_MS, () => logs.sealEnded());
  const deadlines = loop("deadlines", DEADLINE_PERIOD_MS, () => deadlineRound(deps));
  const liveness = loop("liveness", LIVENESS_PERIOD_MS, () => livenessRound(deps));
  hints.scheduling = () => scheduling.hint();
  hints.provisioning = () => provisioning.hint();
  hints.sealing = () => sealing.hint();
  return { stop: () => stopAll([scheduling, scheduler, provisioning, health, sealing, deadlines, liveness]) };
}

/**
 * The worker of the first job starts while the rest of the server does. One that turns out not to
 * fit leaves with the server.
 */
function makeFirstWorker(provisioner: Provisioner): void {
  const [pool] = provisioner.plannedPools();
  if (pool && pool.room > 0 && pool.arriving === 0) provisioner.provision([{ pool: pool.name, count: 1 }]);
}

async function endWorkers(
  options: ServerOptions,
  provisioner: Provisioner,
  pools: PoolRegistry,
): Promise<void> {
  const { endWorkersOnStop } = options;
  if (endWorkersOnStop === "none") provisioner.stopListening();
  else await provisioner.destroyWorkers(endWorkersOnStop);
  // An agent that dies from here on is the next server's to start again.
  await pools.stop();
}

/** Leaves word for the command line on this machine. Removed once: the next word is another server's. */
async function announce(dataDirectory: string, server: ServerFile): Promise<Service> {
  const path = serverFilePath(dataDirectory);
  await mkdir(dataDirectory, { recursive: true });
  await writeFile(`${path}.new`, JSON.stringify(server), { mode: 0o600 });
  await rename(`${path}.new`, path);
  let removed: Promise<void> | null = null;
  return { stop: () => (removed ??= rm(path, { force: true })) };
}

function hostInUrl(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
