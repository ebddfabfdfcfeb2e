/** The job that a command line describes, for `run` and `submit`. */

import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import type { Command } from "commander";
import { AppError } from "../base/errors.ts";
import {
  LOG_QUOTA_POLICIES,
  WORKER_LOST_POLICIES,
  definitionWith,
  type JobDefinition,
  type Resources,
} from "../core/job.ts";
import type { ParsedJob } from "../spec/job-file.ts";
import { CPU_EXAMPLES, SIZE_EXAMPLES, parseCpuMillis, parseSizeBytes } from "../spec/quantities.ts";
import type { CommandCall } from "./command.ts";
import type { CliEnvironment } from "./environment.ts";
import {
  checkQueueName,
  choiceOption,
  collect,
  durationOption,
  invalidOption,
  pairsOption,
  splitPair,
  textOption,
  textsOption,
  wholeNumberOption,
} from "./option-values.ts";
import { addPlacementOptions, placementOptions } from "./placement-options.ts";
import { readSource, sourceError } from "./source-file.ts";

export function addJobOptions(command: Command): void {
  command
    .option("--name <name>", "name of the job")
    .option(
      "-e, --env <NAME=VALUE>",
      "environment variable; NAME alone takes it from here (repeatable)",
      collect,
    )
    .option("--working-directory <directory>", "where the job runs; relative to here")
    .option("--timeout <duration>", "the longest time an attempt may run, such as 90s or 1h30m")
    .option("--queue-timeout <duration>", "the longest time the job may wait for a worker")
    .option("--grace <duration>", "between SIGTERM and SIGKILL at a cancel or time-out")
    .option("--lease <duration>", "how long an attempt is valid without a sign of its worker")
    .option("--on-worker-lost <policy>", `then: ${WORKER_LOST_POLICIES.join(", ")}`)
    .option("--log-quota <size>", "the most output of an attempt that is recorded, such as 100Mi")
    .option("--on-log-quota <policy>", `what becomes of a job with more: ${LOG_QUOTA_POLICIES.join(", ")}`)
    .option("--label <key=value>", "label of the job, for filters (repeatable)", collect)
    .option("--queue <queue>", "queue of the job")
    .option("--priority <number>", "higher goes first; 0 is normal")
    .option("--retries <number>", "new attempts after a failure of the job itself")
    .option("--cpu <amount>", "CPU cores that the job needs, such as 1.5 or 500m")
    .option("--memory <size>", "memory that the job needs, such as 512Mi")
    .option("--disk <size>", "disk space that the job needs, such as 10Gi")
    .option("--gpu <number>", "whole GPUs that the job needs");
  addPlacementOptions(command);
}

/** The jobs of a file, `-` being standard input. */
export async function readJobFile(file: string, environment: CliEnvironment): Promise<ParsedJob[]> {
  const { parseJobFile } = await import("../spec/job-file.ts");
  const hint = "a command stands after two dashes: -- COMMAND ARGUMENTS…";
  const bytes = await readSource(file, { kind: "job", hint }, environment);
  const directory = file === "-" ? environment.cwd : dirname(resolve(environment.cwd, file));
  const result = parseJobFile(bytes, {
    fileName: basename(file),
    readFile: (script) => readFileSync(resolve(directory, script)),
  });
  if (!result.ok) throw await sourceError(file, result.problems);
  return result.jobs;
}

/** A job from the arguments after `--`. */
export function commandJob(argv: readonly string[]): ParsedJob {
  const [cmd, ...args] = argv;
  if (cmd === undefined || cmd === "") {
    throw new AppError("invalid_argument", "there is no command after --", {
      details: { hint: "give the command and its arguments after the two dashes" },
    });
  }
  const name =
    [...basename(cmd)]
      .slice(0, 200)
      .join("")
      .replaceAll(/[\u0000-\u001f\u007f]/g, "?") || "job";
  const definition = definitionWith({ name, command: { kind: "shell", cmd, args } });
  return { definition, idempotencyKey: null };
}

