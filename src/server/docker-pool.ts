/** The pool `docker`: workers that are containers, as the settings ask for them. */

import { poolWith, type PoolDefinition } from "../core/pool.ts";
import { listOf, type DockerPoolSettings } from "./docker-settings.ts";

export function dockerPool(settings: DockerPoolSettings): PoolDefinition {
  const { dockerEphemeral: ephemeral } = settings;
  return poolWith({
    name: "docker",
    provider: {
      type: "docker",
      docker: {
        image: settings.dockerImage,
        host: null,
        tlsDirectory: null,
        pull: settings.dockerPull,
        authFile: settings.dockerAuthFile,
        network: settings.dockerNetwork,
        pids: settings.dockerPids,
        user: settings.dockerUser,
        noNewPrivileges: settings.dockerNoNewPrivileges,
        dropCapabilities: listOf(settings.dockerDropCapabilities),
        readOnlyRoot: settings.dockerReadOnly,
        limitDisk: settings.dockerDisk !== null,
        mounts: listOf(settings.dockerMounts),
      },
    },
    resources: {
      cpuMillis: settings.dockerCpuMillis,
      memoryBytes: settings.dockerMemory,
      diskBytes: settings.dockerDisk,
      gpu: null,
    },
    jobsPerWorker: ephemeral ? 1 : settings.dockerWorkerJobs,
    maxWorkers: settings.dockerMaxWorkers,
    idleTimeoutMs: settings.workerIdleTimeoutMs,
    ephemeral,
    serverUrl: settings.dockerServerUrl,
  });
}
