/** The definition of a job between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, type Duration } from "@bufbuild/protobuf/wkt";
import {
  JOB_DEFAULTS,
  type CommandSpec,
  type JobDefinition,
  type LogQuotaPolicy,
  type Resources,
  type RetryPolicy,
  type Step,
  type StepCondition,
  type WorkerLostPolicy,
} from "../core/job.ts";
import {
  concurrencyFromWire,
  placementToWire,
  preferenceFromWire,
  requirementFromWire,
  tolerationFromWire,
} from "./convert-placement.ts";
import * as pb from "./gen/hodei/v1/jobs_pb.ts";
import { inverse } from "./inverse.ts";

const STEP_CONDITION_NUMBER: Record<StepCondition, pb.StepCondition> = {
  success: pb.StepCondition.SUCCESS,
  failure: pb.StepCondition.FAILURE,
  always: pb.StepCondition.ALWAYS,
};

const WORKER_LOST_NUMBER: Record<WorkerLostPolicy, pb.WorkerLostPolicy> = {
  retry: pb.WorkerLostPolicy.RETRY,
  fail: pb.WorkerLostPolicy.FAIL,
  wait: pb.WorkerLostPolicy.WAIT,
};

const LOG_QUOTA_NUMBER: Record<LogQuotaPolicy, pb.LogQuotaPolicy> = {
  fail: pb.LogQuotaPolicy.FAIL,
  truncate: pb.LogQuotaPolicy.TRUNCATE,
};

const stepConditionName = inverse(STEP_CONDITION_NUMBER);
const workerLostName = inverse(WORKER_LOST_NUMBER);
const logQuotaName = inverse(LOG_QUOTA_NUMBER);

/** One literal for all fields: to spread some of them would cost twice the rest, in each of thousands of jobs. */
export function definitionFromWire(message: pb.JobDefinition): JobDefinition {
  return {
    name: message.name,
    command: message.command ? commandFromWire(message.command) : null,
    steps: message.steps.map(stepFromWire),
    env: message.env,
    workingDirectory: message.workingDirectory,
    resources: resourcesFromWire(message.resources),
    selector: message.selector,
    selectorExpressions: message.selectorExpressions.map(requirementFromWire),
    tolerations: message.tolerations.map(tolerationFromWire),
    capabilities: message.capabilities,
    preferences: message.preferences.map(preferenceFromWire),
    concurrency: message.concurrency ? concurrencyFromWire(message.concurrency) : null,
    preemptible: message.preemptible,
    timeoutMs: durationOr(message.timeout, JOB_DEFAULTS.timeoutMs),
    queueTimeoutMs: durationOr(message.queueTimeout, JOB_DEFAULTS.queueTimeoutMs),
    graceMs: durationOr(message.grace, JOB_DEFAULTS.graceMs),
    leaseMs: durationOr(message.lease, JOB_DEFAULTS.leaseMs),
    onWorkerLost: workerLostName(message.onWorkerLost) ?? JOB_DEFAULTS.onWorkerLost,
    retry: retryFromWire(message.retry),
    logQuotaBytes: Number(message.logQuotaBytes ?? JOB_DEFAULTS.logQuotaBytes),
    onLogQuota: logQuotaName(message.onLogQuota) ?? JOB_DEFAULTS.onLogQuota,
    priority: message.priority,
    queue: message.queue || JOB_DEFAULTS.queue,
    labels: message.labels,
  };
}

export function definitionToWire(definition: JobDefinition): pb.JobDefinition {
  return create(pb.JobDefinitionSchema, {
    name: definition.name,
    ...(definition.command ? { command: commandToWire(definition.command) } : {}),
    steps: definition.steps.map(stepToWire),
    env: definition.env,
    workingDirectory: definition.workingDirectory,
    resources: resourcesToWire(definition.resources),
    selector: definition.selector,
    ...placementToWire(definition),
    timeout: durationFromMs(definition.timeoutMs),
    queueTimeout: durationFromMs(definition.queueTimeoutMs),
    grace: durationFromMs(definition.graceMs),
    lease: durationFromMs(definition.leaseMs),
    onWorkerLost: WORKER_LOST_NUMBER[definition.onWorkerLost],
    retry: retryToWire(definition.retry),
    logQuotaBytes: BigInt(definition.logQuotaBytes),
    onLogQuota: LOG_QUOTA_NUMBER[definition.onLogQuota],
    priority: definition.priority,
    queue: definition.queue,
    labels: definition.labels,
  });
}

