/**
 * A whole control plane in this process: store, log store, API, worker connections and loops, put
 * together here and nowhere else. Loaded by start-server.ts while the database starts.
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { serverFilePath, type ServerFile } from "../base/data-directory.ts";
import type { Service } from "../base/service.ts";
import type { StartedServices } from "../base/started-services.ts";
import { createTokenGuard } from "./auth/rpc-guard.ts";
import { startBackgroundLoops } from "./background-loops.ts";
import { errorInterceptor } from "./http/error-interceptor.ts";
import { startGrpcServer, type GrpcServer } from "./http/grpc-server.ts";
import { databaseHealth } from "./http/health-report.ts";
import { startHttpServer } from "./http/http-server.ts";
import type { RpcServerOptions } from "./http/rpc-options.ts";
import { validationInterceptor } from "./http/validation.ts";
import { metricsPage } from "./metrics/metrics-page.ts";
import { openParts, type Parts } from "./parts.ts";
import type { Provisioner } from "./pools/provisioner.ts";
import { routesOf } from "./routes.ts";
import type { DatabaseServer, RunningServer, ServerOptions } from "./start-server.ts";

/** Adds what it starts to `started`, so that the caller can stop it if a later part fails. */
export async function startControlPlane(
  options: ServerOptions,
  database: DatabaseServer,
  started: StartedServices,
): Promise<RunningServer> {
  const { dataDirectory, clock, random, log } = options;
  const parts = await openParts(options, database.connection, started);
  const { store, connections, provisioner, scheduling } = parts;
  const health = databaseHealth({ store, clock, problem: () => database.problem() });
  const rpc: Omit<RpcServerOptions, "port"> = {
    host: options.host,
    routes: routesOf(options, parts),
    interceptors: [parts.calls.interceptor, errorInterceptor({ log, random }), validationInterceptor()],
    auth: createTokenGuard({ token: parts.apiToken }),
    log,
    clock,
    health,
    metrics: metricsOf(options, parts, health),
  };

  await scheduling.load();
  const grpc = await startWorkerPort(dataDirectory, { ...rpc, port: options.grpcPort });
  started.add("worker port", grpc);
  const grpcUrl = `http://${hostInUrl(options.host)}:${grpc.port}`;
  parts.workerPort.url = grpcUrl;
  parts.workerPort.port = grpc.port;
  if (options.readOnly) {
    started.add("providers", parts.registry);
  } else {
    await provisioner.adopt();
    if (options.expectsJob) makeFirstWorker(provisioner);
    const loops = startBackgroundLoops(options, parts);
    // Workers that shall end are not told to look for another server first.
    started.add("worker connections", connections);
    started.add("workers", { stop: () => endWorkers(options, parts) });
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

/**
 * The worker of the first job starts while the rest of the server does. One that turns out not to
 * fit leaves with the server.
 */
function makeFirstWorker(provisioner: Provisioner): void {
  const [pool] = provisioner.plannedPools();
  if (pool && pool.room > 0 && pool.arriving === 0) provisioner.provision([{ pool: pool.name, count: 1 }]);
}

async function endWorkers({ endWorkersOnStop }: ServerOptions, parts: Parts): Promise<void> {
  const { provisioner, registry } = parts;
  if (endWorkersOnStop === "none") provisioner.stopListening();
  else await provisioner.destroyWorkers(endWorkersOnStop);
  // An agent that dies from here on is the next server's to start again.
  await registry.stop();
}

function metricsOf(
  { version, clock, log, readOnly }: ServerOptions,
  parts: Parts,
  health: RpcServerOptions["health"],
): NonNullable<RpcServerOptions["metrics"]> {
  const queues = (also: readonly string[]) => parts.scheduling.queues.states(also);
  return metricsPage({
    ...parts,
    version,
    clock,
    log,
    health,
    scheduler: () => (readOnly ? null : { queues }),
    pools: () => (readOnly ? null : parts.pools),
  });
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
