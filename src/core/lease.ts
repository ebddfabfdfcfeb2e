/**
 * The arithmetic of leases: who gives up when.
 *
 * The worker must have killed its processes before the server lets another worker begin, so the
 * worker's deadline lies `LEASE_MARGIN_MS` before the server's. Both count from the same renewal:
 * the worker from the moment it sent the heartbeat, the server from the moment it arrived, which
 * is later, so delay on the wire only widens the gap.
 */

import type { JobDefinition } from "./job.ts";

/** How often a worker says that it is alive: three of them fit before it counts as unreachable. */
export const HEARTBEAT_INTERVAL_MS = 10_000;
/** Silence after which a job is shown as unreachable. */
export const UNREACHABLE_AFTER_MS = 30_000;
/** By how much the worker gives up earlier than the server; covers SIGKILL and clock drift. */
export const LEASE_MARGIN_MS = 15_000;
/** How long a worker may take to confirm that an attempt has begun. */
export const START_CONFIRM_MS = 30_000;
/** How long after the grace period a cancel may take before the worker is called broken. */
export const CANCEL_VERIFY_MS = 60_000;
/** The longest pause. */
export const PAUSE_MAX_MS = 24 * 60 * 60_000;
/** Slack that the server gives the worker's own time-out before it steps in. */
export const TIMEOUT_SLACK_MS = 30_000;

/** The lease of a job that shall wait for its worker: as good as none, for a state needs a deadline. */
export const WAITING_LEASE_MS = 7 * 24 * 60 * 60_000;

/** How long an attempt stays valid without a sign of its worker. */
export function attemptLeaseMs(definition: Pick<JobDefinition, "leaseMs" | "onWorkerLost">): number {
  const { leaseMs, onWorkerLost } = definition;
  return onWorkerLost === "wait" ? Math.max(leaseMs, WAITING_LEASE_MS) : leaseMs;
}

/** When the worker kills an attempt that it could not renew since `renewedAtMs`. */
export function workerGivesUpAtMs(renewedAtMs: number, leaseMs: number): number {
  return renewedAtMs + Math.max(0, leaseMs - LEASE_MARGIN_MS);
}

/** When the server calls an attempt lost whose worker was last heard at `heardAtMs`. */
export function serverGivesUpAtMs(heardAtMs: number, leaseMs: number): number {
  return heardAtMs + leaseMs;
}

/** Strict, so that a heartbeat in the same millisecond as the sweep never loses. */
export function isUnreachable(heardAtMs: number, nowMs: number): boolean {
  return heardAtMs + UNREACHABLE_AFTER_MS < nowMs;
}
