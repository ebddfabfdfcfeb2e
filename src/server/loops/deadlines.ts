/**
 * Acts on jobs whose state has outlived its deadline, so that none stays in one for ever.
 *
 * An attempt is called lost only when its worker must have killed it: the lease counts from the last
 * time that the worker was heard, which this server may know better than the database, and from no
 * earlier than this server's own start, because what was heard before may not have been stored. A
 * database that was away, or a server that stood still, counts as a server that was away.
 */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Job } from "../../core/job.ts";
import {
  HEARTBEAT_INTERVAL_MS,
  START_CONFIRM_MS,
  UNREACHABLE_AFTER_MS,
  attemptLeaseMs,
  isUnreachable,
  serverGivesUpAtMs,
} from "../../core/lease.ts";
import type { DueJob, Store } from "../../storage/store.ts";
import type { WorkerConnection } from "../workers/worker-connection.ts";
import type { WorkerConnections } from "../workers/worker-connections.ts";
import { lastHeardAtMs } from "./liveness.ts";

export interface DeadlineDependencies {
  store: Store;
  connections: WorkerConnections;
  clock: Clock;
  log: Logger;
  onJobChanged(job: Job): void;
}

const PAGE_JOBS = 500;

export async function deadlineRound(deps: DeadlineDependencies): Promise<void> {
  const nowMs = deps.clock.nowMs();
  const due = await deps.store.listDue({ nowMs, limit: PAGE_JOBS });
  deps.connections.noteListening(nowMs);
  // After a start, and after a time without this server or its database, workers first get the time
  // to come back and to say what they could not say meanwhile.
  const isEarly = nowMs - deps.connections.listeningSinceMs(nowMs) < UNREACHABLE_AFTER_MS;
  const acted = due.filter(({ state }) => !isEarly || state === "pending");
  await Promise.all(acted.map((job) => actOn(job, nowMs, deps)));
}

async function actOn(due: DueJob, nowMs: number, deps: DeadlineDependencies): Promise<void> {
  const input = await inputFor(due, nowMs, deps);
  if (input === null) return;
  const applied = await deps.store.applyInput({ jobId: due.jobId, input, nowMs });
  if (!applied.ok) return;
  deps.log.info({ jobId: due.jobId, state: due.state, input: input.type }, "deadline passed");
  deps.onJobChanged(applied.job);
  if (due.workerId === null || due.attemptId === null) return;
  if (input.type === "cancel" || input.type === "disconnect") deps.connections.jobSeen(applied.job);
  if (input.type === "lose") {
    deps.connections.giveUp({ workerId: due.workerId, attemptId: due.attemptId });
  }
}

async function inputFor(due: DueJob, nowMs: number, deps: DeadlineDependencies): Promise<JobInput | null> {
  const { attemptId, workerId } = due;
  if (due.state === "pending") {
    return {
      type: "reject",
      cause: "queue_timeout",
      message: "no worker was free within the queue time-out",
    };
  }
  if (attemptId === null || workerId === null) return null;
  const live = { ...due, attemptId, workerId };
  switch (due.state) {
    case "scheduled":
      return unconfirmed(live, nowMs, deps);
    case "running":
      return outOfTime(live, nowMs, deps);
    case "paused":
      return { type: "cancel", reason: "paused for too long" };
    case "unreachable":
    case "cancelling":
      return overdue(live, nowMs, deps);
    default:
      return null;
  }
}

type LiveDue = DueJob & { attemptId: string; workerId: string };

/**
 * The worker lets a job run on after its time. One that is away may have kept the time-out: what it
 * says when it comes back counts, or its loss does. One that is just falling silent is waited for.
 */
async function outOfTime(due: LiveDue, nowMs: number, deps: DeadlineDependencies): Promise<JobInput | null> {
  const connection = deps.connections.get(due.workerId);
  if (connection === null) return silent(due, nowMs, deps);
  if (connection.hasResult(due.attemptId)) return waitForLog(due, connection);
  if (isFallingSilent(connection, nowMs)) return null;
  return { type: "cancel", cause: "timeout", reason: "the worker did not keep the time-out" };
}

