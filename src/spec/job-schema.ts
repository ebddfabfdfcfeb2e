/**
 * The shape of one job in a job file. The limits are those of the API (proto/hodei/v1/jobs.proto),
 * so that a mistake is found before anything is sent, with its line.
 *
 * Rules over several keys ("exactly one of run, script, …") are in job-rules.ts: zod would not
 * check them as long as anything else is wrong, and every problem should be told at once.
 */

import { z } from "zod";
import { LOG_QUOTA_POLICIES, STEP_CONDITIONS, WORKER_LOST_POLICIES } from "../core/job.ts";
import {
  capabilities,
  concurrency,
  knownPlacementKeys,
  preferences,
  selector,
  tolerations,
} from "./placement-schema.ts";
import type { ValuePath } from "./problem.ts";
import { CPU_EXAMPLES, SIZE_EXAMPLES, parseCpuMillis, parseSizeBytes } from "./quantities.ts";
import { MAX_QUEUE_NAME_CHARS, QUEUE_NAME, QUEUE_NAME_RULE } from "./queue-name.ts";
import {
  CONTROL_CHARACTERS,
  DAY_MS,
  SECOND_MS,
  YEAR_MS,
  duration,
  fileJsonSchema,
  labels,
  name,
  quantity,
  textValue,
  wholeNumber,
} from "./schema-parts.ts";

const MAX_TEXT_BYTES = 131_071;
export const MAX_SCRIPT_BYTES = 1024 * 1024;
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

