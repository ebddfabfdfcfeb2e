/**
 * What agent and runner say to each other, without its lines (protocol/line-splitter.ts).
 *
 * Log bytes do not pass here: the runner appends them to the spool (see `spool-layout.ts`), says
 * how long the log is, and the agent reads the files. The runner is the owner of every attempt; an
 * agent that connects learns from `hello` all there is to know, so it may crash at any time. Every
 * message is harmless when repeated.
 */

import type { AttemptResult, JobDefinition, Progress } from "./job.ts";
import type { AttemptPhase, ControlAction, WorkerUsage } from "./worker.ts";

/** An attempt as the runner holds it. */
export interface RunnerAttempt {
  attemptId: string;
  jobId: string;
  phase: AttemptPhase;
  startedAtMs: number | null;
  /** Bytes of log in the spool, from the beginning of the attempt. */
  logEnd: number;
  progress: Progress | null;
  /** Set exactly in phase `finished`. */
  result: AttemptResult | null;
}

export type AgentToRunner =
  | {
      type: "run";
      attemptId: string;
      jobId: string;
      attemptNumber: number;
      definition: JobDefinition;
      /** When the lease was renewed last, on the clock of base/boot-clock.ts. */
      leaseFromMs: number;
    }
  | { type: "control"; attemptId: string; action: ControlAction }
  /** The server has the log on disk up to here: spool segments below may go. */
  | { type: "log_acked"; attemptId: string; logAcked: number }
  /** The server has result and log: remove everything of this attempt. */
  | { type: "forget"; attemptId: string }
  /** The lease of every attempt counts from then, on the clock of base/boot-clock.ts. */
  | { type: "lease_renewed"; leaseFromMs: number }
  /** Exit as soon as no attempt is left. With `kill`, kill what runs first. */
  | { type: "shutdown"; kill: boolean };

export type RunnerToAgent =
  | {
      type: "hello";
      /** Of this runner alone, from its start to its end. */
      runnerId: string;
      pid: number;
      version: string;
      capabilities: string[];
      attempts: RunnerAttempt[];
    }
  | { type: "accepted"; attemptId: string }
  | { type: "started"; attemptId: string; startedAtMs: number }
  | { type: "phase"; attemptId: string; phase: AttemptPhase }
  | { type: "progress"; attemptId: string; progress: Progress }
  | { type: "log"; attemptId: string; logEnd: number }
  | { type: "result"; attemptId: string; result: AttemptResult }
  | { type: "control_ack"; attemptId: string; action: ControlAction; error: string }
  | { type: "usage"; usage: WorkerUsage }
  /** Processes cannot be ended, so this worker must get no more jobs. May come before the hello. */
  | { type: "broken"; message: string };
