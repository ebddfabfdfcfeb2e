/**
 * The server's half of the session with one worker: what it believes the worker holds, and what it
 * does when something happens.
 *
 * No IO and no clock of its own, like the other half. The database is the truth about jobs; this
 * state lives as long as one stream and is built from the database and the worker's hello. Every
 * effect on a job goes through the store, which refuses stale attempts under the job's row lock;
 * the checks here only save round trips and tell the worker to kill what is stale.
 *
 * Cancel, pause and resume are wishes of the job, not messages: the worker is told when the wish
 * arises, after each reconnect, and with each heartbeat until the job shows that it was done.
 */

import type { JobInput } from "./job-input.ts";
import { JOB_DEFAULTS, type AttemptResult, type Job, type JobDefinition, type JobState } from "./job.ts";
import { HEARTBEAT_INTERVAL_MS } from "./lease.ts";
import {
  LOG_CREDIT_BYTES,
  type AttemptVerdict,
  type HeldAttempt,
  type ServerMessage,
  type WorkerMessage,
} from "./link.ts";
import type { ControlAction, WorkerUsage } from "./worker.ts";

/** An attempt that this worker should hold. */
export interface ServerAttempt {
  attemptId: string;
  jobId: string;
  attemptNumber: number;
  definition: JobDefinition;
  /** The worker said that it has it. */
  confirmed: boolean;
  /** Bytes of log that are on disk here. */
  logDurable: number;
  /** The result, while it waits for the rest of the log or for the store. */
  result: AttemptResult | null;
  /** The result went to the store; its acknowledgement follows. */
  isEnding: boolean;
  /** The job when it was last seen. */
  jobVersion: number;
  jobState: JobState;
  pauseWanted: boolean;
  /** What the worker was told last; null if nothing is wanted. */
  told: ControlAction | null;
}

export interface ServerSession {
  workerId: string;
  attempts: Map<string, ServerAttempt>;
  connectedAtMs: number;
  /** When the worker was last heard. */
  heardAtMs: number;
  usage: WorkerUsage | null;
  /** Takes no more jobs: it was told so, or says so itself. */
  draining: boolean;
}

/** What the server shall do. */
export type ServerAction =
  | { type: "send"; message: ServerMessage }
  /** Answer with `onEndStored` if it was a `finish`. */
  | { type: "apply"; attemptId: string; jobId: string; input: JobInput }
  | { type: "append_log"; attemptId: string; offset: number; data: Uint8Array }
  | { type: "renew_lease"; usage: WorkerUsage | null };

/** An attempt of this worker that has not ended, as the database has it. */
export interface LiveAttemptView {
  attemptId: string;
  attemptNumber: number;
  job: Job;
  logDurable: number;
  /** The runner that it was sent to; empty if that is not known. */
  runnerId: string;
}

export function newServerSession(workerId: string, nowMs: number): ServerSession {
  return {
    workerId,
    attempts: new Map(),
    connectedAtMs: nowMs,
    heardAtMs: nowMs,
    usage: null,
    draining: false,
  };
}

/**
 * Compares what the worker holds with what the database says it should.
 *
 * Held and live: goes on, from where the log ends here. Held but not live: stale, so the worker
 * kills and forgets it. Live but not held: if it never came it is sent (again); if it may have begun,
 * its processes are gone with the worker's runner, and the next heartbeat, which does not list it
 * either, loses it.
 */
export function onHello(
  session: ServerSession,
  hello: {
    held: readonly HeldAttempt[];
    live: readonly LiveAttemptView[];
    draining: boolean;
    runnerId: string;
    nowMs: number;
  },
): ServerAction[] {
  session.heardAtMs = hello.nowMs;
  session.draining ||= hello.draining;
  const held = new Map(hello.held.map((attempt) => [attempt.attemptId, attempt]));
  const live = new Map(hello.live.map((attempt) => [attempt.attemptId, attempt]));
  const verdicts: AttemptVerdict[] = hello.held.map(({ attemptId }) => ({
    attemptId,
    proceed: live.has(attemptId),
    logAcked: live.get(attemptId)?.logDurable ?? 0,
  }));
  const welcome: ServerMessage = {
    type: "welcome",
    heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS,
    leaseMs: JOB_DEFAULTS.leaseMs,
    attempts: verdicts,
    logCreditBytes: LOG_CREDIT_BYTES,
  };
  const actions: ServerAction[] = [{ type: "send", message: welcome }];
  for (const view of live.values()) {
    const holding = held.get(view.attemptId);
    actions.push(
      ...(holding ? takeUp(session, view, holding) : restartOrMiss(session, view, hello.runnerId)),
    );
  }
  return actions;
}

