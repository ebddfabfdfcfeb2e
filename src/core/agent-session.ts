/**
 * The worker's half of the session: what an agent knows, and what it says when something happens.
 *
 * No IO and no clock of its own. The state is changed in place, and only by these functions, so
 * the real agent and the simulation run the same code. The runner is the owner of the attempts:
 * after a crash the agent learns everything anew from the runner's hello and the server's welcome.
 * Whatever the server has not acknowledged is said again after each reconnect; all of it is
 * harmless when repeated.
 *
 * Times are of the clock of leases, which agent and runner share (base/boot-clock.ts). They are handed
 * on as points in time, not as ages: a runner that was stopped for long finds old messages.
 */

import type { AttemptResult, Progress } from "./job.ts";
import {
  LOG_CREDIT_BYTES,
  MAX_LOG_BATCH_BYTES,
  type HeldAttempt,
  type ServerMessage,
  type WorkerMessage,
} from "./link.ts";
import type { AgentToRunner, RunnerAttempt, RunnerToAgent } from "./runner-link.ts";
import type { AttemptPhase, WorkerInfo, WorkerUsage } from "./worker.ts";

/** An attempt as the agent sees it. */
export interface AgentAttempt {
  attemptId: string;
  phase: AttemptPhase;
  startedAtMs: number | null;
  progress: Progress | null;
  result: AttemptResult | null;
  /** Bytes of log in the spool. */
  logEnd: number;
  /** Bytes handed to the stream. */
  logSent: number;
  /** Bytes that the server has on disk. */
  logAcked: number;
}

export interface AgentSession {
  /** The stream is open and the server has said welcome. */
  online: boolean;
  /** The runner is connected; while it is not, its attempts are kept as they were. */
  runnerOnline: boolean;
  runnerId: string;
  draining: boolean;
  attempts: Map<string, AgentAttempt>;
  /** Attempts that died with their runner: an order that comes once more must not begin them again. */
  gone: Set<string>;
  /** Attempts whose log cannot be read, while their processes are being ended. */
  unreadable: Set<string>;
  logCreditBytes: number;
  heartbeatSequence: number;
  /** When the unanswered heartbeats were sent, by sequence; the hello of the stream counts as number 0. */
  heartbeatsSent: Map<number, number>;
  /** When the newest heartbeat was sent that the server has answered: the lease counts from here. */
  renewedAtMs: number | null;
  usage: WorkerUsage | null;
}

const HELLO_SEQUENCE = 0;
/** Orders are repeated for seconds; a runner holds fewer attempts than this. */
const MAX_GONE = 2_000;

/** What the agent shall do. Messages to the server go out before any log. */
export type AgentAction =
  | { to: "server"; message: WorkerMessage }
  | { to: "runner"; message: Exclude<AgentToRunner, { type: "shutdown" }> }
  /** The server asked to leave this connection: connect again at once. */
  | { to: "link"; type: "reconnect"; reason: string };

export function newAgentSession(): AgentSession {
  return {
    online: false,
    runnerOnline: false,
    runnerId: "",
    draining: false,
    attempts: new Map(),
    gone: new Set(),
    unreadable: new Set(),
    logCreditBytes: LOG_CREDIT_BYTES,
    heartbeatSequence: 0,
    heartbeatsSent: new Map(),
    renewedAtMs: null,
    usage: null,
  };
}

/** The first message of a stream. Its welcome renews the lease from `nowMs` on. */
export function helloMessage(session: AgentSession, worker: WorkerInfo, nowMs: number): WorkerMessage {
  session.heartbeatsSent.set(HELLO_SEQUENCE, nowMs);
  const { draining, runnerId } = session;
  return { type: "hello", worker, attempts: heldAttempts(session), draining, runnerId };
}

export function onStreamClosed(session: AgentSession): void {
  session.online = false;
  session.heartbeatsSent.clear();
}

/** Empty while offline: an old heartbeat is of no use to anyone. */
export function onHeartbeatDue(session: AgentSession, nowMs: number): AgentAction[] {
  if (!session.online) return [];
  session.heartbeatSequence += 1;
  session.heartbeatsSent.set(session.heartbeatSequence, nowMs);
  const message: WorkerMessage = {
    type: "heartbeat",
    sequence: session.heartbeatSequence,
    usage: session.usage,
    attempts: heldAttempts(session),
    draining: session.draining,
  };
  return [{ to: "server", message }];
}

