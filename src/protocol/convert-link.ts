/** The messages of the worker stream between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { JOB_DEFAULTS } from "../core/job.ts";
import { HEARTBEAT_INTERVAL_MS } from "../core/lease.ts";
import type { HeldAttempt, ServerMessage, WorkerMessage } from "../core/link.ts";
import type { AttemptPhase, ControlAction } from "../core/worker.ts";
import { definitionFromWire, definitionToWire } from "./convert-definition.ts";
import {
  workerInfoFromWire,
  workerInfoToWire,
  workerUsageFromWire,
  workerUsageToWire,
} from "./convert-worker.ts";
import { progressFromWire, progressToWire, resultFromWire, resultToWire, timeFromWire } from "./convert.ts";
import { JobDefinitionSchema } from "./gen/hodei/v1/jobs_pb.ts";
import * as pb from "./gen/hodei/v1/workers_pb.ts";
import { inverse } from "./inverse.ts";

const PHASE_NUMBER: Record<AttemptPhase, pb.AttemptPhase> = {
  accepted: pb.AttemptPhase.ACCEPTED,
  running: pb.AttemptPhase.RUNNING,
  paused: pb.AttemptPhase.PAUSED,
  finished: pb.AttemptPhase.FINISHED,
};
const phaseName = inverse(PHASE_NUMBER);

const ACTION_NUMBER: Record<ControlAction, pb.ControlAction> = {
  cancel: pb.ControlAction.CANCEL,
  pause: pb.ControlAction.PAUSE,
  resume: pb.ControlAction.RESUME,
  kill: pb.ControlAction.KILL,
};
const actionName = inverse(ACTION_NUMBER);

function heldToWire(held: readonly HeldAttempt[]): pb.HeldAttempt[] {
  return held.map(({ attemptId, phase, logEnd }) =>
    create(pb.HeldAttemptSchema, { attemptId, phase: PHASE_NUMBER[phase], logEnd: BigInt(logEnd) }),
  );
}

function heldFromWire(held: readonly pb.HeldAttempt[]): HeldAttempt[] {
  return held.map(({ attemptId, phase, logEnd }) => ({
    attemptId,
    phase: phaseName(phase) ?? "accepted",
    logEnd: Number(logEnd),
  }));
}

export function workerMessageToWire(message: WorkerMessage): pb.WorkerStreamRequest {
  return create(pb.WorkerStreamRequestSchema, { message: workerMessageBody(message) });
}

type RequestBody = Extract<pb.WorkerStreamRequest["message"], { value: unknown }>;

function workerMessageBody(message: WorkerMessage): RequestBody {
  switch (message.type) {
    case "hello": {
      const value = create(pb.HelloSchema, {
        worker: workerInfoToWire(message.worker),
        attempts: heldToWire(message.attempts),
        draining: message.draining,
        runnerId: message.runnerId,
      });
      return { case: "hello", value };
    }
    case "heartbeat": {
      const value = create(pb.HeartbeatSchema, {
        sequence: BigInt(message.sequence),
        attempts: heldToWire(message.attempts),
        draining: message.draining,
        ...(message.usage ? { usage: workerUsageToWire(message.usage) } : {}),
      });
      return { case: "heartbeat", value };
    }
    case "accepted":
      return { case: "accepted", value: create(pb.AcceptedSchema, { attemptId: message.attemptId }) };
    case "started": {
      const startedAt = timestampFromMs(message.startedAtMs);
      return {
        case: "started",
        value: create(pb.StartedSchema, { attemptId: message.attemptId, startedAt }),
      };
    }
    case "progress": {
      const progress = progressToWire(message.progress);
      return {
        case: "progress",
        value: create(pb.ProgressSchema, { attemptId: message.attemptId, progress }),
      };
    }
    case "log_batch": {
      const { attemptId, offset, data } = message;
      const value = create(pb.LogBatchSchema, { attemptId, offset: BigInt(offset), data });
      return { case: "logBatch", value };
    }
    case "result": {
      const value = create(pb.AttemptResultSchema, {
        attemptId: message.attemptId,
        ...resultToWire(message.result),
      });
      return { case: "result", value };
    }
    case "control_ack": {
      const { attemptId, error } = message;
      const value = create(pb.ControlAckSchema, { attemptId, action: ACTION_NUMBER[message.action], error });
      return { case: "controlAck", value };
    }
  }
}

/** Null for a message that this version does not know: it is skipped. */
export function workerMessageFromWire(request: pb.WorkerStreamRequest): WorkerMessage | null {
  const { message } = request;
  switch (message.case) {
    case "hello": {
      const { worker, attempts, draining, runnerId } = message.value;
      if (!worker) return null;
      return {
        type: "hello",
        worker: workerInfoFromWire(worker),
        attempts: heldFromWire(attempts),
        draining,
        runnerId,
      };
    }
    case "heartbeat": {
      const { sequence, usage, attempts, draining } = message.value;
      return {
        type: "heartbeat",
        sequence: Number(sequence),
        usage: usage ? workerUsageFromWire(usage) : null,
        attempts: heldFromWire(attempts),
        draining,
      };
    }
    case "accepted":
      return { type: "accepted", attemptId: message.value.attemptId };
    case "started": {
      const { attemptId, startedAt } = message.value;
      return { type: "started", attemptId, startedAtMs: timeFromWire(startedAt) ?? 0 };
    }
    case "progress": {
      const { attemptId, progress } = message.value;
      return progress ? { type: "progress", attemptId, progress: progressFromWire(progress) } : null;
    }
    case "logBatch": {
      const { attemptId, offset, data } = message.value;
      return { type: "log_batch", attemptId, offset: Number(offset), data };
    }
    case "result":
      return { type: "result", attemptId: message.value.attemptId, result: resultFromWire(message.value) };
    case "controlAck": {
      const { attemptId, action, error } = message.value;
      const name = actionName(action);
      return name ? { type: "control_ack", attemptId, action: name, error } : null;
    }
    case undefined:
      return null;
  }
}