/** The worker says `accepted`, `started` or `result` again right after the welcome. */
function takeUp(session: ServerSession, view: LiveAttemptView, held: HeldAttempt): ServerAction[] {
  const attempt = { ...newAttempt(view), confirmed: true };
  session.attempts.set(view.attemptId, attempt);
  // One that was away says by itself, right after the welcome, that it is back.
  const isBack = view.job.state === "unreachable";
  return [...sayWanted(attempt), ...(isBack ? [] : takePhase(attempt, held, session.heardAtMs))];
}

function restartOrMiss(session: ServerSession, view: LiveAttemptView, runnerId: string): ServerAction[] {
  const { job } = view;
  // Its start may not have been stored, and it must not begin twice: only the runner that it was sent
  // to can say by not holding it that it never came.
  const isKnown = job.startedAtMs !== null || view.logDurable > 0 || view.runnerId !== runnerId;
  if (!isKnown && job.state !== "cancelling") return onAssigned(session, view);
  // Not lost yet: this hello may be of a stream that the worker has left, and have been on its way while
  // a newer one brought the attempt. Whoever says a heartbeat after it is still there.
  session.attempts.set(view.attemptId, { ...newAttempt(view), confirmed: true });
  return [];
}

/** An attempt was made for this worker in the database: send it. One that is known is not sent again. */
export function onAssigned(session: ServerSession, view: LiveAttemptView): ServerAction[] {
  if (session.attempts.has(view.attemptId)) return [];
  const attempt = newAttempt(view);
  session.attempts.set(attempt.attemptId, attempt);
  return [runJob(attempt)];
}

function runJob({ attemptId, jobId, attemptNumber, definition }: ServerAttempt): ServerAction {
  return { type: "send", message: { type: "run_job", attemptId, jobId, attemptNumber, definition } };
}

function newAttempt(view: LiveAttemptView): ServerAttempt {
  return {
    attemptId: view.attemptId,
    jobId: view.job.id,
    attemptNumber: view.attemptNumber,
    definition: view.job.definition,
    confirmed: false,
    logDurable: view.logDurable,
    result: null,
    isEnding: false,
    jobVersion: view.job.version,
    jobState: view.job.state,
    pauseWanted: view.job.pauseWanted,
    told: null,
  };
}

/** The job as the store has it now: tells the worker what is wanted of it, if that is new. */
export function onJobSeen(session: ServerSession, job: Job): ServerAction[] {
  const attempt = job.attemptId === null ? undefined : session.attempts.get(job.attemptId);
  // Answers of the store may overtake each other: an old wish must not come back.
  if (!attempt || job.version < attempt.jobVersion) return [];
  attempt.jobVersion = job.version;
  attempt.jobState = job.state;
  attempt.pauseWanted = job.pauseWanted;
  return sayWanted(attempt);
}

function sayWanted(attempt: ServerAttempt): ServerAction[] {
  const action = wantedAction(attempt);
  if (action === attempt.told) return [];
  attempt.told = action;
  return action === null ? [] : [control(attempt.attemptId, action)];
}

function wantedAction({ jobState, pauseWanted }: ServerAttempt): ControlAction | null {
  if (jobState === "cancelling") return "cancel";
  if (jobState === "running" && pauseWanted) return "pause";
  if (jobState === "paused" && !pauseWanted) return "resume";
  return null;
}

function control(attemptId: string, action: ControlAction): ServerAction {
  return { type: "send", message: { type: "control", attemptId, action } };
}

/** A pause, its end, or a return of which the word was lost or overtaken. */
function takePhase(attempt: ServerAttempt, { phase }: HeldAttempt, nowMs: number): ServerAction[] {
  const { attemptId, jobId, jobState } = attempt;
  const apply = (input: JobInput): ServerAction[] => [{ type: "apply", attemptId, jobId, input }];
  const isAway = jobState === "unreachable";
  if (phase === "paused" && (isAway || jobState === "running")) return apply({ type: "pause", attemptId });
  if (phase === "running" && jobState === "paused") return apply({ type: "resume", attemptId });
  if (phase === "running" && isAway) return apply({ type: "start", attemptId, startedAtMs: nowMs });
  return [];
}

export function onWorkerMessage(
  session: ServerSession,
  message: Exclude<WorkerMessage, { type: "hello" }>,
  nowMs: number,
): ServerAction[] {
  session.heardAtMs = nowMs;
  if (message.type === "heartbeat") return onHeartbeat(session, message);
  const attempt = session.attempts.get(message.attemptId);
  if (!attempt) return onStale(message);
  attempt.confirmed = true;
  const { attemptId, jobId } = attempt;
  switch (message.type) {
    case "accepted":
      return [];
    case "started":
      return [
        {
          type: "apply",
          attemptId,
          jobId,
          input: { type: "start", attemptId, startedAtMs: message.startedAtMs },
        },
      ];
    case "progress":
      return [
        {
          type: "apply",
          attemptId,
          jobId,
          input: { type: "progress", attemptId, progress: message.progress },
        },
      ];
    case "log_batch":
      return [{ type: "append_log", attemptId, offset: message.offset, data: message.data }];
    case "result":
      attempt.result ??= message.result;
      return finishIfComplete(attempt);
    case "control_ack":
      return onControlAck(attempt, message);
  }
}

