/**
 * LogService: reads and follows the logs of attempts.
 *
 * A call that names an attempt reads that one. A call that does not begins with the newest one, and
 * with `follow` goes on with the next when the job is tried again: `attempt` then changes and
 * offsets begin again at 0. The last message, and only that one, is `complete`.
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { isFinal, type Job } from "../../core/job.ts";
import type { LogStreamName } from "../../core/log-record.ts";
import { timeFromWire } from "../../protocol/convert.ts";
import {
  LogEntrySchema,
  LogStream,
  ReadLogResponseSchema,
  type LogService,
  type ReadLogRequest,
  type ReadLogResponse,
} from "../../protocol/gen/hodei/v1/logs_pb.ts";
import type { Store } from "../../storage/store.ts";
import type { JobBus } from "../job-bus.ts";
import type { LogBatch, ReadOptions } from "../logs/read-log.ts";
import { findJob, notFound } from "./find-by-id.ts";
import { FollowedJob } from "./followed-job.ts";

/** The part of the log store that is needed here. */
export interface LogReader {
  read(attemptId: string, options: ReadOptions): AsyncIterable<LogBatch>;
  /** Lets followers of an attempt ask again whether it has ended. */
  wake(attemptId: string): void;
}

export interface LogsApiDependencies {
  store: Store;
  clock: Clock;
  events: JobBus;
  logs: LogReader;
}

export function logsApi(deps: LogsApiDependencies): Required<ServiceImpl<typeof LogService>> {
  return {
    async *readLog(request, context) {
      const job = await findJob(deps.store, request.jobId);
      if (request.follow) yield* follow(deps, { jobId: job.id, request, context });
      else yield* readNow(deps, { job, request, context });
    },
  };
}

async function* readNow(
  deps: LogsApiDependencies,
  call: { job: Job; request: ReadLogRequest; context: HandlerContext },
): AsyncGenerator<ReadLogResponse> {
  const { job, request, context } = call;
  const number = request.attempt || job.attemptCount;
  if (number === 0) {
    yield message({ attempt: 0, complete: isFinal(job.state) });
    return;
  }
  const attemptId = await findAttemptId(deps.store, job, number);
  if (attemptId === null) throw noAttempt(job, number);
  const isWhole = await hasWholeLog(deps.store, attemptId);
  const options = readOptions(request, { signal: context.signal, isEnded: () => isWhole });
  for await (const batch of deps.logs.read(attemptId, options)) {
    yield batchMessage(batch, { attempt: number, complete: batch.complete });
  }
}

async function* follow(
  deps: LogsApiDependencies,
  call: { jobId: string; request: ReadLogRequest; context: HandlerContext },
): AsyncGenerator<ReadLogResponse> {
  const { jobId, request, context } = call;
  const { signal } = context;
  const current = new CurrentLog(deps);
  const followed =
    (await FollowedJob.open(deps, { jobId, onChange: () => void current.look() })) ?? notFound("job", jobId);
  try {
    const first = request.attempt || Math.max(1, followed.job.attemptCount);
    let nextOffset = 0;
    for (let number = first; !signal.aborted; number += 1) {
      if (followed.job.attemptCount === 0 && !isFinal(followed.job.state)) {
        // Says that the call is being served, and waits.
        yield message({ attempt: 0, nextOffset, complete: false });
      }
      const attemptId = await waitForAttempt(deps.store, { followed, number, signal });
      if (signal.aborted) return;
      if (attemptId === null) {
        if (request.attempt > 0) throw noAttempt(followed.job, number);
        yield message({ attempt: number - 1, nextOffset, complete: true });
        return;
      }
      await current.begin(attemptId);
      const options = readOptions(number === first ? request : fromTheStart(request), {
        signal,
        isEnded: () => current.isWhole(),
      });
      for await (const batch of deps.logs.read(attemptId, options)) {
        const isLast = request.attempt > 0 || isLastAttempt(followed.job, number);
        nextOffset = batch.nextOffset;
        yield batchMessage(batch, { attempt: number, complete: batch.complete && isLast });
        if (batch.complete && isLast) return;
      }
    }
  } finally {
    followed.close();
  }
}

/** Null if the job has ended without it; also when the signal aborts. */
async function waitForAttempt(
  store: Store,
  wait: { followed: FollowedJob; number: number; signal: AbortSignal },
): Promise<string | null> {
  const { followed, number, signal } = wait;
  while (!signal.aborted) {
    const { job } = followed;
    const attemptId = await findAttemptId(store, job, number);
    if (attemptId !== null || isFinal(job.state)) return attemptId;
    await followed.newerThan(job.version, signal);
  }
  return null;
}

