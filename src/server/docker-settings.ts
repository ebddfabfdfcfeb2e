/** The settings of the pool of containers: part of the table in settings.ts. */

import { AppError } from "../base/errors.ts";
import { setting, type SettingsValues } from "../base/settings.ts";
import { hostPathOfMount } from "../core/pool-problems.ts";
import { DOCKER_DEFAULTS, POOL_DEFAULTS } from "../core/pool.ts";
import { PULL_POLICIES } from "../providers/docker/image-store.ts";

export const dockerSettings = {
  dockerImage: setting.string({
    env: "HODEI_DOCKER_IMAGE",
    flag: "--docker-image",
    default: null,
    unit: "image",
    description: "Makes workers of a pool `docker` as containers of this image; any Linux image will do.",
  }),
  dockerMaxWorkers: setting.integer({
    env: "HODEI_DOCKER_MAX_WORKERS",
    flag: "--docker-max-workers",
    default: POOL_DEFAULTS.maxWorkers,
    min: 1,
    max: 1_000,
    description: "The most containers at a time.",
  }),
  dockerEphemeral: setting.boolean({
    env: "HODEI_DOCKER_EPHEMERAL",
    flag: "--docker-ephemeral",
    default: true,
    description: "A container takes one job and ends; else it waits for more.",
  }),
  dockerWorkerJobs: setting.integer({
    env: "HODEI_DOCKER_WORKER_JOBS",
    flag: "--docker-worker-jobs",
    default: 1,
    min: 1,
    max: 1_024,
    description: "Jobs at the same time in one container that is not ephemeral.",
  }),
  dockerCpuMillis: setting.integer({
    env: "HODEI_DOCKER_CPU_MILLIS",
    flag: "--docker-cpu-millis",
    default: null,
    defaultText: "no limit",
    min: 10,
    description: "Thousandths of a CPU core that one container may use.",
  }),
  dockerMemory: setting.bytes({
    env: "HODEI_DOCKER_MEMORY",
    flag: "--docker-memory",
    default: null,
    defaultText: "no limit",
    min: 128 * 1024 * 1024,
    description: "Memory of one container; the agent and the runner take about 100 MB of it.",
  }),
  dockerDisk: setting.bytes({
    env: "HODEI_DOCKER_DISK",
    flag: "--docker-disk",
    default: null,
    defaultText: "no limit",
    min: 64 * 1024 * 1024,
    description: "Disk of one container, if the engine's storage driver can limit it; see docs/docker.md.",
  }),
  dockerPids: setting.integer({
    env: "HODEI_DOCKER_PIDS",
    flag: "--docker-pids",
    default: null,
    defaultText: "no limit",
    min: 64,
    description: "Processes and threads of one container.",
  }),
  dockerNetwork: setting.string({
    env: "HODEI_DOCKER_NETWORK",
    flag: "--docker-network",
    default: DOCKER_DEFAULTS.network,
    unit: "network",
    description: "`host`, `bridge` or a network of the engine. Any but `host` needs --docker-server-url.",
  }),
  dockerServerUrl: setting.origin({
    env: "HODEI_DOCKER_SERVER_URL",
    flag: "--docker-server-url",
    default: null,
    defaultText: "the worker port of this server",
    description: "Where the agents in containers dial.",
  }),
  dockerMounts: setting.string({
    env: "HODEI_DOCKER_MOUNTS",
    flag: "--docker-mounts",
    default: "",
    unit: "/host:/container[:ro],...",
    description: "Directories of the engine's machine for every container; jobs cannot ask for others.",
  }),
  dockerAllowMounts: setting.string({
    env: "HODEI_DOCKER_ALLOW_MOUNTS",
    flag: "--docker-allow-mounts",
    default: "",
    unit: "/directory,...",
    description:
      "Directories of the engine's machine that applied pools may mount, with all below them; empty allows none.",
  }),
  dockerUser: setting.string({
    env: "HODEI_DOCKER_USER",
    flag: "--docker-user",
    default: null,
    defaultText: "as the image says",
    unit: "uid[:gid]",
    description: "The user of the agent and of its jobs in the container.",
  }),
  dockerNoNewPrivileges: setting.boolean({
    env: "HODEI_DOCKER_NO_NEW_PRIVILEGES",
    flag: "--docker-no-new-privileges",
    default: DOCKER_DEFAULTS.noNewPrivileges,
    description: "Takes away the power of programs such as `sudo` to raise privileges.",
  }),
  dockerDropCapabilities: setting.string({
    env: "HODEI_DOCKER_DROP_CAPABILITIES",
    flag: "--docker-drop-capabilities",
    default: "",
    unit: "NAME,...",
    description: "Linux capabilities to take away, such as `ALL` or `NET_RAW`.",
  }),
  dockerReadOnly: setting.boolean({
    env: "HODEI_DOCKER_READ_ONLY",
    flag: "--docker-read-only",
    default: DOCKER_DEFAULTS.readOnlyRoot,
    description: "The root file system is read-only; workspaces and /tmp are not.",
  }),
  dockerPull: setting.choice({
    env: "HODEI_DOCKER_PULL",
    flag: "--docker-pull",
    choices: PULL_POLICIES,
    default: DOCKER_DEFAULTS.pull,
    description: "When the image is pulled: if the engine does not have it, before each container, or never.",
  }),
  dockerAuthFile: setting.path({
    env: "HODEI_DOCKER_AUTH_FILE",
    flag: "--docker-auth-file",
    default: null,
    description: "Logins of registries, as `docker login` writes them into config.json.",
  }),
  dockerHost: setting.string({
    env: "DOCKER_HOST",
    flag: "--docker-host",
    default: "unix:///var/run/docker.sock",
    unit: "url",
    description: "The engine: `unix:///path/of/socket` or `tcp://host:port`.",
  }),
  dockerTlsDirectory: setting.path({
    env: "DOCKER_CERT_PATH",
    flag: "--docker-tls-dir",
    default: null,
    description: "Holds ca.pem, cert.pem and key.pem for an engine that is reached by TCP.",
  }),
};

