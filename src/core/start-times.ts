/**
 * How long each part of a job's way to its first output took.
 *
 *     queued ── waiting ── asked for a worker ── provisioning ── given to it ── starting ── started ── first_byte ── output
 *                                              creating, registering
 *
 * `waiting`, `provisioning`, `starting` and `first_byte` add up to `total`. `creating` and
 * `registering` lie within `provisioning`; what they leave of it is the worker's stream and the
 * decision to give it the job. A job that got a worker which was there already has neither of the
 * three, and waited until it was given to it.
 */

export const START_PARTS = [
  "waiting",
  "provisioning",
  "creating",
  "registering",
  "starting",
  "first_byte",
  "total",
] as const;
export type StartPart = (typeof START_PARTS)[number];

export type StartDurations = { readonly [P in StartPart]?: number };

/** What is known of the worker of an attempt. */
export interface WorkerTimes {
  /** When its provider was asked for it. */
  createdAtMs: number;
  /** When its provider had made it; null if nobody made it, or that is not known yet. */
  madeAtMs: number | null;
  registeredAtMs: number | null;
}

/** When an attempt began, by the clock of the server. */
export interface AttemptStart {
  /** Since when the attempt could have been given to a worker. */
  queuedAtMs: number;
  scheduledAtMs: number;
  startedAtMs: number;
  /** Null for a worker that was not made for this attempt. */
  worker: WorkerTimes | null;
}

/**
 * The parts up to the start, in milliseconds. A worker that was asked for before the job waited was not
 * made for it. No part is below 0, because times of two servers may differ.
 */
export function startDurations(start: AttemptStart): StartDurations {
  const { queuedAtMs, scheduledAtMs, startedAtMs, worker } = start;
  const starting = span(scheduledAtMs, startedAtMs);
  if (worker === null || worker.createdAtMs < queuedAtMs || worker.createdAtMs > scheduledAtMs) {
    return { waiting: span(queuedAtMs, scheduledAtMs), starting };
  }
  const { createdAtMs, madeAtMs, registeredAtMs } = worker;
  return {
    waiting: span(queuedAtMs, createdAtMs),
    provisioning: span(createdAtMs, scheduledAtMs),
    ...(madeAtMs === null ? {} : { creating: span(createdAtMs, madeAtMs) }),
    ...(madeAtMs === null || registeredAtMs === null ? {} : { registering: span(madeAtMs, registeredAtMs) }),
    starting,
  };
}

/** The parts that end with the first output. */
export function outputDurations(
  start: Pick<AttemptStart, "queuedAtMs" | "startedAtMs">,
  firstByteAtMs: number,
): StartDurations {
  // The word of the start and the first log take different ways, and either may be the first.
  return {
    first_byte: span(start.startedAtMs, firstByteAtMs),
    total: span(start.queuedAtMs, Math.max(start.startedAtMs, firstByteAtMs)),
  };
}

function span(fromMs: number, toMs: number): number {
  return Math.max(0, toMs - fromMs);
}
