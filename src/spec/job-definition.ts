/** Turns a checked job of a file into the definition that the API takes. */

import { errorMessage } from "../base/errors.ts";
import { JOB_DEFAULTS, type CommandSpec, type JobDefinition, type Step } from "../core/job.ts";
import type { RuleBreach } from "./job-rules.ts";
import { MAX_SCRIPT_BYTES, type JobSpec, type StepSpec } from "./job-schema.ts";
import type { ValuePath } from "./problem.ts";

/** Reads a script that a job file names. The path is as written there. Throws if it cannot. */
export type ReadScriptFile = (path: string) => Uint8Array;

export interface DefinitionContext {
  defaultName: string;
  readFile: ReadScriptFile | null;
  /** Gets what is wrong with script files. */
  breaches: RuleBreach[];
}

export function toJobDefinition(spec: JobSpec, context: DefinitionContext): JobDefinition {
  return {
    name: spec.name ?? context.defaultName,
    command: toCommand(spec, [], context),
    steps: (spec.steps ?? []).map((step, index) => toStep(step, index, context)),
    env: spec.env ?? {},
    workingDirectory: spec.workingDirectory ?? "",
    resources: {
      cpuMillis: spec.resources?.cpu ?? 0,
      memoryBytes: spec.resources?.memory ?? 0,
      diskBytes: spec.resources?.disk ?? 0,
      gpu: spec.resources?.gpu ?? 0,
    },
    selector: spec.selector?.selector ?? {},
    selectorExpressions: spec.selector?.expressions ?? [],
    tolerations: spec.tolerations ?? [],
    capabilities: spec.capabilities ?? [],
    preferences: spec.preferences ?? [],
    concurrency: spec.concurrency ?? null,
    preemptible: spec.preemptible ?? false,
    timeoutMs: spec.timeout ?? JOB_DEFAULTS.timeoutMs,
    queueTimeoutMs: spec.queueTimeout ?? JOB_DEFAULTS.queueTimeoutMs,
    graceMs: spec.grace ?? JOB_DEFAULTS.graceMs,
    leaseMs: spec.lease ?? JOB_DEFAULTS.leaseMs,
    onWorkerLost: spec.onWorkerLost ?? JOB_DEFAULTS.onWorkerLost,
    retry: {
      maxRetries: spec.retry?.max ?? JOB_DEFAULTS.maxRetries,
      maxInfrastructureRetries: spec.retry?.infrastructure ?? JOB_DEFAULTS.maxInfrastructureRetries,
      backoffMs: spec.retry?.backoff ?? JOB_DEFAULTS.backoffMs,
      maxBackoffMs: spec.retry?.maxBackoff ?? JOB_DEFAULTS.maxBackoffMs,
      exitCodes: spec.retry?.exitCodes ?? [],
    },
    logQuotaBytes: spec.logQuota ?? JOB_DEFAULTS.logQuotaBytes,
    onLogQuota: spec.onLogQuota ?? JOB_DEFAULTS.onLogQuota,
    priority: spec.priority ?? 0,
    queue: spec.queue ?? JOB_DEFAULTS.queue,
    labels: spec.labels ?? {},
  };
}

function toStep(spec: StepSpec, index: number, context: DefinitionContext): Step {
  const command = toCommand(spec, ["steps", index], context);
  return {
    name: spec.name ?? stepName(command, index),
    // The rules refuse a step without a command; its definition is thrown away then.
    command: command ?? { kind: "shell", cmd: "", args: [] },
    env: spec.env ?? {},
    workingDirectory: spec.workingDirectory ?? "",
    condition: spec.if ?? "success",
    timeoutMs: spec.timeout ?? null,
    continueOnError: spec.continueOnError ?? false,
  };
}

const MAX_DERIVED_NAME_CHARS = 60;

/** A step without a name is called by the first line that does something. */
function stepName(command: CommandSpec | null, index: number): string {
  const text =
    command?.kind === "shell" ? [command.cmd, ...command.args].join(" ") : (command?.content ?? "");
  const lines = text.split("\n").map((line) => line.replaceAll(/[\u0000-\u001f\u007f]+/g, " ").trim());
  const line = lines.find((candidate) => candidate !== "" && !candidate.startsWith("#"));
  if (line === undefined) return `step ${index + 1}`;
  return [...line].length > MAX_DERIVED_NAME_CHARS
    ? `${[...line].slice(0, MAX_DERIVED_NAME_CHARS - 1).join("")}…`
    : line;
}

function toCommand(
  spec: Pick<StepSpec, "run" | "command" | "script">,
  path: ValuePath,
  context: DefinitionContext,
): CommandSpec | null {
  if (typeof spec.run === "string") {
    return { kind: "script", interpreter: JOB_DEFAULTS.interpreter, content: spec.run, safetyHeaders: true };
  }
  const argv = spec.run ?? spec.command;
  if (argv) return { kind: "shell", cmd: argv[0] ?? "", args: argv.slice(1) };
  if (!spec.script) return null;
  const { interpreter, content, file, safetyHeaders } = spec.script;
  return {
    kind: "script",
    interpreter: interpreter || JOB_DEFAULTS.interpreter,
    content: content ?? (file === undefined ? "" : readScript(file, [...path, "script", "file"], context)),
    safetyHeaders: safetyHeaders ?? true,
  };
}

function readScript(file: string, path: ValuePath, context: DefinitionContext): string {
  const refuse = (message: string): string => {
    context.breaches.push({ path, message, hint: "" });
    return "";
  };
  if (!context.readFile) return refuse("script files cannot be read here; use content");
  let bytes: Uint8Array;
  try {
    bytes = context.readFile(file);
  } catch (error) {
    return refuse(`cannot read ${file}: ${errorMessage(error)}`);
  }
  if (bytes.byteLength > MAX_SCRIPT_BYTES) return refuse(`${file} is longer than 1 MiB`);
  if (bytes.byteLength === 0) return refuse(`${file} is empty`);
  if (bytes.includes(0)) return refuse(`${file} has a NUL byte: it is not a script`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // The decoder's own message says no more than this one.
    return refuse(`${file} is not UTF-8 text`);
  }
}
