/**
 * What agent and runner say to each other over the runner's Unix socket: one JSON object a line.
 *
 * Log bytes do not pass here: the runner appends them to the spool (see `spool-layout.ts`), says
 * how long the log is, and the agent reads the files. The runner is the owner of every attempt; an
 * agent that connects learns from `hello` all there is to know, so it may crash at any time. Every
 * message is harmless when repeated.
 */

import type { AttemptResult, JobDefinition, Progress } from "../core/job.ts";
import type { AttemptPhase, ControlAction, WorkerUsage } from "../core/worker.ts";

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

/** A line may be as long as a job definition with a 1 MiB script. */
export const MAX_LINE_BYTES = 64 * 1024 * 1024;

/** Cuts a byte stream into lines; keeps the rest for the next call. */
export class LineSplitter {
  #pieces: Buffer[] = [];
  #length = 0;

  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(10, start);
      if (end < 0) break;
      this.#pieces.push(chunk.subarray(start, end));
      lines.push(Buffer.concat(this.#pieces).toString("utf8"));
      this.#pieces = [];
      this.#length = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      this.#pieces.push(chunk.subarray(start));
      this.#length += chunk.length - start;
      if (this.#length > MAX_LINE_BYTES) throw new Error("runner link: a line is too long");
    }
    return lines;
  }
}