function utf8Length(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

const longText = textValue.refine((text) => utf8Length(text) <= MAX_TEXT_BYTES, {
  error: "is longer than 128 KiB, which no program can be given",
});

const env = z
  .record(
    z
      .string()
      .max(256, "must have 256 characters at most")
      .regex(ENV_NAME, "must be letters, digits and _, and not begin with a digit"),
    longText,
    {
      error: "must be a mapping of names to values",
    },
  )
  .refine((map) => Object.keys(map).length <= 1000, { error: "must have 1000 entries at most" });

const scriptText = z
  .string("must be text")
  .min(1, "must not be empty")
  .refine((text) => utf8Length(text) <= MAX_SCRIPT_BYTES, { error: "is longer than 1 MiB" });

const argv = z
  .array(longText, { error: "must be a list: the program and its arguments" })
  .min(1, "must name a program")
  .max(10_001, "must have 10,000 arguments at most")
  .refine((list) => list[0] !== "" && utf8Length(list[0] ?? "") <= 4096, {
    error: "must begin with the name of a program",
  });

const run = z
  .union([scriptText, argv], {
    error: "must be a script (text) or a command (a list of program and arguments)",
  })
  .describe("What to run: text is a bash script, a list is a program and its arguments");

export const scriptSchema = z
  .strictObject(
    {
      interpreter: z
        .string("must be text")
        .max(4096, "is too long")
        .regex(/^[^\n]*$/, "must be one line")
        .optional()
        .describe("A name or path such as bash, sh, python3 or /usr/bin/env node; bash by default"),
      content: scriptText.optional().describe("The text of the script"),
      file: z
        .string("must be text")
        .min(1, "must not be empty")
        .optional()
        .describe("A file with the script, relative to this file"),
      safetyHeaders: z
        .boolean("must be true or false")
        .optional()
        .describe("false leaves out set -euo pipefail"),
    },
    { error: "must be a mapping with content or file" },
  )
  .describe("A script and its interpreter");

const workingDirectory = z
  .string("must be text")
  .refine((text) => utf8Length(text) <= 4096, { error: "is too long" })
  .describe("Relative to the workspace, or absolute");

export const stepSchema = z.strictObject(
  {
    name: name.optional().describe("Shown in the log and in the result"),
    run: run.optional(),
    command: argv.optional().describe("A program and its arguments"),
    script: scriptSchema.optional(),
    env: env.optional().describe("Added to the environment of the job"),
    workingDirectory: workingDirectory.optional(),
    if: z
      .enum(STEP_CONDITIONS, { error: `must be ${STEP_CONDITIONS.join(", ")}` })
      .optional()
      .describe("When the step runs: success (every step before it went well), failure or always"),
    timeout: duration({ minMs: 1, maxMs: YEAR_MS })
      .optional()
      .describe("The longest time this step may take"),
    continueOnError: z
      .boolean("must be true or false")
      .optional()
      .describe("The job goes on as if the step had gone well"),
  },
  { error: "must be a mapping" },
);

export const resourcesSchema = z.strictObject(
  {
    cpu: quantity({ parse: parseCpuMillis, max: 1_024_000, what: "an amount of CPU", examples: CPU_EXAMPLES })
      .optional()
      .describe("CPU cores, such as 1.5 or 500m"),
    memory: quantity({ parse: parseSizeBytes, max: 2 ** 46, what: "a size", examples: SIZE_EXAMPLES })
      .optional()
      .describe("Memory, such as 512Mi"),
    disk: quantity({ parse: parseSizeBytes, max: 2 ** 50, what: "a size", examples: SIZE_EXAMPLES })
      .optional()
      .describe("Disk, such as 10Gi"),
    gpu: wholeNumber(0, 1024).optional().describe("Whole GPUs"),
  },
  { error: "must be a mapping" },
);

export const retrySchema = z.strictObject(
  {
    max: wholeNumber(0, 100)
      .optional()
      .describe("New attempts after a failure of the job itself; 0 by default"),
    infrastructure: wholeNumber(0, 100)
      .optional()
      .describe("New attempts after a failure of the infrastructure; 2 by default"),
    backoff: duration({ minMs: 0, maxMs: DAY_MS })
      .optional()
      .describe("The wait before the first new attempt; 1s by default"),
    maxBackoff: duration({ minMs: 0, maxMs: DAY_MS }).optional().describe("The longest wait; 5m by default"),
    exitCodes: z
      .array(wholeNumber(0, 255), { error: "must be a list of exit codes" })
      .max(256, "must have 256 entries at most")
      .optional()
      .describe("If given, only these exit codes are retried"),
  },
  { error: "must be a mapping" },
);

export const jobSchema = z.strictObject(
  {
    name: name.optional().describe("Shown to people; the name of the file by default"),
    run: run.optional(),
    script: scriptSchema.optional(),
    command: argv.optional().describe("A program and its arguments"),
    steps: z
      .array(stepSchema, { error: "must be a list of steps" })
      .min(1, "must have a step")
      .max(500, "must have 500 steps at most")
      .optional()
      .describe("What to run, one after another in the same workspace"),
    env: env.optional().describe("Environment variables"),
    workingDirectory: workingDirectory.optional(),
    resources: resourcesSchema.optional().describe("What the job needs from its worker"),
    selector: selector
      .optional()
      .describe("Conditions on the labels of the worker: a mapping, or text such as zone in (a,b),!spot"),
    tolerations: tolerations
      .optional()
      .describe("Taints of a worker that the job accepts: key[=value][:Effect]"),
    capabilities: capabilities.optional().describe("What the worker must be able to do, such as pause"),
    preferences: preferences.optional().describe("Which of several fitting workers is better"),
    concurrency: concurrency
      .optional()
      .describe("How many jobs with the same key may run at the same time; a text is a key with limit 1"),
    preemptible: z
      .boolean("must be true or false")
      .optional()
      .describe("The job may be ended and queued again when one with a higher priority needs its place"),
    timeout: duration({ minMs: 1, maxMs: YEAR_MS })
      .optional()
      .describe("The longest time an attempt may run; 1h by default"),
    queueTimeout: duration({ minMs: 1, maxMs: YEAR_MS })
      .optional()
      .describe("The longest wait for a worker; 24h by default"),
    grace: duration({ minMs: 0, maxMs: DAY_MS })
      .optional()
      .describe("From SIGTERM to SIGKILL; 10s by default"),
    lease: duration({ minMs: 40 * SECOND_MS, maxMs: 7 * DAY_MS })
      .optional()
      .describe("How long an attempt stays valid without a sign of its worker; 15m by default"),
    onWorkerLost: z
      .enum(WORKER_LOST_POLICIES, { error: `must be one of ${WORKER_LOST_POLICIES.join(", ")}` })
      .optional()
      .describe("What becomes of the job when its worker is lost: retry by default"),
    retry: retrySchema.optional().describe("New attempts"),
    logQuota: quantity({
      parse: parseSizeBytes,
      min: 1024,
      max: 2 ** 50,
      what: "a size",
      examples: SIZE_EXAMPLES,
    })
      .optional()
      .describe("The most output of one attempt that is recorded; 4Gi by default"),
    onLogQuota: z
      .enum(LOG_QUOTA_POLICIES, { error: `must be one of ${LOG_QUOTA_POLICIES.join(", ")}` })
      .optional()
      .describe("What becomes of the job when there is more: it fails by default"),
    priority: wholeNumber(-1000, 1000).optional().describe("Higher goes first; 0 is normal"),
    queue: z
      .string("must be text")
      .max(MAX_QUEUE_NAME_CHARS, `must have ${MAX_QUEUE_NAME_CHARS} characters at most`)
      .regex(QUEUE_NAME, QUEUE_NAME_RULE)
      .optional()
      .describe("The queue; default by default"),
    labels: labels.optional().describe("Shown and used as a filter; no effect on scheduling"),
    idempotencyKey: z
      .string("must be text")
      .max(200, "must have 200 characters at most")
      .refine((text) => !CONTROL_CHARACTERS.test(text), { error: "must be one line" })
      .optional()
      .describe("Submitting again with the same key gives the job that was made first"),
  },
  { error: "must be a mapping" },
);

/** The keys that a mapping at this path of a job may have. */
export function knownJobKeys(path: ValuePath): readonly string[] {
  const [first, second] = path;
  const last = path.at(-1);
  if (last === "script") return Object.keys(scriptSchema.shape);
  if (last === "resources") return Object.keys(resourcesSchema.shape);
  if (last === "retry") return Object.keys(retrySchema.shape);
  if (first === "steps" && typeof second === "number") return Object.keys(stepSchema.shape);
  return knownPlacementKeys(path) ?? Object.keys(jobSchema.shape);
}

export type JobSpec = z.output<typeof jobSchema>;
export type StepSpec = z.output<typeof stepSchema>;

/** The JSON Schema of a job file, for editors. One job, `jobs:` with a list of them, or the list. */
export function jobFileJsonSchema(): Record<string, unknown> {
  return fileJsonSchema(jobSchema, { title: "Hodei job file", noun: "job", listKey: "jobs" });
}
