/** The container of a worker: its name, its labels, and what the engine is told to make. */

import { labelVariables, type WorkerSpec } from "../provider.ts";
import { runtimeMount, type RuntimeFiles } from "./worker-runtime.ts";

/** What every container of a pool is given. Null leaves a limit to the engine. */
export interface ContainerOptions {
  image: string;
  /** `host`, `bridge`, `none` or a network of the engine. */
  network: string;
  cpuMillis: number | null;
  memoryBytes: number | null;
  pids: number | null;
  /** `uid`, `uid:gid` or a name in the image; null: as the image says. */
  user: string | null;
  noNewPrivileges: boolean;
  /** Capabilities to take away, such as `ALL` or `NET_RAW`. */
  dropCapabilities: readonly string[];
  readOnlyRoot: boolean;
  /** As `/host/path:/container/path` or `/host/path:/container/path:ro`. */
  mounts: readonly string[];
}

export const OWNER_LABEL = "hodei.owner";
export const WORKER_LABEL = "hodei.worker";
const POOL_LABEL = "hodei.pool";

/** A volume of its own: a read-only root keeps it writable, and it goes with the container. */
export const WORK_VOLUME = "/hodei-work";
/** Below the volume, because the mode of the volume itself cannot be set. */
export const WORKER_DIRECTORY = `${WORK_VOLUME}/worker`;
export const TOKEN_FILE = `${WORKER_DIRECTORY}/token`;

/** An agent that finds no server for so long ends, and its container with it. */
const OFFLINE_EXIT = "5m";
/** As for workers that are processes: log pieces outside of the heap are freed at once. */
const NODE_OPTIONS = ["--max-semi-space-size=1"];
/** The engine keeps what the agent says; more than this is thrown away. */
const LOG_FILE = { "max-size": "5m", "max-file": "1" };
/** Variables of an image that would change how the agent itself runs. */
const UNSET = ["NODE_OPTIONS", "LD_PRELOAD"];

export function containerName(workerId: string): string {
  return `hodei-${workerId}`;
}

export function containerBody(
  spec: WorkerSpec,
  context: {
    options: ContainerOptions;
    owner: string;
    runtime: RuntimeFiles;
    hasInit: boolean;
    imageVariables: readonly string[];
  },
): object {
  const { options, owner, runtime, hasInit, imageVariables } = context;
  const environment = { ...agentEnvironment(spec, runtime, imageVariables), ...spec.environment };
  return {
    Image: options.image,
    Hostname: spec.name.slice(0, 63),
    Entrypoint: [...`${runtime.programs}node`.split(" "), ...NODE_OPTIONS, runtime.workerProgram, "agent"],
    Cmd: [],
    WorkingDir: "/",
    ...(options.user === null ? {} : { User: options.user }),
    Env: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
    Labels: { [OWNER_LABEL]: owner, [WORKER_LABEL]: spec.workerId, [POOL_LABEL]: spec.pool },
    Volumes: { [WORK_VOLUME]: {} },
    // Whatever its image would ask: a worker says itself how it is.
    Healthcheck: { Test: ["NONE"] },
    HostConfig: {
      // Processes that lost their parent are collected by it.
      Init: hasInit,
      NetworkMode: options.network,
      Mounts: [runtimeMount(runtime.volume)],
      Binds: options.mounts,
      NanoCpus: (options.cpuMillis ?? 0) * 1_000_000,
      Memory: options.memoryBytes ?? 0,
      // Without swap on top: the limit is the limit.
      MemorySwap: options.memoryBytes ?? 0,
      PidsLimit: options.pids,
      SecurityOpt: options.noNewPrivileges ? ["no-new-privileges"] : [],
      CapDrop: options.dropCapabilities,
      ReadonlyRootfs: options.readOnlyRoot,
      Tmpfs: options.readOnlyRoot ? { "/tmp": "rw,exec,nosuid,nodev" } : {},
      RestartPolicy: { Name: "no" },
      LogConfig: { Type: "json-file", Config: LOG_FILE },
    },
  };
}

function agentEnvironment(
  spec: WorkerSpec,
  runtime: RuntimeFiles,
  imageVariables: readonly string[],
): Record<string, string> {
  return {
    ...Object.fromEntries(UNSET.map((name) => [name, ""])),
    HODEI_SERVER: spec.serverUrl,
    HODEI_TOKEN_FILE: TOKEN_FILE,
    HODEI_WORKER_ID: spec.workerId,
    HODEI_WORKER_NAME: spec.name,
    HODEI_WORKER_DIR: WORKER_DIRECTORY,
    HODEI_WORKER_JOBS: String(spec.capacity.jobs),
    HODEI_WORKER_CPU_MILLIS: String(spec.capacity.cpuMillis),
    HODEI_WORKER_MEMORY: String(spec.capacity.memoryBytes),
    HODEI_WORKER_OFFLINE_EXIT: OFFLINE_EXIT,
    HODEI_WORKER_DRAIN_TIMEOUT: "0s",
    ...labelVariables(spec),
    HODEI_PROGRAMS: runtime.programs,
    HODEI_INHERIT: imageVariables.filter((name) => !UNSET.includes(name)).join(","),
  };
}
