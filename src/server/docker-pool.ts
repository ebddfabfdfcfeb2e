/** The pool `docker`: workers that are containers, as the settings ask for them. */

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { arch, availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { AppError, systemErrorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { uuidV7, type Random } from "../base/random.ts";
import { DockerProvider } from "../providers/docker/docker-provider.ts";
import type { DockerPoolSettings } from "./docker-settings.ts";
import type { Pool } from "./loops/provisioning.ts";

/** @throws AppError `invalid_argument` with what is wrong with the settings. */
export async function dockerPool(
  settings: DockerPoolSettings,
  context: {
    dataDirectory: string;
    workerProgram: string;
    clock: Clock;
    random: Random;
    log: Logger;
  },
): Promise<Pool> {
  const cores = availableParallelism() * 1000;
  const provider = new DockerProvider({
    image: settings.dockerImage,
    owner: await loadOrCreateOwner(context.dataDirectory, context),
    host: settings.dockerHost,
    tlsDirectory: settings.dockerTlsDirectory,
    pull: settings.dockerPull,
    authFile: settings.dockerAuthFile,
    network: settings.dockerNetwork,
    cpuMillis: settings.dockerCpuMillis,
    memoryBytes: settings.dockerMemory,
    pids: settings.dockerPids,
    user: settings.dockerUser,
    noNewPrivileges: settings.dockerNoNewPrivileges,
    dropCapabilities: listOf(settings.dockerDropCapabilities),
    readOnlyRoot: settings.dockerReadOnly,
    mounts: listOf(settings.dockerMounts).map(checkedMount),
    workerProgram: context.workerProgram,
    clock: context.clock,
    log: context.log,
  });
  return {
    name: "docker",
    provider,
    labels: { os: "linux", arch: arch(), pool: "docker" },
    capacity: {
      cpuMillis: settings.dockerCpuMillis ?? Math.floor(cores / settings.dockerMaxWorkers),
      memoryBytes: settings.dockerMemory ?? Math.floor(totalmem() / settings.dockerMaxWorkers),
      diskBytes: Number.MAX_SAFE_INTEGER,
      gpu: 0,
      jobs: settings.dockerEphemeral ? 1 : settings.dockerWorkerJobs,
    },
    maxWorkers: settings.dockerMaxWorkers,
    idleTimeoutMs: settings.workerIdleTimeoutMs,
    ephemeral: settings.dockerEphemeral,
    serverUrl: settings.dockerServerUrl,
  };
}

/** Whose containers these are; another data directory is another owner. */
async function loadOrCreateOwner(
  dataDirectory: string,
  { clock, random }: { clock: Clock; random: Random },
): Promise<string> {
  const path = join(dataDirectory, "owner");
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw error;
  }
  const owner = uuidV7(clock, random);
  await mkdir(dataDirectory, { recursive: true });
  await writeFile(`${path}.new`, `${owner}\n`);
  await rename(`${path}.new`, path);
  return owner;
}

function listOf(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function checkedMount(mount: string): string {
  if (/^\/[^:]*:\/[^:]+(:ro|:rw)?$/.test(mount)) return mount;
  throw new AppError(
    "invalid_argument",
    `--docker-mounts: ${JSON.stringify(mount)} is not of the form /host/path:/container/path[:ro]`,
  );
}