/** What the options say goes before what the file says; maps are merged. */
export function applyJobOptions(
  definition: JobDefinition,
  call: CommandCall,
  environment: CliEnvironment,
): JobDefinition {
  const { options } = call;
  const workingDirectory = textOption(options, "workingDirectory");
  return {
    ...definition,
    name: nameOption(options) ?? definition.name,
    env: { ...definition.env, ...envOption(options, environment) },
    workingDirectory:
      workingDirectory === undefined
        ? definition.workingDirectory
        : resolve(environment.cwd, workingDirectory),
    ...timeOptions(definition, options),
    ...policyOptions(definition, options),
    ...placementOptions(definition, options),
    labels: { ...definition.labels, ...pairsOption(options, "label", "--label") },
    queue: queueOption(options) ?? definition.queue,
    priority:
      wholeNumberOption(options, "priority", { option: "--priority", min: -1000, max: 1000 }) ??
      definition.priority,
    retry: {
      ...definition.retry,
      maxRetries:
        wholeNumberOption(options, "retries", { option: "--retries", min: 0, max: 100 }) ??
        definition.retry.maxRetries,
    },
    resources: { ...definition.resources, ...resourceOptions(options) },
  };
}

function nameOption(options: Record<string, unknown>): string | undefined {
  const name = textOption(options, "name");
  if (name === "") throw invalidOption("--name", "must not be empty");
  return name;
}

/** An empty one is the default queue, as from an unset variable of a script. */
function queueOption(options: Record<string, unknown>): string | undefined {
  const queue = textOption(options, "queue");
  return queue ? checkQueueName(queue, "--queue") : queue;
}

type Times = Pick<JobDefinition, "timeoutMs" | "queueTimeoutMs" | "graceMs" | "leaseMs">;

function timeOptions(definition: JobDefinition, options: Record<string, unknown>): Times {
  const duration = (name: string, option: string, allowsZero = false): number | undefined =>
    durationOption(options, name, { option, allowsZero });
  return {
    timeoutMs: duration("timeout", "--timeout") ?? definition.timeoutMs,
    queueTimeoutMs: duration("queueTimeout", "--queue-timeout") ?? definition.queueTimeoutMs,
    graceMs: duration("grace", "--grace", true) ?? definition.graceMs,
    leaseMs: duration("lease", "--lease") ?? definition.leaseMs,
  };
}

type Policies = Pick<JobDefinition, "onWorkerLost" | "logQuotaBytes" | "onLogQuota">;

function policyOptions(definition: JobDefinition, options: Record<string, unknown>): Policies {
  const onWorkerLost = textOption(options, "onWorkerLost");
  const onLogQuota = textOption(options, "onLogQuota");
  return {
    onWorkerLost:
      onWorkerLost === undefined
        ? definition.onWorkerLost
        : choiceOption(onWorkerLost, WORKER_LOST_POLICIES, "--on-worker-lost"),
    logQuotaBytes: sizeOption(options, "logQuota", "--log-quota") ?? definition.logQuotaBytes,
    onLogQuota:
      onLogQuota === undefined
        ? definition.onLogQuota
        : choiceOption(onLogQuota, LOG_QUOTA_POLICIES, "--on-log-quota"),
  };
}

function resourceOptions(options: Record<string, unknown>): Partial<Resources> {
  const cpu = textOption(options, "cpu");
  const memoryBytes = sizeOption(options, "memory", "--memory");
  const diskBytes = sizeOption(options, "disk", "--disk");
  const gpu = wholeNumberOption(options, "gpu", { option: "--gpu", min: 0, max: 1024 });
  return {
    ...(cpu === undefined
      ? {}
      : {
          cpuMillis: amountOption(parseCpuMillis(cpu), {
            option: "--cpu",
            text: cpu,
            examples: CPU_EXAMPLES,
          }),
        }),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    ...(diskBytes === undefined ? {} : { diskBytes }),
    ...(gpu === undefined ? {} : { gpu }),
  };
}

function sizeOption(options: Record<string, unknown>, name: string, option: string): number | undefined {
  const text = textOption(options, name);
  if (text === undefined) return undefined;
  return amountOption(parseSizeBytes(text), { option, text, examples: SIZE_EXAMPLES });
}

function amountOption(
  value: number | null,
  found: { option: string; text: string; examples: string },
): number {
  if (value !== null) return value;
  throw invalidOption(found.option, `${JSON.stringify(found.text)} is not an amount: ${found.examples}`);
}

function envOption(options: Record<string, unknown>, environment: CliEnvironment): Record<string, string> {
  const env: Record<string, string> = {};
  for (const text of textsOption(options, "env")) {
    const [name, given] = splitPair(text);
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || name === "__proto__") {
      throw invalidOption("--env", `${JSON.stringify(name)} is not the name of an environment variable`);
    }
    const value = given ?? environment.variables[name];
    if (value === undefined)
      throw invalidOption("--env", `${name} is not set here`, `give it a value: --env ${name}=…`);
    env[name] = value;
  }
  return env;
}