/** The worker shall take no more jobs; the server hears of it at once, or with the next hello. */
export function onDrainWanted(session: AgentSession, nowMs: number): AgentAction[] {
  if (session.draining) return [];
  session.draining = true;
  return onHeartbeatDue(session, nowMs);
}

/** True once nothing is left to do for an agent that shall leave. */
export function mayLeave(session: AgentSession): boolean {
  return session.draining && session.attempts.size === 0;
}

function heldAttempts(session: AgentSession): HeldAttempt[] {
  return [...session.attempts.values()].map(({ attemptId, phase, logEnd }) => ({ attemptId, phase, logEnd }));
}

// ── From the server ────────────────────────────────────────────────────────────────────────────

export function onServerMessage(session: AgentSession, message: ServerMessage, nowMs: number): AgentAction[] {
  switch (message.type) {
    case "welcome":
      return onWelcome(session, message, nowMs);
    case "run_job":
      return onRunJob(session, message, nowMs);
    case "control":
      return onControl(session, message);
    case "log_ack":
      return onLogAck(session, message);
    case "result_ack":
      return forget(session, message.attemptId);
    case "heartbeat_ack":
      return onHeartbeatAck(session, message.sequence);
    case "drain":
      session.draining = true;
      return [];
    case "goaway":
      return [{ to: "link", type: "reconnect", reason: message.reason }];
  }
}

function onWelcome(
  session: AgentSession,
  message: Extract<ServerMessage, { type: "welcome" }>,
  nowMs: number,
): AgentAction[] {
  session.online = true;
  session.logCreditBytes = message.logCreditBytes;
  const actions = onHeartbeatAck(session, HELLO_SEQUENCE);
  for (const verdict of message.attempts) {
    const attempt = session.attempts.get(verdict.attemptId);
    if (!attempt) continue;
    if (!verdict.proceed) {
      actions.push(
        { to: "runner", message: { type: "control", attemptId: attempt.attemptId, action: "kill" } },
        ...forget(session, attempt.attemptId),
      );
      continue;
    }
    attempt.logAcked = verdict.logAcked;
    attempt.logSent = verdict.logAcked;
    actions.push(...tellAcked(attempt), ...sayAgain(attempt));
  }
  // Only a heartbeat shows that an attempt is gone: the hello before it may have been late.
  return [...actions, ...onHeartbeatDue(session, nowMs)];
}

/**
 * The acknowledgement itself may be lost with a stream, or on its way to the runner, and a full spool
 * waits for it: then nothing would come after it that could be acknowledged.
 */
function tellAcked({ attemptId, logAcked }: AgentAttempt): AgentAction[] {
  return logAcked === 0 ? [] : [{ to: "runner", message: { type: "log_acked", attemptId, logAcked } }];
}

/** Everything the server may have missed about an attempt. */
function sayAgain(attempt: AgentAttempt): AgentAction[] {
  const { attemptId } = attempt;
  const messages: WorkerMessage[] = [{ type: "accepted", attemptId }];
  if (attempt.startedAtMs !== null && attempt.phase !== "finished") {
    messages.push({ type: "started", attemptId, startedAtMs: attempt.startedAtMs });
  }
  if (attempt.phase === "paused") {
    messages.push({ type: "control_ack", attemptId, action: "pause", error: "" });
  }
  if (attempt.progress && attempt.phase !== "finished") {
    messages.push({ type: "progress", attemptId, progress: attempt.progress });
  }
  if (attempt.result) messages.push({ type: "result", attemptId, result: attempt.result });
  return messages.map((message) => ({ to: "server", message }));
}

function onRunJob(
  session: AgentSession,
  message: Extract<ServerMessage, { type: "run_job" }>,
  nowMs: number,
): AgentAction[] {
  const known = session.attempts.get(message.attemptId);
  if (known) return session.online ? sayAgain(known) : [];
  // Said that it came, it is missed in the next heartbeat: that is how the server learns of its end.
  if (session.gone.has(message.attemptId))
    return say(session, { type: "accepted", attemptId: message.attemptId });
  session.attempts.set(message.attemptId, {
    attemptId: message.attemptId,
    phase: "accepted",
    startedAtMs: null,
    progress: null,
    result: null,
    logEnd: 0,
    logSent: 0,
    logAcked: 0,
  });
  const { attemptId, jobId, attemptNumber, definition } = message;
  // An agent that was stopped for an hour finds old orders in its stream: their lease is over.
  const leaseFromMs = session.renewedAtMs ?? nowMs;
  return [
    { to: "runner", message: { type: "run", attemptId, jobId, attemptNumber, definition, leaseFromMs } },
  ];
}