async function findAttemptId(store: Store, job: Job, number: number): Promise<string | null> {
  if (number > job.attemptCount) return null;
  if (number === job.attemptCount) return job.attemptId;
  const attempts = await store.listAttempts(job.id);
  return attempts.find((attempt) => attempt.number === number)?.id ?? null;
}

/**
 * Whether the log of an attempt is whole. When a worker was lost, the log store still adds a record
 * that says so, and itself knows when it has.
 */
async function hasWholeLog(store: Store, attemptId: string): Promise<boolean> {
  const attempt = await store.getAttempt(attemptId);
  return attempt !== null && isFinal(attempt.state) && attempt.cause !== "worker_lost";
}

/** What a follower reads now, and whether more will come; looked up again when the job changes. */
class CurrentLog {
  readonly #deps: LogsApiDependencies;
  #attemptId: string | null = null;
  #isWhole = false;

  constructor(deps: LogsApiDependencies) {
    this.#deps = deps;
  }

  async begin(attemptId: string): Promise<void> {
    this.#attemptId = attemptId;
    this.#isWhole = false;
    // Only ever set: meanwhile, `look` may have found out that it is whole by now.
    if (await hasWholeLog(this.#deps.store, attemptId)) this.#isWhole = true;
  }

  isWhole(): boolean {
    return this.#isWhole;
  }

  async look(): Promise<void> {
    const attemptId = this.#attemptId;
    if (attemptId === null || this.#isWhole) return;
    try {
      if (!(await hasWholeLog(this.#deps.store, attemptId)) || this.#attemptId !== attemptId) return;
      this.#isWhole = true;
      this.#deps.logs.wake(attemptId);
    } catch {
      // The database does not answer now. The log store says it, too, once it has sealed the log.
    }
  }
}

function isLastAttempt(job: Job, number: number): boolean {
  return isFinal(job.state) && job.attemptCount === number;
}

function noAttempt(job: Job, number: number): AppError {
  const count = job.attemptCount === 1 ? "1 attempt" : `${job.attemptCount} attempts`;
  return new AppError(
    "not_found",
    `read log of job ${job.id}: there is no attempt ${number}; it has had ${count}`,
  );
}

const STREAM_NUMBER: Readonly<Record<LogStreamName, LogStream>> = {
  stdout: LogStream.STDOUT,
  stderr: LogStream.STDERR,
  system: LogStream.SYSTEM,
  gap: LogStream.GAP,
};
const STREAM_NAMES = Object.keys(STREAM_NUMBER) as LogStreamName[];

function readOptions(
  request: ReadLogRequest,
  state: { signal: AbortSignal; isEnded: () => boolean },
): ReadOptions {
  const sinceMs = timeFromWire(request.since);
  return {
    offset: Number(request.offset),
    follow: request.follow,
    ...state,
    streams: STREAM_NAMES.filter((name) => request.streams.includes(STREAM_NUMBER[name])),
    tailLines: request.tailLines,
    ...(sinceMs === null ? {} : { sinceMs }),
  };
}

/** The place and the tail that were asked for are those of the attempt before. */
function fromTheStart(request: ReadLogRequest): ReadLogRequest {
  return { ...request, offset: 0n, tailLines: 0 };
}

function batchMessage(batch: LogBatch, place: { attempt: number; complete: boolean }): ReadLogResponse {
  const response = message({ ...place, nextOffset: batch.nextOffset });
  response.entries = batch.records.map(({ stream, timeMs, data }) =>
    create(LogEntrySchema, {
      stream: STREAM_NUMBER[stream],
      time: timestampFromMs(possibleTimeMs(timeMs)),
      data,
    }),
  );
  return response;
}

/** The end of the year 9999, the last time that a `Timestamp` can hold. */
const MAX_TIME_MS = 253_402_300_799_999;

/** A worker with a broken clock must not make its log unreadable. */
export function possibleTimeMs(timeMs: number): number {
  return timeMs >= 0 && timeMs <= MAX_TIME_MS ? Math.floor(timeMs) : 0;
}

function message(fields: { attempt: number; nextOffset?: number; complete: boolean }): ReadLogResponse {
  const { attempt, nextOffset = 0, complete } = fields;
  return create(ReadLogResponseSchema, { attempt, nextOffset: BigInt(nextOffset), complete });
}
