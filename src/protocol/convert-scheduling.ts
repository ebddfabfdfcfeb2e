/** Queues, decisions and what stands in the way of a job, between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { PoolVerdict, WorkerVerdict } from "../core/explain.ts";
import type { Blocker, BlockerKind } from "../core/placement.ts";
import { defaultQueue, type QueueConfig } from "../core/pool.ts";
import type { DecisionKind, SchedulingDecision } from "../core/scheduling-decision.ts";
import { timeFromWire } from "./convert.ts";
import * as pb from "./gen/hodei/v1/scheduling_pb.ts";
import { inverse } from "./inverse.ts";

const DECISION_KIND_NUMBER: Record<DecisionKind, pb.DecisionKind> = {
  assigned: pb.DecisionKind.ASSIGNED,
  provisioning: pb.DecisionKind.PROVISIONING,
  preempting: pb.DecisionKind.PREEMPTING,
  waiting: pb.DecisionKind.WAITING,
  impossible: pb.DecisionKind.IMPOSSIBLE,
  failed: pb.DecisionKind.FAILED,
  ended: pb.DecisionKind.ENDED,
};

const BLOCKER_KIND_NUMBER: Record<BlockerKind, pb.BlockerKind> = {
  label: pb.BlockerKind.LABEL,
  too_small: pb.BlockerKind.TOO_SMALL,
  busy: pb.BlockerKind.BUSY,
  taint: pb.BlockerKind.TAINT,
  capability: pb.BlockerKind.CAPABILITY,
  unavailable: pb.BlockerKind.UNAVAILABLE,
  pool_full: pb.BlockerKind.POOL_FULL,
  provider: pb.BlockerKind.PROVIDER,
};

const decisionKindName = inverse(DECISION_KIND_NUMBER);
const blockerKindName = inverse(BLOCKER_KIND_NUMBER);

// ── Queues ─────────────────────────────────────────────────────────────────────────────────────

export function queueConfigFromWire(message: pb.QueueConfig): QueueConfig {
  return {
    name: message.name,
    weight: message.weight || defaultQueue(message.name).weight,
    maxRunning: message.maxRunning ?? null,
    maxPending: message.maxPending ?? null,
    paused: message.paused,
  };
}

export function queueConfigToWire(queue: QueueConfig): pb.QueueConfig {
  const { name, weight, maxRunning, maxPending, paused } = queue;
  return create(pb.QueueConfigSchema, {
    name,
    weight,
    paused,
    ...(maxRunning === null ? {} : { maxRunning }),
    ...(maxPending === null ? {} : { maxPending }),
  });
}

// ── Decisions ──────────────────────────────────────────────────────────────────────────────────

export function decisionToWire(decision: SchedulingDecision): pb.SchedulingDecision {
  return create(pb.SchedulingDecisionSchema, {
    jobId: decision.jobId,
    kind: DECISION_KIND_NUMBER[decision.kind],
    reason: decision.reason,
    time: timestampFromMs(decision.atMs),
    workerId: decision.workerId ?? "",
    pool: decision.pool ?? "",
    queue: decision.queue,
  });
}

export function decisionFromWire(message: pb.SchedulingDecision): SchedulingDecision {
  return {
    jobId: message.jobId,
    queue: message.queue,
    kind: decisionKindName(message.kind) ?? "waiting",
    reason: message.reason,
    atMs: timeFromWire(message.time) ?? 0,
    workerId: message.workerId || null,
    pool: message.pool || null,
  };
}

// ── Verdicts ───────────────────────────────────────────────────────────────────────────────────

export function workerVerdictToWire(verdict: WorkerVerdict): pb.WorkerVerdict {
  const { workerId, name, pool, fits } = verdict;
  const blockers = verdict.blockers.map(blockerToWire);
  return create(pb.WorkerVerdictSchema, { workerId, name, pool, fits, blockers });
}

export function workerVerdictFromWire(message: pb.WorkerVerdict): WorkerVerdict {
  const { workerId, name, pool, fits } = message;
  return { workerId, name, pool, fits, blockers: message.blockers.map(blockerFromWire) };
}

export function poolVerdictToWire(verdict: PoolVerdict): pb.PoolVerdict {
  const { name, fits, arriving } = verdict;
  return create(pb.PoolVerdictSchema, {
    name,
    fits,
    arriving,
    blockers: verdict.blockers.map(blockerToWire),
  });
}

export function poolVerdictFromWire(message: pb.PoolVerdict): PoolVerdict {
  const { name, fits, arriving } = message;
  return { name, fits, arriving, blockers: message.blockers.map(blockerFromWire) };
}

function blockerToWire({ kind, message, change }: Blocker): pb.Blocker {
  return create(pb.BlockerSchema, { kind: BLOCKER_KIND_NUMBER[kind], message, change });
}

function blockerFromWire({ kind, message, change }: pb.Blocker): Blocker {
  return { kind: blockerKindName(kind) ?? "unavailable", message, change };
}
