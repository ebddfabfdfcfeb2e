/** What worker and server say to each other over the stream, free of the wire's own types. */

import type { AttemptResult, JobDefinition, Progress } from "./job.ts";
import { MAX_RECORD_DATA_BYTES, RECORD_OVERHEAD_BYTES } from "./log-record.ts";
import type { AttemptPhase, ControlAction, WorkerInfo, WorkerUsage } from "./worker.ts";

/** The version of the worker protocol that this code speaks. */
export const PROTOCOL_VERSION = 1;
/**
 * The most log bytes in one message: room for the longest record, and small enough that a heartbeat
 * never waits long behind one.
 */
export const MAX_LOG_BATCH_BYTES = MAX_RECORD_DATA_BYTES + RECORD_OVERHEAD_BYTES;
/** Log bytes a worker may have on their way without an acknowledgement. */
export const LOG_CREDIT_BYTES = 8 * 1024 * 1024;

export interface HeldAttempt {
  attemptId: string;
  phase: AttemptPhase;
  /** Bytes of log written so far, sent or not. */
  logEnd: number;
}

export type WorkerMessage =
  | {
      type: "hello";
      worker: WorkerInfo;
      attempts: HeldAttempt[];
      draining: boolean;
      /** Tells one runner from the next: what an earlier one was sent, it may have begun. */
      runnerId: string;
    }
  | {
      type: "heartbeat";
      sequence: number;
      usage: WorkerUsage | null;
      attempts: HeldAttempt[];
      /** The worker takes no more jobs and leaves when it holds none. */
      draining: boolean;
    }
  | { type: "accepted"; attemptId: string }
  | { type: "started"; attemptId: string; startedAtMs: number }
  | { type: "progress"; attemptId: string; progress: Progress }
  | { type: "log_batch"; attemptId: string; offset: number; data: Uint8Array }
  | { type: "result"; attemptId: string; result: AttemptResult }
  | { type: "control_ack"; attemptId: string; action: ControlAction; error: string };

export interface AttemptVerdict {
  attemptId: string;
  /** False: it is stale; kill its processes and forget it. */
  proceed: boolean;
  /** Bytes of log that the server has on disk. */
  logAcked: number;
}

export type ServerMessage =
  | {
      type: "welcome";
      heartbeatIntervalMs: number;
      leaseMs: number;
      attempts: AttemptVerdict[];
      logCreditBytes: number;
    }
  | { type: "run_job"; attemptId: string; jobId: string; attemptNumber: number; definition: JobDefinition }
  | { type: "control"; attemptId: string; action: ControlAction }
  | { type: "log_ack"; attemptId: string; logAcked: number }
  | { type: "result_ack"; attemptId: string }
  | { type: "heartbeat_ack"; sequence: number }
  | { type: "drain"; reason: string }
  | { type: "goaway"; reason: string };
