/**
 * The shape of one pool in a pool file. The limits are those of the API (proto/hodei/v1/pools.proto),
 * so that a mistake is found before anything is sent, with its line.
 */

import { z } from "zod";
import { PLACEMENT_STRATEGIES } from "../core/pool.ts";
import { knownPlacementKeys, taints } from "./placement-schema.ts";
import type { ValuePath } from "./problem.ts";
import { CPU_EXAMPLES, SIZE_EXAMPLES, parseCpuMillis, parseSizeBytes } from "./quantities.ts";
import {
  DAY_MS,
  SECOND_MS,
  YEAR_MS,
  duration,
  fileJsonSchema,
  labels,
  quantity,
  textValue,
  wholeNumber,
} from "./schema-parts.ts";

const PULL_POLICIES = ["always", "missing", "never"] as const;
const MAX_WORKERS = 10_000;

const line = z
  .string("must be text")
  .min(1, "must not be empty")
  .max(4096, "must have 4096 characters at most")
  .regex(/^[^\u0000-\u001f\u007f]*$/, "must be one line");
const flag = z.boolean("must be true or false");
const mapping = { error: "must be a mapping" };

export const dockerSchema = z.strictObject(
  {
    image: line
      .max(1000, "must have 1000 characters at most")
      .regex(/^\S*$/, "must have no spaces")
      .describe("Any Linux image"),
    host: line
      .optional()
      .describe("The engine: unix:///… or tcp://…; DOCKER_HOST or the usual socket by default"),
    tlsDirectory: line.optional().describe("Directory on the server with ca.pem, cert.pem and key.pem"),
    pull: z
      .enum(PULL_POLICIES, { error: `must be one of ${PULL_POLICIES.join(", ")}` })
      .optional()
      .describe("When the image is fetched; missing by default"),
    authFile: line.optional().describe("A config.json of Docker on the server, with logins to registries"),
    network: line.optional().describe("The network mode; host by default"),
    pids: wholeNumber(1, 2 ** 32 - 1)
      .optional()
      .describe("The most processes and threads"),
    user: textValue.optional().describe("The user in the container; that of the image by default"),
    allowNewPrivileges: flag.optional().describe("Processes may gain privileges, as through setuid programs"),
    dropCapabilities: z
      .array(line, { error: "must be a list of capabilities" })
      .max(64, "must have 64 entries at most")
      .optional()
      .describe("Capabilities that are taken away; ALL takes all"),
    readOnlyRoot: flag.optional().describe("The root file system cannot be written"),
    limitDisk: flag.optional().describe("The container's files take no more than resources.disk"),
    mounts: z
      .array(line, { error: "must be a list of /host/path:/container/path[:ro]" })
      .max(64, "must have 64 entries at most")
      .optional()
      .describe("/host/path:/container/path[:ro]; only what the settings of the server allow"),
  },
  { error: "must be a mapping with image" },
);

export const poolResourcesSchema = z.strictObject(
  {
    // A worker that has none of them would not start.
    cpu: quantity({
      parse: parseCpuMillis,
      min: 1,
      max: 1_024_000,
      what: "an amount of CPU",
      examples: CPU_EXAMPLES,
    })
      .optional()
      .describe("CPU cores, such as 1.5 or 500m"),
    memory: quantity({ parse: parseSizeBytes, min: 1, max: 2 ** 46, what: "a size", examples: SIZE_EXAMPLES })
      .optional()
      .describe("Memory, such as 512Mi"),
    disk: quantity({ parse: parseSizeBytes, max: 2 ** 50, what: "a size", examples: SIZE_EXAMPLES })
      .optional()
      .describe("Disk, such as 10Gi"),
    gpu: wholeNumber(0, 1024).optional().describe("Whole GPUs"),
  },
  mapping,
);

export const poolSchema = z.strictObject(
  {
    name: z
      .string("must be text")
      .min(1, "must not be empty")
      .max(63, "must have 63 characters at most")
      .regex(
        /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/,
        "must be lower case letters, digits and - and begin and end with a letter or digit",
      )
      .describe("Unique among pools"),
    process: z
      .strictObject({}, { error: "must be an empty mapping: {}" })
      .nullable()
      .optional()
      .describe("Workers that are processes on the server's machine"),
    docker: dockerSchema.optional().describe("Workers that are containers"),
    labels: labels.optional().describe("Its workers have these, besides pool, provider, os and arch"),
    taints: taints.optional().describe("Keep jobs away from its workers: key[=value]:Effect"),
    resources: poolResourcesSchema
      .optional()
      .describe("What one worker holds; what is left out is what the machine has, shared by maxWorkers"),
    jobsPerWorker: wholeNumber(1, 1024)
      .optional()
      .describe("Jobs at the same time on one worker; 1 by default"),
    minWorkers: wholeNumber(0, MAX_WORKERS)
      .optional()
      .describe("Workers that are always there; 0 by default"),
    maxWorkers: wholeNumber(0, MAX_WORKERS).optional().describe("The most workers at a time; 4 by default"),
    warmSpares: wholeNumber(0, MAX_WORKERS)
      .optional()
      .describe("Workers without a job that are kept ready, within maxWorkers; 0 by default"),
    ephemeral: flag
      .optional()
      .describe("A worker takes one job and leaves; by default true for docker, false for process"),
    idleTimeout: duration({ minMs: 0, maxMs: YEAR_MS })
      .optional()
      .describe("A worker that is not needed and has no job for this long leaves; 1m by default"),
    maxLifetime: duration({ minMs: SECOND_MS, maxMs: YEAR_MS })
      .optional()
      .describe("A worker of this age takes no more jobs and leaves"),
    startTimeout: duration({ minMs: SECOND_MS, maxMs: DAY_MS })
      .optional()
      .describe("How long a worker may take to connect; 2m by default"),
    strategy: z
      .enum(PLACEMENT_STRATEGIES, { error: `must be one of ${PLACEMENT_STRATEGIES.join(", ")}` })
      .optional()
      .describe("Which of its workers gets a job; least_loaded by default"),
    costPerHour: z
      .number("must be a number")
      .min(0, "must not be below 0")
      .optional()
      .describe("Of one worker, in any currency: of two pools that fit alike, the cheaper one is taken"),
    serverUrl: line.optional().describe("Where its agents dial, if it is not where all do"),
  },
  mapping,
);

/** The keys that a mapping at this path of a pool may have. */
export function knownPoolKeys(path: ValuePath): readonly string[] {
  switch (path[0]) {
    case "docker":
      return Object.keys(dockerSchema.shape);
    case "resources":
      return Object.keys(poolResourcesSchema.shape);
    case "process":
      return [];
    default:
      return knownPlacementKeys(path) ?? Object.keys(poolSchema.shape);
  }
}

export type PoolSpec = z.output<typeof poolSchema>;

/** The JSON Schema of a pool file, for editors. One pool, `pools:` with a list of them, or the list. */
export function poolFileJsonSchema(): Record<string, unknown> {
  return fileJsonSchema(poolSchema, { title: "Hodei pool file", noun: "pool", listKey: "pools" });
}