type DockerSettings = SettingsValues<typeof dockerSettings>;

/** What holds for all pools of containers, whoever makes them. */
export interface DockerEngineSettings {
  host: string;
  tlsDirectory: string | null;
  /** Directories that applied pools may mount. */
  allowedMounts: string[];
}

export function dockerEngineSettings(settings: DockerSettings): DockerEngineSettings {
  return {
    host: settings.dockerHost,
    tlsDirectory: settings.dockerTlsDirectory,
    allowedMounts: listOf(settings.dockerAllowMounts),
  };
}

export interface DockerPoolSettings extends DockerSettings {
  dockerImage: string;
  workerIdleTimeoutMs: number;
}

/**
 * Null if no image was named.
 *
 * @throws AppError `invalid_argument` if containers could not reach the server, or for what is no mount.
 */
export function dockerPoolSettings(
  settings: DockerSettings & { workerIdleTimeout: number },
): DockerPoolSettings | null {
  const { dockerImage, dockerNetwork, dockerServerUrl } = settings;
  if (dockerImage === null) return null;
  if (dockerNetwork !== "host" && dockerServerUrl === null) {
    throw new AppError(
      "invalid_argument",
      `--docker-network ${dockerNetwork}: containers do not share this machine's addresses then; say with --docker-server-url where they reach the worker port`,
    );
  }
  if (settings.dockerDisk !== null && settings.dockerReadOnly) {
    throw new AppError(
      "invalid_argument",
      "--docker-disk cannot go with --docker-read-only: the limit is one of the root file system, where jobs then work; leave one of them out",
    );
  }
  for (const mount of listOf(settings.dockerMounts)) {
    if (hostPathOfMount(mount) !== null) continue;
    throw new AppError(
      "invalid_argument",
      `--docker-mounts: ${JSON.stringify(mount)} is not of the form /host/path:/container/path[:ro]`,
    );
  }
  return { ...settings, dockerImage, workerIdleTimeoutMs: settings.workerIdleTimeout };
}

/** The parts of a text with commas. */
export function listOf(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}
