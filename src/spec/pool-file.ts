/**
 * Pool files: YAML or JSON with one pool or many, checked as a whole. `parsePoolFile` does not throw.
 *
 * What `formatPool` writes, `parsePoolFile` reads back as the same pool.
 */

import { stringify } from "yaml";
import { formatBytes, formatDurationMs } from "../base/quantities.ts";
import { formatTaint } from "../core/labels.ts";
import { poolProblems } from "../core/pool-problems.ts";
import {
  dockerWith,
  poolWith,
  type DockerTemplate,
  type PoolDefinition,
  type PoolProvider,
} from "../core/pool.ts";
import { checkEveryValue, exactlyOne, isMapping, type RuleBreach } from "./job-rules.ts";
import { knownPoolKeys, poolSchema, type PoolSpec } from "./pool-schema.ts";
import { MAX_PROBLEMS, type Problem, type ValuePath } from "./problem.ts";
import { explainIssues, type SchemaBreach } from "./schema-problems.ts";
import { readSourceEntries, toProblem, type EntryKind, type SourceEntry } from "./source-entries.ts";

export type PoolFileResult = { ok: true; pools: PoolDefinition[] } | { ok: false; problems: Problem[] };

const POOL_ENTRIES: EntryKind = { noun: "pool", listKey: "pools", example: "name: …" };

/** At least one pool, or at least one problem. */
export function parsePoolFile(source: string | Uint8Array): PoolFileResult {
  const read = readSourceEntries(source, POOL_ENTRIES);
  if (!read.ok) return read;
  const problems: Problem[] = [];
  const pools: PoolDefinition[] = [];
  const names = new Set<string>();
  for (const entry of read.entries) {
    const breaches: (RuleBreach | SchemaBreach)[] = [];
    const pool = parsePool(entry, breaches);
    if (pool && names.has(pool.name))
      breaches.push({
        path: ["name"],
        message: `there are two pools ${pool.name}`,
        hint: "rename one of them",
      });
    problems.push(...breaches.map((breach) => toProblem(entry, breach)));
    if (pool) pools.push(pool);
    if (pool) names.add(pool.name);
    if (problems.length >= MAX_PROBLEMS) break;
  }
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, MAX_PROBLEMS) };
  return { ok: true, pools };
}

function parsePool(entry: SourceEntry, breaches: (RuleBreach | SchemaBreach)[]): PoolDefinition | null {
  breaches.push(...checkEveryValue(entry.value));
  if (breaches.length > 0) return null;
  const parsed = poolSchema.safeParse(entry.value);
  if (parsed.error) breaches.push(...explainIssues(parsed.error, entry.value, knownPoolKeys));
  if (isMapping(entry.value))
    breaches.push(
      ...exactlyOne(entry.value, [], {
        keys: ["docker", "process"],
        missing: "nothing makes its workers",
        what: "a pool",
      }),
    );
  if (!parsed.success || breaches.length > 0) return null;
  const pool = toPoolDefinition(parsed.data);
  breaches.push(...checkPoolRules(pool));
  return pool;
}

function toPoolDefinition(spec: PoolSpec): PoolDefinition {
  return poolWith({
    name: spec.name,
    provider: toProvider(spec),
    labels: spec.labels,
    taints: spec.taints,
    resources: {
      cpuMillis: spec.resources?.cpu ?? null,
      memoryBytes: spec.resources?.memory ?? null,
      diskBytes: spec.resources?.disk ?? null,
      gpu: spec.resources?.gpu ?? null,
    },
    jobsPerWorker: spec.jobsPerWorker,
    minWorkers: spec.minWorkers,
    maxWorkers: spec.maxWorkers,
    warmSpares: spec.warmSpares,
    ephemeral: spec.ephemeral,
    idleTimeoutMs: spec.idleTimeout,
    maxLifetimeMs: spec.maxLifetime,
    startTimeoutMs: spec.startTimeout,
    strategy: spec.strategy,
    costPerHour: spec.costPerHour,
    serverUrl: spec.serverUrl,
  });
}

function toProvider({ docker }: PoolSpec): PoolProvider {
  if (!docker) return { type: "process" };
  const noNewPrivileges = docker.allowNewPrivileges !== true;
  return { type: "docker", docker: dockerWith({ ...docker, noNewPrivileges }) };
}

