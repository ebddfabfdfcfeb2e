/** The job that a command line describes, for `run` and `submit`. */

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import type { Command } from "commander";
import { AppError, errorMessage } from "../base/errors.ts";
import { definitionWith, type JobDefinition } from "../core/job.ts";
import type { ParsedJob } from "../spec/job-file.ts";
import {
  CPU_EXAMPLES,
  DURATION_EXAMPLES,
  SIZE_EXAMPLES,
  parseCpuMillis,
  parseDurationMs,
  parseSizeBytes,
} from "../spec/quantities.ts";
import type { CommandCall } from "./command.ts";
import type { CliEnvironment } from "./environment.ts";
import {
  collect,
  invalidOption,
  pairsOption,
  splitPair,
  textOption,
  textsOption,
  wholeNumberOption,
} from "./option-values.ts";

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
    .option("--selector <key=value>", "label that the worker must have (repeatable)", collect)
    .option("--label <key=value>", "label of the job, for filters (repeatable)", collect)
    .option("--queue <queue>", "queue of the job")
    .option("--priority <number>", "higher goes first; 0 is normal")
    .option("--retries <number>", "new attempts after a failure of the job itself")
    .option("--cpu <amount>", "CPU cores that the job needs, such as 1.5 or 500m")
    .option("--memory <size>", "memory that the job needs, such as 512Mi");
}

/** The jobs of a file, `-` being standard input. */
export async function readJobFile(file: string, environment: CliEnvironment): Promise<ParsedJob[]> {
  const { MAX_JOB_FILE_BYTES, parseJobFile } = await import("../spec/job-file.ts");
  const isStdin = file === "-";
  const path = resolve(environment.cwd, file);
  const bytes = isStdin ? await readAll(environment.stdin, MAX_JOB_FILE_BYTES) : await readFromDisk(path);
  const result = parseJobFile(bytes, {
    fileName: isStdin ? "-" : basename(path),
    readFile: (script) => readFileSync(resolve(isStdin ? environment.cwd : dirname(path), script)),
  });
  if (result.ok) return result.jobs;
  const { formatProblem } = await import("../spec/problem.ts");
  const { problems } = result;
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  throw new AppError("invalid_argument", `read ${isStdin ? "standard input" : file}: ${count}`, {
    details: { problems: problems.map((problem) => formatProblem(problem, isStdin ? "stdin" : file)) },
  });
}

async function readFromDisk(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new AppError("invalid_argument", `read job file: ${errorMessage(error)}`, {
      cause: error,
      details: { hint: "to run a command, put it after two dashes: hodei run -- COMMAND" },
    });
  }
}

async function readAll(stdin: AsyncIterable<unknown>, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes = Buffer.from(chunk as Uint8Array | string);
    chunks.push(bytes);
    size += bytes.length;
    // One byte more than allowed is enough for the parser to say so.
    if (size > maxBytes) break;
  }
  return Buffer.concat(chunks);
}

/** A job from the arguments after `--`. */
export function commandJob(argv: readonly string[]): ParsedJob {
  const [cmd, ...args] = argv;
  if (cmd === undefined || cmd === "") {
    throw new AppError("invalid_argument", "there is no command after --", {
      details: { hint: "hodei run -- COMMAND ARGUMENTS…" },
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
  const cpu = textOption(options, "cpu");
  const memory = textOption(options, "memory");
  const timeout = textOption(options, "timeout");
  return {
    ...definition,
    name: textOption(options, "name") ?? definition.name,
    env: { ...definition.env, ...envOption(options, environment) },
    workingDirectory:
      workingDirectory === undefined
        ? definition.workingDirectory
        : resolve(environment.cwd, workingDirectory),
    timeoutMs: timeout === undefined ? definition.timeoutMs : timeoutOption(timeout),
    selector: { ...definition.selector, ...pairsOption(options, "selector", "--selector") },
    labels: { ...definition.labels, ...pairsOption(options, "label", "--label") },
    queue: textOption(options, "queue") ?? definition.queue,
    priority:
      wholeNumberOption(options, "priority", { option: "--priority", min: -1000, max: 1000 }) ??
      definition.priority,
    retry: {
      ...definition.retry,
      maxRetries:
        wholeNumberOption(options, "retries", { option: "--retries", min: 0, max: 100 }) ??
        definition.retry.maxRetries,
    },
    resources: {
      ...definition.resources,
      ...(cpu === undefined
        ? {}
        : {
            cpuMillis: amountOption(parseCpuMillis(cpu), {
              option: "--cpu",
              text: cpu,
              examples: CPU_EXAMPLES,
            }),
          }),
      ...(memory === undefined
        ? {}
        : {
            memoryBytes: amountOption(parseSizeBytes(memory), {
              option: "--memory",
              text: memory,
              examples: SIZE_EXAMPLES,
            }),
          }),
    },
  };
}

function amountOption(
  value: number | null,
  found: { option: string; text: string; examples: string },
): number {
  if (value !== null) return value;
  throw invalidOption(found.option, `${JSON.stringify(found.text)} is not an amount: ${found.examples}`);
}

function timeoutOption(text: string): number {
  const timeoutMs = parseDurationMs(text);
  if (timeoutMs !== null && timeoutMs > 0) return timeoutMs;
  throw invalidOption("--timeout", `${JSON.stringify(text)} is not a duration: ${DURATION_EXAMPLES}`);
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