/** A control for an attempt that is not here is answered, so that the server does not wait for it. */
function onControl(
  session: AgentSession,
  message: Extract<ServerMessage, { type: "control" }>,
): AgentAction[] {
  const { attemptId, action } = message;
  if (!session.attempts.has(attemptId)) {
    const error = "the worker does not hold this attempt";
    return [{ to: "server", message: { type: "control_ack", attemptId, action, error } }];
  }
  const relay: AgentAction = { to: "runner", message: { type: "control", attemptId, action } };
  return action === "kill" ? [relay, ...forget(session, attemptId)] : [relay];
}

function onLogAck(
  session: AgentSession,
  message: Extract<ServerMessage, { type: "log_ack" }>,
): AgentAction[] {
  const attempt = session.attempts.get(message.attemptId);
  if (!attempt || message.logAcked <= attempt.logAcked) return [];
  attempt.logAcked = message.logAcked;
  attempt.logSent = Math.max(attempt.logSent, message.logAcked);
  return [
    {
      to: "runner",
      message: { type: "log_acked", attemptId: attempt.attemptId, logAcked: attempt.logAcked },
    },
  ];
}

function forget(session: AgentSession, attemptId: string): AgentAction[] {
  session.unreadable.delete(attemptId);
  if (!session.attempts.delete(attemptId)) return [];
  return [{ to: "runner", message: { type: "forget", attemptId } }];
}

/** The lease counts from the moment the heartbeat was sent: the server cannot have heard it earlier. */
function onHeartbeatAck(session: AgentSession, sequence: number): AgentAction[] {
  const sentAtMs = session.heartbeatsSent.get(sequence);
  if (sentAtMs === undefined) return [];
  for (const older of session.heartbeatsSent.keys()) {
    if (older <= sequence) session.heartbeatsSent.delete(older);
  }
  session.renewedAtMs = Math.max(session.renewedAtMs ?? sentAtMs, sentAtMs);
  return [{ to: "runner", message: { type: "lease_renewed", leaseFromMs: session.renewedAtMs } }];
}

// ── From the runner ────────────────────────────────────────────────────────────────────────────

export function onRunnerMessage(session: AgentSession, message: RunnerToAgent, nowMs: number): AgentAction[] {
  switch (message.type) {
    case "hello":
      return onRunnerHello(session, message);
    case "accepted":
    case "control_ack":
      return session.attempts.has(message.attemptId) ? say(session, message) : [];
    case "started":
      return onAttemptStarted(session, message);
    case "phase":
      onAttemptPhase(session, message);
      return [];
    case "progress":
      return onAttemptProgress(session, message);
    case "log":
      onLogGrown(session, message);
      return [];
    case "result":
      return onAttemptResult(session, message);
    case "usage":
      session.usage = message.usage;
      return [];
    case "broken":
      return onDrainWanted(session, nowMs);
    default:
      // A runner outlives its agents, so it may be of a later version.
      return [];
  }
}

/**
 * The runner's own list is the truth: it replaces what the agent believed. What it does not hold is
 * gone from the next heartbeat, by which the server learns of it.
 */
function onRunnerHello(
  session: AgentSession,
  hello: { runnerId: string; attempts: readonly RunnerAttempt[] },
): AgentAction[] {
  session.runnerOnline = true;
  // What the same runner does not hold never reached it, and may be sent again.
  const isOther = session.runnerId !== hello.runnerId;
  session.runnerId = hello.runnerId;
  // Is found out again: the runner may not have heard that it shall end them.
  session.unreadable.clear();
  const known = session.attempts;
  session.attempts = new Map();
  for (const attempt of hello.attempts) {
    const before = known.get(attempt.attemptId);
    session.attempts.set(attempt.attemptId, {
      ...attempt,
      logSent: before?.logSent ?? 0,
      logAcked: before?.logAcked ?? 0,
    });
  }
  const goneIds = [...known.keys()].filter((attemptId) => !session.attempts.has(attemptId));
  if (isOther) for (const attemptId of goneIds) noteGone(session, attemptId);
  // Harmless to a runner that does not know them; whoever reads their log may let go of it.
  const gone: AgentAction[] = goneIds.map((attemptId) => ({
    to: "runner",
    message: { type: "forget", attemptId },
  }));
  const attempts = [...session.attempts.values()];
  const actions = [...gone, ...attempts.flatMap(tellAcked)];
  return session.online ? [...actions, ...attempts.flatMap(sayAgain)] : actions;
}

