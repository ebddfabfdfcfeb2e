/** What the API, the worker connections and the loops of one server share. */

import { join } from "node:path";
import { apiTokenPath } from "../base/data-directory.ts";
import { uuidV7 } from "../base/random.ts";
import type { StartedServices } from "../base/started-services.ts";
import { isFinal, type Job } from "../core/job.ts";
import { providerName } from "../core/pool-change.ts";
import { DeferredProvider } from "../providers/deferred-provider.ts";
import type { Provider } from "../providers/provider.ts";
import { openDirectoryBlobStore } from "../storage/directory-blob-store.ts";
import type { PostgresConnection } from "../storage/postgres/database.ts";
import { openPostgresStore } from "../storage/postgres/open-postgres-store.ts";
import type { Store } from "../storage/store.ts";
import { ActiveCalls } from "./active-calls.ts";
import { loadOrCreateApiToken } from "./auth/api-token.ts";
import { dockerPool } from "./docker-pool.ts";
import { JobBus } from "./job-bus.ts";
import { localPool } from "./local-pool.ts";
import { openLogStore, type LogStore } from "./logs/log-store.ts";
import { ServerCounts } from "./metrics/server-counts.ts";
import { makeProvider } from "./pools/make-provider.ts";
import { openPoolRegistry, type PoolRegistry } from "./pools/pool-registry.ts";
import { thisMachine } from "./pools/pool.ts";
import { createPoolsView, type PoolsView } from "./pools/pools-view.ts";
import { Provisioner } from "./pools/provisioner.ts";
import { SchedulingState } from "./scheduling/scheduling-state.ts";
import type { ServerOptions } from "./start-server.ts";
import { StartTimes } from "./start-times/start-times.ts";
import { HeartbeatWriter } from "./workers/heartbeat-writer.ts";
import { WorkerConnections } from "./workers/worker-connections.ts";

export interface Parts {
  apiToken: string;
  instanceId: string;
  store: Store;
  logs: LogStore;
  heartbeats: HeartbeatWriter;
  jobs: JobBus;
  calls: ActiveCalls;
  registry: PoolRegistry;
  provisioner: Provisioner;
  pools: PoolsView;
  connections: WorkerConnections;
  scheduling: SchedulingState;
  counts: ServerCounts;
  startTimes: StartTimes;
  /** Wake-ups of the loops; they do nothing while no loop runs. */
  hints: { scheduling(): void; provisioning(): void; sealing(): void };
  /** Where agents dial; set once the port is open. */
  workerPort: { url: string; port: number };
  onJobChanged(job: Job): void;
  /** The job has changed otherwise than by its worker's word: the worker may have to be told. */
  onWanted(job: Job): void;
  onRoom(): void;
  onIdle(): void;
  onLogStored(attemptId: string, bytes: number): void;
}

export async function openParts(
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
  const registry = await openPools(options, store);
  const instanceId = uuidV7(clock, random);
  return {
    ...connectParts(options, { store, registry }),
    apiToken,
    instanceId,
    store,
    logs,
    heartbeats,
    registry,
  };
}

/** Everything that lives in memory only. */
function connectParts(
  { clock, random, log }: ServerOptions,
  { store, registry }: { store: Store; registry: PoolRegistry },
): Omit<Parts, "apiToken" | "instanceId" | "store" | "logs" | "heartbeats" | "registry"> {
  const nothing = (): void => {};
  const hints = { scheduling: nothing, provisioning: nothing, sealing: nothing };
  const jobs = new JobBus();
  const counts = new ServerCounts();
  const startTimes = new StartTimes({ store, clock, log });
  const connections = new WorkerConnections((name) => registry.get(name)?.definition ?? null);
  const workerPort = { url: "", port: 0 };
  const onJobChanged = (job: Job): void => {
    jobs.publish(job);
    scheduling.onJobChanged(job);
    counts.onJobChanged(job);
    startTimes.onJobChanged(job);
    if (isFinal(job.state) || job.state === "pending") hints.scheduling();
    // A worker that was lost will not finish its log: followers wait for the seal.
    const mayBeLost = job.cause === "worker_lost" || (job.state === "pending" && job.attemptCount > 0);
    if (mayBeLost) hints.sealing();
  };
  const onRoom = (): void => hints.scheduling();
  const provisioner = new Provisioner({
    pools: registry,
    store,
    connections,
    clock,
    random,
    log,
    serverUrl: () => workerPort.url,
    onJobChanged,
    onRoom,
  });
  const plannedPools = () => provisioner.plannedPools();
  const scheduling = new SchedulingState({ store, connections, clock, plannedPools });
  return {
    jobs,
    calls: new ActiveCalls(),
    provisioner,
    pools: createPoolsView({
      registry,
      provisioner,
      onPoolsChanged() {
        hints.provisioning();
        hints.scheduling();
      },
    }),
    connections,
    scheduling,
    counts,
    startTimes,
    hints,
    workerPort,
    onJobChanged,
    onWanted(job) {
      connections.jobSeen(job);
      onJobChanged(job);
    },
    onRoom,
    onIdle: () => hints.provisioning(),
    onLogStored(attemptId, bytes) {
      counts.onLogStored(bytes);
      startTimes.onFirstByte(attemptId);
    },
  };
}

/**
 * Those of the settings, and those that people have applied. A server that only reads opens none of
 * their providers: it neither waits for what they load, nor does an engine hear of it.
 */
function openPools(options: ServerOptions, store: Store): Promise<PoolRegistry> {
  const { docker, dockerEngine, localWorkers, readOnly } = options;
  const { host: dockerHost, tlsDirectory: dockerTlsDirectory, allowedMounts } = dockerEngine;
  const context = { ...options, dockerHost, dockerTlsDirectory };
  return openPoolRegistry({
    ...options,
    store,
    settingsPools: [localPool(localWorkers), ...(docker === null ? [] : [dockerPool(docker)])],
    async makeProvider(definition) {
      const open = (): Promise<Provider> => makeProvider(definition, context);
      return readOnly ? new DeferredProvider(definition.provider.type, open) : await open();
    },
    nameProvider: (provider) => providerName(provider, { dockerHost }),
    machine: thisMachine(),
    allowedMounts,
  });
}