function commandFromWire(message: pb.CommandSpec): CommandSpec {
  const { commandType } = message;
  switch (commandType.case) {
    case "shell":
      return { kind: "shell", cmd: commandType.value.cmd, args: commandType.value.args };
    case "script":
      return {
        kind: "script",
        interpreter: commandType.value.interpreter || JOB_DEFAULTS.interpreter,
        content: commandType.value.content,
        safetyHeaders: !commandType.value.noSafetyHeaders,
      };
    case undefined:
      // Unreachable behind the constraints; an empty command then fails at its start.
      return { kind: "shell", cmd: "", args: [] };
  }
}

function commandToWire(command: CommandSpec): pb.CommandSpec {
  if (command.kind === "shell") {
    return create(pb.CommandSpecSchema, {
      commandType: {
        case: "shell",
        value: create(pb.ShellCommandSchema, { cmd: command.cmd, args: command.args }),
      },
    });
  }
  return create(pb.CommandSpecSchema, {
    commandType: {
      case: "script",
      value: create(pb.ScriptCommandSchema, {
        interpreter: command.interpreter,
        content: command.content,
        noSafetyHeaders: !command.safetyHeaders,
      }),
    },
  });
}

function stepFromWire(message: pb.Step): Step {
  return {
    name: message.name,
    command: message.command ? commandFromWire(message.command) : { kind: "shell", cmd: "", args: [] },
    env: message.env,
    workingDirectory: message.workingDirectory,
    condition: stepConditionName(message.condition) ?? "success",
    timeoutMs: message.timeout ? Math.round(durationMs(message.timeout)) : null,
    continueOnError: message.continueOnError,
  };
}

function stepToWire(step: Step): pb.Step {
  return create(pb.StepSchema, {
    name: step.name,
    command: commandToWire(step.command),
    env: step.env,
    workingDirectory: step.workingDirectory,
    condition: STEP_CONDITION_NUMBER[step.condition],
    ...(step.timeoutMs === null ? {} : { timeout: durationFromMs(step.timeoutMs) }),
    continueOnError: step.continueOnError,
  });
}

function resourcesFromWire(message: pb.ResourceRequirements | undefined): Resources {
  return {
    cpuMillis: message?.cpuMillis ?? 0,
    memoryBytes: Number(message?.memoryBytes ?? 0n),
    diskBytes: Number(message?.diskBytes ?? 0n),
    gpu: message?.gpu ?? 0,
  };
}

function resourcesToWire(resources: Resources): pb.ResourceRequirements {
  return create(pb.ResourceRequirementsSchema, {
    cpuMillis: resources.cpuMillis,
    memoryBytes: BigInt(resources.memoryBytes),
    diskBytes: BigInt(resources.diskBytes),
    gpu: resources.gpu,
  });
}

function retryFromWire(message: pb.RetryPolicy | undefined): RetryPolicy {
  return {
    maxRetries: message?.maxRetries ?? JOB_DEFAULTS.maxRetries,
    maxInfrastructureRetries: message?.maxInfrastructureRetries ?? JOB_DEFAULTS.maxInfrastructureRetries,
    backoffMs: durationOr(message?.backoff, JOB_DEFAULTS.backoffMs),
    maxBackoffMs: durationOr(message?.maxBackoff, JOB_DEFAULTS.maxBackoffMs),
    exitCodes: message?.exitCodes ?? [],
  };
}

function retryToWire(retry: RetryPolicy): pb.RetryPolicy {
  return create(pb.RetryPolicySchema, {
    maxRetries: retry.maxRetries,
    maxInfrastructureRetries: retry.maxInfrastructureRetries,
    backoff: durationFromMs(retry.backoffMs),
    maxBackoff: durationFromMs(retry.maxBackoffMs),
    exitCodes: retry.exitCodes,
  });
}

function durationOr(duration: Duration | undefined, fallbackMs: number): number {
  return duration ? Math.round(durationMs(duration)) : fallbackMs;
}
