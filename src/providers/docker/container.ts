/** The container of a worker: its name, its labels, and what the engine is told to make. */

import { relative } from "node:path/posix";
import { capacityVariables, labelVariables, type WorkerSpec } from "../provider.ts";
import type { TarEntry } from "./tar-archive.ts";
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
  /** What its files may take, those of its jobs among them; not with `readOnlyRoot`. */
  diskLimitBytes: number | null;
  /** As `/host/path:/container/path` or `/host/path:/container/path:ro`. */
  mounts: readonly string[];
}

export const OWNER_LABEL = "hodei.owner";
export const WORKER_LABEL = "hodei.worker";
const POOL_LABEL = "hodei.pool";

/**
 * A volume of its own: a read-only root keeps it writable, and it goes with the container. Where the
 * disk is limited it lies in the container's root instead, since no limit covers a volume.
 */
const WORK_PLACE = "/hodei-work";
/** Below it, because the mode of a volume itself cannot be set. */
export const WORKER_DIRECTORY = `${WORK_PLACE}/worker`;
const TOKEN_FILE = `${WORKER_DIRECTORY}/token`;
/** Where the runner has the pipes of its jobs. */
const PIPES_DIRECTORY = `${WORKER_DIRECTORY}/pipes`;
const TMPFS = "rw,nosuid,nodev";

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
    ...(options.diskLimitBytes === null ? { Volumes: { [WORK_PLACE]: {} } } : {}),
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
      ...(options.diskLimitBytes === null ? {} : { StorageOpt: { size: String(options.diskLimitBytes) } }),
      SecurityOpt: options.noNewPrivileges ? ["no-new-privileges"] : [],
      CapDrop: options.dropCapabilities,
      ReadonlyRootfs: options.readOnlyRoot,
      Tmpfs: tmpfs(options),
      RestartPolicy: { Name: "no" },
      LogConfig: { Type: "json-file", Config: LOG_FILE },
    },
  };
}

function tmpfs({ readOnlyRoot, diskLimitBytes }: ContainerOptions): Record<string, string> {
  return {
    ...(readOnlyRoot ? { "/tmp": `${TMPFS},exec` } : {}),
    // On a full disk a job could not print: btrfs wants room for the time stamps of pipes, too.
    ...(diskLimitBytes === null ? {} : { [PIPES_DIRECTORY]: `${TMPFS},noexec,size=64k` }),
  };
}

/** What is laid into a container before its start, and where. */
export function tokenFiles(
  token: string,
  { diskLimitBytes }: Pick<ContainerOptions, "diskLimitBytes">,
): { path: string; entries: TarEntry[] } {
  // Of a read-only root the engine lets nobody write but into a volume.
  const path = diskLimitBytes === null ? WORK_PLACE : "/";
  const within = (place: string): string => relative(path, place);
  return {
    path,
    entries: [
      ...(diskLimitBytes === null ? [] : [directory(within(WORK_PLACE), 0o755)]),
      // Nobody but the worker is in there, as whatever user the image or the operator has chosen.
      directory(within(WORKER_DIRECTORY), 0o777),
      { type: "file", name: within(TOKEN_FILE), mode: 0o666, content: Buffer.from(token) },
    ],
  };
}

function directory(name: string, mode: number): TarEntry {
  return { type: "directory", name: `${name}/`, mode };
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
    HODEI_WORKER_OFFLINE_EXIT: OFFLINE_EXIT,
    HODEI_WORKER_DRAIN_TIMEOUT: "0s",
    ...capacityVariables(spec),
    ...labelVariables(spec),
    HODEI_PROGRAMS: runtime.programs,
    HODEI_INHERIT: imageVariables.filter((name) => !UNSET.includes(name)).join(","),
  };
}