function noteGone({ gone }: AgentSession, attemptId: string): void {
  gone.add(attemptId);
  const [oldest] = gone;
  if (gone.size > MAX_GONE && oldest !== undefined) gone.delete(oldest);
}

function onAttemptStarted(
  session: AgentSession,
  started: { attemptId: string; startedAtMs: number },
): AgentAction[] {
  const attempt = session.attempts.get(started.attemptId);
  if (!attempt || attempt.phase === "finished") return [];
  attempt.phase = "running";
  attempt.startedAtMs = started.startedAtMs;
  return say(session, { type: "started", ...started });
}

function onAttemptPhase(session: AgentSession, change: { attemptId: string; phase: AttemptPhase }): void {
  const attempt = session.attempts.get(change.attemptId);
  if (attempt && attempt.phase !== "finished") attempt.phase = change.phase;
}

function onAttemptProgress(
  session: AgentSession,
  update: { attemptId: string; progress: Progress },
): AgentAction[] {
  const attempt = session.attempts.get(update.attemptId);
  if (!attempt) return [];
  attempt.progress = update.progress;
  return say(session, { type: "progress", ...update });
}

function onLogGrown(session: AgentSession, grown: { attemptId: string; logEnd: number }): void {
  const attempt = session.attempts.get(grown.attemptId);
  if (attempt) attempt.logEnd = Math.max(attempt.logEnd, grown.logEnd);
}

function onAttemptResult(
  session: AgentSession,
  end: { attemptId: string; result: AttemptResult },
): AgentAction[] {
  const attempt = session.attempts.get(end.attemptId);
  if (!attempt) return [];
  attempt.phase = "finished";
  attempt.result = end.result;
  attempt.logEnd = Math.max(attempt.logEnd, end.result.logEnd);
  if (session.unreadable.has(end.attemptId)) return forget(session, end.attemptId);
  return say(session, { type: "result", ...end });
}

/** While offline nothing is said: the welcome of the next stream says it all again. */
function say(session: AgentSession, message: WorkerMessage): AgentAction[] {
  return session.online ? [{ to: "server", message }] : [];
}

// ── Log ────────────────────────────────────────────────────────────────────────────────────────

/**
 * Where the next piece of log comes from, or null if there is none or no credit is left. Attempts
 * take turns, so that one loud job does not silence the others: `lastAttemptId` had the last turn.
 */
export function nextLogRange(
  session: AgentSession,
  lastAttemptId: string | null,
): { attemptId: string; offset: number; maxBytes: number } | null {
  if (!session.online || unacknowledgedBytes(session) >= session.logCreditBytes) return null;
  const waiting = [...session.attempts.values()].filter(
    ({ attemptId, logSent, logEnd }) => logSent < logEnd && !session.unreadable.has(attemptId),
  );
  const last = waiting.findIndex((attempt) => attempt.attemptId === lastAttemptId);
  const next = waiting[(last + 1) % Math.max(1, waiting.length)];
  if (!next) return null;
  const maxBytes = Math.min(MAX_LOG_BATCH_BYTES, next.logEnd - next.logSent);
  return { attemptId: next.attemptId, offset: next.logSent, maxBytes };
}

/** Notes that log up to `logSent` was handed to the stream. */
export function onLogSent(session: AgentSession, sent: { attemptId: string; logSent: number }): void {
  const attempt = session.attempts.get(sent.attemptId);
  if (attempt) attempt.logSent = Math.max(attempt.logSent, sent.logSent);
}

/**
 * The log of an attempt cannot be read any more, so its result would wait for ever and nothing would
 * be said of the others meanwhile. It is ended and then given up: a heartbeat that does not list it
 * frees its job, so it must be listed until nothing of it runs.
 */
export function onLogUnreadable(session: AgentSession, attemptId: string): AgentAction[] {
  const attempt = session.attempts.get(attemptId);
  if (!attempt) return [];
  if (attempt.phase === "finished") return forget(session, attemptId);
  session.unreadable.add(attemptId);
  return [{ to: "runner", message: { type: "control", attemptId, action: "kill" } }];
}

function unacknowledgedBytes(session: AgentSession): number {
  let bytes = 0;
  for (const attempt of session.attempts.values()) bytes += attempt.logSent - attempt.logAcked;
  return bytes;
}