export function serverMessageToWire(message: ServerMessage): pb.WorkerStreamResponse {
  return create(pb.WorkerStreamResponseSchema, { message: serverMessageBody(message) });
}

type ResponseBody = Extract<pb.WorkerStreamResponse["message"], { value: unknown }>;

function serverMessageBody(message: ServerMessage): ResponseBody {
  switch (message.type) {
    case "welcome": {
      const value = create(pb.WelcomeSchema, {
        heartbeatInterval: durationFromMs(message.heartbeatIntervalMs),
        lease: durationFromMs(message.leaseMs),
        attempts: message.attempts.map(({ attemptId, proceed, logAcked }) => ({
          attemptId,
          proceed,
          logAcked: BigInt(logAcked),
        })),
        logCredit: BigInt(message.logCreditBytes),
      });
      return { case: "welcome", value };
    }
    case "run_job": {
      const { attemptId, jobId, attemptNumber } = message;
      const definition = definitionToWire(message.definition);
      return {
        case: "runJob",
        value: create(pb.RunJobSchema, { attemptId, jobId, attemptNumber, definition }),
      };
    }
    case "control": {
      const { attemptId } = message;
      const action = ACTION_NUMBER[message.action];
      return { case: "control", value: create(pb.ControlSchema, { attemptId, action }) };
    }
    case "log_ack": {
      const value = create(pb.LogAckSchema, {
        attemptId: message.attemptId,
        logAcked: BigInt(message.logAcked),
      });
      return { case: "logAck", value };
    }
    case "result_ack":
      return { case: "resultAck", value: create(pb.ResultAckSchema, { attemptId: message.attemptId }) };
    case "heartbeat_ack":
      return {
        case: "heartbeatAck",
        value: create(pb.HeartbeatAckSchema, { sequence: BigInt(message.sequence) }),
      };
    case "drain":
      return { case: "drain", value: create(pb.DrainSchema, { reason: message.reason }) };
    case "goaway":
      return { case: "goaway", value: create(pb.GoawaySchema, { reason: message.reason }) };
  }
}

/** Null for a message that this version does not know: it is skipped. */
export function serverMessageFromWire(response: pb.WorkerStreamResponse): ServerMessage | null {
  const { message } = response;
  switch (message.case) {
    case "welcome": {
      const { heartbeatInterval, lease, attempts, logCredit } = message.value;
      return {
        type: "welcome",
        heartbeatIntervalMs: heartbeatInterval ? durationMs(heartbeatInterval) : HEARTBEAT_INTERVAL_MS,
        leaseMs: lease ? durationMs(lease) : JOB_DEFAULTS.leaseMs,
        attempts: attempts.map(({ attemptId, proceed, logAcked }) => ({
          attemptId,
          proceed,
          logAcked: Number(logAcked),
        })),
        logCreditBytes: Number(logCredit),
      };
    }
    case "runJob": {
      const { attemptId, jobId, attemptNumber, definition } = message.value;
      return {
        type: "run_job",
        attemptId,
        jobId,
        attemptNumber,
        definition: definitionFromWire(definition ?? create(JobDefinitionSchema)),
      };
    }
    case "control": {
      const action = actionName(message.value.action);
      return action ? { type: "control", attemptId: message.value.attemptId, action } : null;
    }
    case "logAck":
      return {
        type: "log_ack",
        attemptId: message.value.attemptId,
        logAcked: Number(message.value.logAcked),
      };
    case "resultAck":
      return { type: "result_ack", attemptId: message.value.attemptId };
    case "heartbeatAck":
      return { type: "heartbeat_ack", sequence: Number(message.value.sequence) };
    case "drain":
      return { type: "drain", reason: message.value.reason };
    case "goaway":
      return { type: "goaway", reason: message.value.reason };
    case "rotateCertificate":
    case undefined:
      return null;
  }
}
