/**
 * The shape of one job in a job file. The limits are those of the API (proto/hodei/v1/jobs.proto),
 * so that a mistake is found before anything is sent, with its line.
 *
 * Rules over several keys ("exactly one of run, script, …") are in job-rules.ts: zod would not
 * check them as long as anything else is wrong, and every problem should be told at once.
 */

import { z } from "zod";
import { formatDurationMs } from "../base/quantities.ts";
import { LOG_QUOTA_POLICIES, STEP_CONDITIONS, WORKER_LOST_POLICIES } from "../core/job.ts";
import {
  CPU_EXAMPLES,
  DURATION_EXAMPLES,
  SIZE_EXAMPLES,
  parseCpuMillis,
  parseDurationMs,
  parseSizeBytes,
} from "./quantities.ts";

const SECOND_MS = 1_000;
const DAY_MS = 86_400_000;
const YEAR_MS = 365 * DAY_MS;
const MAX_TEXT_BYTES = 131_071;
export const MAX_SCRIPT_BYTES = 1024 * 1024;
const CONTROL_CHARACTERS = /[\u0000-\u001f\u007f]/;
const LABEL_KEY = /^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$/;
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

export function utf8Length(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

function duration(limits: { minMs: number; maxMs: number }) {
  return z
    .union([z.number(), z.string()], { error: `must be a duration: ${DURATION_EXAMPLES}` })
    .transform((value, context) => {
      const durationMs = parseDurationMs(value);
      if (durationMs !== null && durationMs >= limits.minMs && durationMs <= limits.maxMs) return durationMs;
      const range = `${formatDurationMs(limits.minMs)} to ${formatDurationMs(limits.maxMs)}`;
      const problem = durationMs === null ? `is not a duration: ${DURATION_EXAMPLES}` : `must be ${range}`;
      context.addIssue({ code: "custom", message: `${JSON.stringify(value)} ${problem}` });
      return z.NEVER;
    });
}

function quantity(options: {
  parse: (value: string | number) => number | null;
  min?: number;
  max: number;
  what: string;
  examples: string;
}) {
  const { parse, min = 0, max, what, examples } = options;
  return z
    .union([z.number(), z.string()], { error: `must be ${what}: ${examples}` })
    .transform((value, context) => {
      const parsed = parse(value);
      if (parsed !== null && parsed >= min && parsed <= max) return parsed;
      const range = parsed !== null && parsed < min ? "is too small" : "is too large";
      const problem = parsed === null ? `is not ${what}: ${examples}` : range;
      context.addIssue({ code: "custom", message: `${JSON.stringify(value)} ${problem}` });
      return z.NEVER;
    });
}

/** Numbers and booleans are taken as the text that they are written with. */
const textValue = z
  .union([z.string(), z.number(), z.boolean()], { error: 'must be text (write "" for none)' })
  .transform(String);

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

const labels = z
  .record(
    z
      .string()
      .max(128, "must have 128 characters at most")
      .regex(LABEL_KEY, "must be letters, digits and . _ / - and begin and end with a letter or digit"),
    textValue.refine((text) => text.length <= 256 && !CONTROL_CHARACTERS.test(text), {
      error: "must be one line of 256 characters at most",
    }),
    { error: "must be a mapping of names to values" },
  )
  .refine((map) => Object.keys(map).length <= 64, { error: "must have 64 entries at most" });

const name = z
  .string("must be text")
  .min(1, "must not be empty")
  .max(200, "must have 200 characters at most")
  .refine((text) => !CONTROL_CHARACTERS.test(text), { error: "must be one line" });

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

function wholeNumber(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z.number(message).int(message).min(min, message).max(max, message);
}

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
    selector: labels.optional().describe("Labels that the worker must have"),
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
      .max(128, "must have 128 characters at most")
      .regex(
        /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/,
        "must be letters, digits and . _ - and begin and end with a letter or digit",
      )
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

export type JobSpec = z.output<typeof jobSchema>;
export type StepSpec = z.output<typeof stepSchema>;

/** The JSON Schema of a job file, for editors. One job, `jobs:` with a list of them, or the list. */
export function jobFileJsonSchema(): Record<string, unknown> {
  const job = z.toJSONSchema(jobSchema, { io: "input", target: "draft-2020-12", reused: "ref" });
  const { $schema, $defs, ...shape } = job as Record<string, unknown>;
  const oneJob = { $ref: "#/$defs/job" };
  const jobs = { type: "array", items: oneJob, minItems: 1 };
  return {
    $schema,
    title: "Hodei job file",
    anyOf: [
      oneJob,
      { type: "object", properties: { jobs }, required: ["jobs"], additionalProperties: false },
      jobs,
    ],
    $defs: { ...($defs as Record<string, unknown> | undefined), job: shape },
  };
}