/**
 * The server does not know this attempt for this worker: it is stale. A result is acknowledged,
 * because the processes are gone already and the worker waits for nothing else.
 */
function onStale(message: Exclude<WorkerMessage, { type: "hello" } | { type: "heartbeat" }>): ServerAction[] {
  const { attemptId } = message;
  if (message.type === "result") return [{ type: "send", message: { type: "result_ack", attemptId } }];
  if (message.type === "control_ack") return [];
  return [{ type: "send", message: { type: "control", attemptId, action: "kill" } }];
}

function onHeartbeat(
  session: ServerSession,
  message: Extract<WorkerMessage, { type: "heartbeat" }>,
): ServerAction[] {
  session.usage = message.usage;
  session.draining ||= message.draining;
  const actions: ServerAction[] = [
    { type: "renew_lease", usage: message.usage },
    { type: "send", message: { type: "heartbeat_ack", sequence: message.sequence } },
  ];
  const held = new Map(message.attempts.map((attempt) => [attempt.attemptId, attempt]));
  for (const attempt of session.attempts.values()) {
    const holding = held.get(attempt.attemptId);
    if (holding) actions.push(...repeatWanted(attempt), ...takePhase(attempt, holding, session.heardAtMs));
    if (attempt.isEnding || holding) continue;
    // Crossed on the wire, which does no harm, or lost with the connection between agent and runner.
    if (!attempt.confirmed) {
      actions.push(runJob(attempt));
      continue;
    }
    // The stream keeps order: what was confirmed before this heartbeat must be listed in it.
    const { attemptId, jobId } = attempt;
    session.attempts.delete(attemptId);
    const text = "the worker does not hold this attempt any more: its runner had ended";
    actions.push({
      type: "apply",
      attemptId,
      jobId,
      input: { type: "lose", attemptId, cause: "worker_lost", message: text },
    });
  }
  // What the session has forgotten has ended here, or its kill was lost between agent and runner.
  for (const attemptId of held.keys()) {
    if (!session.attempts.has(attemptId)) actions.push(control(attemptId, "kill"));
  }
  return actions;
}

/** The worker may not have got it: its agent or runner may have died with it in hand. */
function repeatWanted(attempt: ServerAttempt): ServerAction[] {
  const action = wantedAction(attempt);
  return action === null ? [] : [control(attempt.attemptId, action)];
}

function onControlAck(
  attempt: ServerAttempt,
  { action, error }: Extract<WorkerMessage, { type: "control_ack" }>,
): ServerAction[] {
  const { attemptId, jobId } = attempt;
  if (action === "pause") {
    const input: JobInput = error
      ? { type: "refuse_pause", attemptId, message: error }
      : { type: "pause", attemptId };
    return [{ type: "apply", attemptId, jobId, input }];
  }
  if (action === "resume" && !error) {
    return [{ type: "apply", attemptId, jobId, input: { type: "resume", attemptId } }];
  }
  return [];
}

/** The log is on disk up to here. */
export function onLogDurable(
  session: ServerSession,
  durable: { attemptId: string; logDurable: number },
): ServerAction[] {
  const attempt = session.attempts.get(durable.attemptId);
  if (!attempt || durable.logDurable < attempt.logDurable) return [];
  attempt.logDurable = durable.logDurable;
  const ack: ServerMessage = { type: "log_ack", attemptId: attempt.attemptId, logAcked: attempt.logDurable };
  return [{ type: "send", message: ack }, ...finishIfComplete(attempt)];
}

/** A result counts only with its whole log: then the job may become final. */
function finishIfComplete(attempt: ServerAttempt): ServerAction[] {
  const { attemptId, jobId, result } = attempt;
  if (!result || attempt.isEnding || attempt.logDurable < result.logEnd) return [];
  attempt.isEnding = true;
  return [{ type: "apply", attemptId, jobId, input: { type: "finish", attemptId, result } }];
}

/** The end of the attempt is in the database and its log is safe: the worker may forget it. */
export function onEndStored(session: ServerSession, attemptId: string): ServerAction[] {
  session.attempts.delete(attemptId);
  return [{ type: "send", message: { type: "result_ack", attemptId } }];
}

/** The attempt is stale or was given up: the worker shall kill what is left of it. */
export function onGivenUp(session: ServerSession, attemptId: string): ServerAction[] {
  return session.attempts.delete(attemptId) ? [control(attemptId, "kill")] : [];
}