/** It has missed a heartbeat: in a moment it is heard again, or it is unreachable. */
function isFallingSilent({ session }: WorkerConnection, nowMs: number): boolean {
  return nowMs - session.heardAtMs > 2 * HEARTBEAT_INTERVAL_MS;
}

/** Its processes are gone, and this server has not yet been able to store its log. */
function waitForLog({ attemptId }: LiveDue, { session }: WorkerConnection): JobInput {
  const message = "the attempt has ended; its log is not stored yet";
  return { type: "disconnect", attemptId, heardAtMs: session.heardAtMs, message };
}

/**
 * The worker did not say that the attempt runs. It may run all the same, so it is not given to
 * another worker before its lease is over; a worker that is there is asked to end it, and its result
 * sets the job free.
 */
async function unconfirmed(due: LiveDue, nowMs: number, deps: DeadlineDependencies): Promise<JobInput> {
  deps.connections.get(due.workerId)?.callOff(due.attemptId);
  return silent(due, nowMs, deps);
}

async function silent(
  { attemptId, workerId }: LiveDue,
  nowMs: number,
  deps: DeadlineDependencies,
): Promise<JobInput> {
  return { type: "disconnect", attemptId, heardAtMs: await lastHeardAtMs(workerId, nowMs, deps) };
}

/**
 * An unreachable job whose lease has ended, or a cancel that took too long. As long as the worker may
 * still be at it, the deadline moves; a worker that is there and does not get it done is broken.
 */
async function overdue(due: LiveDue, nowMs: number, deps: DeadlineDependencies): Promise<JobInput | null> {
  const { attemptId, workerId } = due;
  const job = await deps.store.getJob(due.jobId);
  if (job === null) return null;
  const connection = deps.connections.get(workerId);
  if (connection && !isUnreachable(connection.session.heardAtMs, nowMs)) {
    const { connectedAtMs, heardAtMs } = connection.session;
    // It has just come back and says in a moment what became of the attempt, or is about to go: its
    // lease counts from its last word.
    if (heardAtMs - connectedAtMs < START_CONFIRM_MS || isFallingSilent(connection, nowMs)) {
      return { type: "disconnect", attemptId, heardAtMs };
    }
    if (connection.hasResult(attemptId)) return waitForLog(due, connection);
    // The answer of the cancel was lost, and nobody has told the worker.
    if (due.state === "cancelling" && !connection.isTold(attemptId, "cancel")) {
      connection.jobSeen(job);
      return { type: "disconnect", attemptId, heardAtMs: connection.session.heardAtMs };
    }
    await markBroken(due, deps);
    const message =
      due.state === "cancelling"
        ? "the worker could not confirm that the processes are gone"
        : "the worker neither started the attempt nor ended it";
    return { type: "lose", attemptId, cause: "worker_lost", message, isFinal: true };
  }
  const heardAtMs = await lastHeardAtMs(workerId, nowMs, deps);
  if (nowMs < serverGivesUpAtMs(heardAtMs, attemptLeaseMs(job.definition))) {
    return { type: "disconnect", attemptId, heardAtMs };
  }
  const message = "no heartbeat from the worker until the end of the lease";
  return { type: "lose", attemptId, cause: "worker_lost", message };
}

/** A worker that cannot end a process must not be trusted with the next job. */
async function markBroken(due: LiveDue, deps: DeadlineDependencies): Promise<void> {
  const message = `could not end the processes of job ${due.jobId}`;
  deps.log.error({ workerId: due.workerId, jobId: due.jobId }, "worker is broken");
  await deps.store.changeWorker({ workerId: due.workerId, state: "broken", message });
  deps.connections.get(due.workerId)?.drain(message);
}
