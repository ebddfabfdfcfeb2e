/** What is wrong with the definition of a pool, all at once. */

import { TAINT_EFFECTS } from "./labels.ts";
import { PLACEMENT_STRATEGIES, type DockerTemplate, type PoolDefinition } from "./pool.ts";

/** `path` is where it stands in the definition, such as `docker.mounts[1]`. */
export interface PoolProblem {
  path: string;
  message: string;
}

/** Labels that the server gives to each worker itself. */
const RESERVED_LABELS: readonly string[] = ["pool", "provider", "os", "arch"];

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const LABEL_KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/;
/** Labels and taints are handed over as a list with commas. */
const LABEL_VALUE = /^[^\p{Cc},]{0,256}$/u;
const MOUNT = /^(\/[^:]*):\/[^:]+?(:ro|:rw)?$/;
const MAX_WORKERS = 10_000;
const MAX_JOBS_PER_WORKER = 1_024;
/** The worker itself must have room for its files and for the end of a log. */
const LEAST_DISK_LIMIT_MIB = 64;

/** Empty if the pool can be made. Limits of one server, such as allowed mounts, are not known here. */
export function poolProblems(pool: PoolDefinition): PoolProblem[] {
  return [
    ...nameProblems(pool),
    ...sizeProblems(pool),
    ...timeProblems(pool),
    ...labelProblems(pool),
    ...taintProblems(pool),
    ...addressProblems(pool),
    ...(pool.provider.type === "docker" ? dockerProblems(pool.provider.docker, pool.resources) : []),
  ];
}

/** The directory of the machine that a mount makes visible; null if it has not the form of a mount. */
export function hostPathOfMount(mount: string): string | null {
  const path = MOUNT.exec(mount)?.[1];
  return path === undefined || path.split("/").includes("..") ? null : path;
}

/**
 * Mounts that a server does not allow: `allowed` are directories of the machine, and everything below
 * them. Symbolic links in them are the business of whoever allows the directory.
 */
export function mountProblems({ provider }: PoolDefinition, allowed: readonly string[]): PoolProblem[] {
  if (provider.type !== "docker") return [];
  return provider.docker.mounts.flatMap((mount, index) => {
    const hostPath = hostPathOfMount(mount);
    if (hostPath === null || allowed.some((directory) => isWithin(hostPath, directory))) return [];
    const rule = allowed.length === 0 ? "allows no mounts" : `allows only what is in ${allowed.join(", ")}`;
    const message = `${hostPath}: the server ${rule} (--docker-allow-mounts)`;
    return [{ path: `docker.mounts[${index}]`, message }];
  });
}

function isWithin(path: string, directory: string): boolean {
  const base = directory.replace(/\/+$/, "");
  return path === base || path.startsWith(`${base}/`);
}

function nameProblems({ name }: PoolDefinition): PoolProblem[] {
  const message = `${JSON.stringify(name)} is no name of a pool: 1 to 63 of a-z, 0-9 and -, none at an end`;
  return NAME.test(name) ? [] : [{ path: "name", message }];
}

function sizeProblems(pool: PoolDefinition): PoolProblem[] {
  const { minWorkers, maxWorkers, warmSpares, jobsPerWorker, ephemeral, resources, costPerHour } = pool;
  const problems: PoolProblem[] = [];
  const whole = (path: string, value: number, most: number, least = 0): void => {
    if (Number.isSafeInteger(value) && value >= least && value <= most) return;
    problems.push({ path, message: `${value} is not a whole number from ${least} to ${most}` });
  };
  whole("minWorkers", minWorkers, MAX_WORKERS);
  whole("maxWorkers", maxWorkers, MAX_WORKERS);
  whole("warmSpares", warmSpares, MAX_WORKERS);
  whole("jobsPerWorker", jobsPerWorker, MAX_JOBS_PER_WORKER, 1);
  for (const [name, value] of Object.entries(resources)) {
    // The agent of a worker without CPU or memory does not start.
    const least = name === "cpuMillis" || name === "memoryBytes" ? 1 : 0;
    if (value !== null) whole(`resources.${name}`, value, Number.MAX_SAFE_INTEGER, least);
  }
  if (minWorkers > maxWorkers) {
    problems.push({ path: "minWorkers", message: `${minWorkers} is more than maxWorkers (${maxWorkers})` });
  }
  if (warmSpares > maxWorkers) {
    problems.push({ path: "warmSpares", message: `${warmSpares} is more than maxWorkers (${maxWorkers})` });
  }
  if (ephemeral && jobsPerWorker > 1) {
    const message = `${jobsPerWorker}: an ephemeral worker takes one job; set ephemeral to false, or this to 1`;
    problems.push({ path: "jobsPerWorker", message });
  }
  if (!(Number.isFinite(costPerHour) && costPerHour >= 0)) {
    problems.push({ path: "costPerHour", message: `${costPerHour} is not a number from 0` });
  }
  if (!PLACEMENT_STRATEGIES.includes(pool.strategy)) {
    problems.push({
      path: "strategy",
      message: `${pool.strategy} is not one of ${PLACEMENT_STRATEGIES.join(", ")}`,
    });
  }
  return problems;
}