/** What single values cannot say; what only the server knows, such as allowed mounts, it says itself. */
function checkPoolRules(pool: PoolDefinition): RuleBreach[] {
  return poolProblems(pool).map(({ path, message }) => ({ path: pathInFile(path), message, hint: "" }));
}

/** Where a field of the definition stands in the file: `docker.mounts[1]` as `["docker", "mounts", 1]`. */
function pathInFile(path: string): ValuePath {
  // The names of labels have dots of their own.
  if (path.startsWith("labels.")) return ["labels", path.slice("labels.".length)];
  const parts = path.match(/[^.[\]]+/g) ?? [];
  return parts.map((part) => (/^\d+$/.test(part) ? Number(part) : part.replace(/(Ms|Millis|Bytes)$/, "")));
}

// ── Writing ────────────────────────────────────────────────────────────────────────────────────

/** A pool as YAML, without what is as it would be anyway. */
export function formatPool(pool: PoolDefinition): string {
  return stringify(poolFileValue(pool), { lineWidth: 0 });
}

/** As a plain value. */
function poolFileValue(pool: PoolDefinition): Record<string, unknown> {
  const { provider, resources } = pool;
  const usual = poolWith({ name: pool.name, provider });
  const other = <Key extends keyof PoolDefinition>(
    key: Key,
    write?: (value: PoolDefinition[Key]) => unknown,
  ) => (pool[key] === usual[key] ? undefined : write ? write(pool[key]) : pool[key]);
  const duration = (value: number | null): string | undefined =>
    value === null ? undefined : formatDurationMs(value);
  return withoutEmpty({
    name: pool.name,
    process: provider.type === "process" ? {} : undefined,
    docker: provider.type === "docker" ? dockerValue(provider.docker) : undefined,
    labels: filled(pool.labels),
    taints: pool.taints.length === 0 ? undefined : pool.taints.map(formatTaint),
    resources: filled(
      withoutEmpty({
        cpu: resources.cpuMillis === null ? undefined : cpuText(resources.cpuMillis),
        memory: resources.memoryBytes === null ? undefined : formatBytes(resources.memoryBytes),
        disk: resources.diskBytes === null ? undefined : formatBytes(resources.diskBytes),
        gpu: resources.gpu ?? undefined,
      }),
    ),
    jobsPerWorker: other("jobsPerWorker"),
    minWorkers: other("minWorkers"),
    maxWorkers: other("maxWorkers"),
    warmSpares: other("warmSpares"),
    ephemeral: other("ephemeral"),
    idleTimeout: other("idleTimeoutMs", duration),
    maxLifetime: other("maxLifetimeMs", duration),
    startTimeout: other("startTimeoutMs", duration),
    strategy: other("strategy"),
    costPerHour: other("costPerHour"),
    serverUrl: other("serverUrl"),
  });
}

function dockerValue(docker: DockerTemplate): Record<string, unknown> {
  const usual = dockerWith({ image: docker.image });
  const list = (items: string[]): string[] | undefined => (items.length === 0 ? undefined : items);
  return withoutEmpty({
    image: docker.image,
    host: docker.host ?? undefined,
    tlsDirectory: docker.tlsDirectory ?? undefined,
    pull: docker.pull === usual.pull ? undefined : docker.pull,
    authFile: docker.authFile ?? undefined,
    network: docker.network === usual.network ? undefined : docker.network,
    pids: docker.pids ?? undefined,
    user: docker.user ?? undefined,
    allowNewPrivileges: docker.noNewPrivileges ? undefined : true,
    dropCapabilities: list(docker.dropCapabilities),
    readOnlyRoot: docker.readOnlyRoot || undefined,
    limitDisk: docker.limitDisk || undefined,
    mounts: list(docker.mounts),
  });
}

function cpuText(cpuMillis: number): number | string {
  return cpuMillis % 1000 === 0 ? cpuMillis / 1000 : `${cpuMillis}m`;
}

function filled(map: Record<string, unknown>): Record<string, unknown> | undefined {
  return Object.keys(map).length === 0 ? undefined : map;
}

function withoutEmpty(map: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined));
}
