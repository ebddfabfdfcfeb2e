/** When each part of the way to the first output of each attempt of a job began. */

import { create } from "@bufbuild/protobuf";
import type { Attempt, Job } from "../../core/job.ts";
import type { Worker } from "../../core/worker.ts";
import { timeToWire } from "../../protocol/convert.ts";
import { AttemptTimelineSchema, type AttemptTimeline } from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import type { Store } from "../../storage/store.ts";
import { possibleTimeMs, type LogReader } from "./logs.ts";

export interface TimelineDependencies {
  store: Pick<Store, "listAttempts" | "getWorker">;
  logs: Pick<LogReader, "read">;
}

/** Attempts that are looked up at the same time: each may hold a batch of its log in memory. */
const ATTEMPTS_AT_ONCE = 4;
/** Logs that are opened for one answer: as many as a job has attempts that nobody asked for by hand. */
const MAX_LOGS = 200;

/**
 * Oldest first. Of a job with more attempts than `MAX_LOGS`, the first output of the older ones is not
 * looked for. When the caller leaves, so does the search: it throws the reason of the signal.
 */
export async function jobTimeline(
  deps: TimelineDependencies,
  job: Job,
  signal: AbortSignal,
): Promise<AttemptTimeline[]> {
  const attempts = await deps.store.listAttempts(job.id);
  const timelines: AttemptTimeline[] = [];
  const entries = attempts.entries();
  const lookUpNext = async (): Promise<void> => {
    for (const [index, attempt] of entries) {
      signal.throwIfAborted();
      const isRecent = attempts.length - index <= MAX_LOGS;
      const worker = await deps.store.getWorker(attempt.workerId);
      const firstByteMs = isRecent ? await firstByteAtMs(deps.logs, attempt) : null;
      timelines[index] = timelineOf(attempt, worker, firstByteMs);
    }
  };
  await Promise.all(Array.from({ length: ATTEMPTS_AT_ONCE }, lookUpNext));
  return timelines;
}

function timelineOf(attempt: Attempt, worker: Worker | null, firstByteMs: number | null): AttemptTimeline {
  // A worker that a person started was never asked for: its row is as old as its token.
  const isMade = worker !== null && worker.provider !== "static";
  const times = {
    queuedAt: timeToWire(attempt.queuedAtMs),
    provisioningAt: timeToWire(isMade ? worker.createdAtMs : null),
    createdAt: timeToWire(isMade ? worker.madeAtMs : null),
    registeredAt: timeToWire(worker?.registeredAtMs ?? null),
    scheduledAt: timeToWire(attempt.scheduledAtMs),
    startedAt: timeToWire(attempt.startedAtMs),
    firstByteAt: timeToWire(firstByteMs),
    finishedAt: timeToWire(attempt.finishedAtMs),
  };
  const known = Object.fromEntries(Object.entries(times).filter(([, time]) => time !== undefined));
  const { id: attemptId, number, workerId } = attempt;
  return create(AttemptTimelineSchema, { attemptId, number, workerId, ...known });
}

/** Null while the command has said nothing. */
async function firstByteAtMs(logs: Pick<LogReader, "read">, attempt: Attempt): Promise<number | null> {
  if (attempt.startedAtMs === null) return null;
  try {
    const options = { offset: 0, follow: false, isEnded: () => false } as const;
    for await (const { records } of logs.read(attempt.id, { ...options, streams: ["stdout", "stderr"] })) {
      const [first] = records;
      if (first) return possibleTimeMs(first.timeMs);
    }
  } catch {
    // A log that cannot be read, and says so to whoever asks for it, hides one time and not the others.
  }
  return null;
}