function timeProblems({ idleTimeoutMs, maxLifetimeMs, startTimeoutMs }: PoolDefinition): PoolProblem[] {
  const problems: PoolProblem[] = [];
  const atLeast = (path: string, value: number, least: number): void => {
    if (Number.isFinite(value) && value >= least) return;
    problems.push({ path, message: `${value} ms is less than ${least} ms` });
  };
  atLeast("idleTimeoutMs", idleTimeoutMs, 0);
  atLeast("startTimeoutMs", startTimeoutMs, 1_000);
  if (maxLifetimeMs !== null) atLeast("maxLifetimeMs", maxLifetimeMs, 1_000);
  return problems;
}

function labelProblems({ labels }: PoolDefinition): PoolProblem[] {
  return Object.entries(labels).flatMap(([key, value]) => {
    const path = `labels.${key}`;
    if (RESERVED_LABELS.includes(key)) return [{ path, message: `the server sets ${key} itself` }];
    return [...keyProblems(path, key), ...valueProblems(path, value)];
  });
}

function taintProblems({ taints }: PoolDefinition): PoolProblem[] {
  return taints.flatMap(({ key, value, effect }, index) => {
    const path = `taints[${index}]`;
    const isEffect = (TAINT_EFFECTS as readonly string[]).includes(effect);
    const message = `${JSON.stringify(effect)} is not one of ${TAINT_EFFECTS.join(", ")}`;
    const isRepeated = taints.slice(0, index).some((each) => each.key === key && each.effect === effect);
    return [
      ...keyProblems(`${path}.key`, key),
      ...valueProblems(`${path}.value`, value),
      ...(/[:=]/.test(value) ? [{ path: `${path}.value`, message: "it must hold no : and no =" }] : []),
      ...(isEffect ? [] : [{ path: `${path}.effect`, message }]),
      ...(isRepeated ? [{ path, message: `there is one of ${key} with ${effect} already` }] : []),
    ];
  });
}

function keyProblems(path: string, key: string): PoolProblem[] {
  if (LABEL_KEY.test(key)) return [];
  const message = `${JSON.stringify(key)} is no key: letters, digits and . _ / - between them, at most 128`;
  return [{ path, message }];
}

function valueProblems(path: string, value: string): PoolProblem[] {
  if (LABEL_VALUE.test(value)) return [];
  return [
    { path, message: "the value must hold no comma and no control character, and at most 256 characters" },
  ];
}

function addressProblems({ serverUrl, provider }: PoolDefinition): PoolProblem[] {
  if (serverUrl !== null && !isServerAddress(serverUrl)) {
    const message = `${JSON.stringify(serverUrl)} is not of the form http://HOST:PORT or https://HOST:PORT, with nothing after it`;
    return [{ path: "serverUrl", message }];
  }
  if (provider.type !== "docker" || provider.docker.network === "host" || serverUrl !== null) return [];
  const message = `containers in network ${provider.docker.network} do not share this machine's addresses; say where they reach the worker port of the server`;
  return [{ path: "serverUrl", message }];
}

/** As agents take it: they refuse to start with another one. */
function isServerAddress(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !["http:", "https:"].includes(url.protocol) || url.port === "0") return false;
  return url.href === `${url.origin}/`;
}

function dockerProblems(docker: DockerTemplate, resources: PoolDefinition["resources"]): PoolProblem[] {
  const problems = diskLimitProblems(docker, resources);
  if (docker.image === "" || /\s/.test(docker.image)) {
    problems.push({
      path: "docker.image",
      message: `${JSON.stringify(docker.image)} is no name of an image`,
    });
  }
  if (docker.host !== null && !/^(unix:\/\/\/|(tcp|https?):\/\/[^\s/])/.test(docker.host)) {
    const message = `${JSON.stringify(docker.host)}: give unix:///path/of/socket or tcp://host:port`;
    problems.push({ path: "docker.host", message });
  }
  if (docker.network === "none") {
    problems.push({ path: "docker.network", message: "none: its workers could not reach the server" });
  }
  for (const [index, mount] of docker.mounts.entries()) {
    if (hostPathOfMount(mount) !== null) continue;
    const message = `${JSON.stringify(mount)} is not of the form /host/path:/container/path[:ro]`;
    problems.push({ path: `docker.mounts[${index}]`, message });
  }
  return problems;
}

function diskLimitProblems(
  { limitDisk, readOnlyRoot }: DockerTemplate,
  { diskBytes }: PoolDefinition["resources"],
): PoolProblem[] {
  if (!limitDisk) return [];
  const path = "docker.limitDisk";
  const problems: PoolProblem[] = [];
  if (diskBytes === null) {
    problems.push({ path, message: "how much may a container hold? Say so with resources.disk" });
  } else if (diskBytes < LEAST_DISK_LIMIT_MIB * 2 ** 20) {
    const message = `${diskBytes} bytes are no limit that a worker can live with; give at least ${LEAST_DISK_LIMIT_MIB}Mi`;
    problems.push({ path: "resources.diskBytes", message });
  }
  if (readOnlyRoot) {
    const message =
      "it cannot go with readOnlyRoot: the limit is one of the root file system, where jobs then work; leave one of them out";
    problems.push({ path, message });
  }
  return problems;
}
