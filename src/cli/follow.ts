/**
 * Streams of the API that go on where they were when the connection breaks: a server that is
 * restarted should not end a `hodei run` of an hour.
 */

import { Backoff } from "../base/backoff.ts";
import { AppError } from "../base/errors.ts";
import { isFinal } from "../core/job.ts";
import { jobFromWire, timeToWire, type JobView } from "../protocol/convert.ts";
import type { LogStream, ReadLogResponse } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { explain } from "./call.ts";
import type { Connection } from "./connection.ts";
import type { CliEnvironment } from "./environment.ts";

export interface FollowContext {
  connection: Connection;
  environment: CliEnvironment;
  signal: AbortSignal;
}

/** How long a server may be gone before the client gives up. */
export const RECONNECT_WINDOW_MS = 60_000;
const RECONNECT_BACKOFF = { baseMs: 100, maxMs: 5_000 };

/** The job now and after each change, until it has ended. Ends quietly when `signal` aborts. */
export async function* watchJob(jobId: string, context: FollowContext): AsyncGenerator<JobView> {
  const reconnect = new Reconnect(context, `watch job ${jobId}`);
  for (;;) {
    try {
      for await (const { job } of context.connection.jobs.watchJob({ jobId }, { signal: context.signal })) {
        reconnect.succeeded();
        if (!job) continue;
        const view = jobFromWire(job);
        yield view;
        if (isFinal(view.state)) return;
      }
      // The server closed the stream early: it is about to stop.
      await reconnect.wait(null);
    } catch (error) {
      await reconnect.wait(error);
    }
    if (context.signal.aborted) return;
  }
}

export interface LogRequest {
  jobId: string;
  attempt: number;
  offset: bigint;
  streams: LogStream[];
  sinceMs: number | null;
  /** Ends with this attempt; else it goes on with the ones after it. */
  onlyAttempt: boolean;
}

/** A log from a place on, until nothing will be added to it. Ends quietly when `signal` aborts. */
export async function* followLog(
  request: LogRequest,
  context: FollowContext,
): AsyncGenerator<ReadLogResponse> {
  const reconnect = new Reconnect(context, `read the log of job ${request.jobId}`);
  const { jobId, streams } = request;
  const since = timeToWire(request.sinceMs);
  // Offsets count within one attempt, so going on inside of one means asking for just that one.
  let place = { attempt: request.attempt, offset: request.offset };
  let readThrough = 0;
  for (;;) {
    const isResumed = !request.onlyAttempt && place.attempt !== 0;
    let isComplete = false;
    try {
      const wire = { jobId, streams, ...place, follow: true, ...(since ? { since } : {}) };
      for await (const response of context.connection.logs.readLog(wire, { signal: context.signal })) {
        reconnect.succeeded();
        isComplete = response.complete;
        const isNew = response.attempt > readThrough;
        yield isNew ? response : { ...response, entries: [] };
        if (isNew) place = { attempt: response.attempt, offset: response.nextOffset };
      }
      if (isComplete && !isResumed) return;
      if (!isComplete) await reconnect.wait(null);
    } catch (error) {
      await reconnect.wait(error);
    }
    if (context.signal.aborted) return;
    if (isComplete) {
      // The attempt that was resumed has ended; there may be another one after it.
      readThrough = place.attempt;
      place = { attempt: 0, offset: 0n };
    }
  }
}

class Reconnect {
  readonly #context: FollowContext;
  readonly #attempted: string;
  readonly #backoff: Backoff;
  #goneSinceMs: number | null = null;
  #hasWorked = false;

  constructor(context: FollowContext, attempted: string) {
    this.#context = context;
    this.#attempted = attempted;
    this.#backoff = new Backoff(RECONNECT_BACKOFF, context.environment.random);
  }

  succeeded(): void {
    this.#hasWorked = true;
    this.#goneSinceMs = null;
    this.#backoff.reset();
  }

  /** @throws AppError if it makes no sense to try again. */
  async wait(error: unknown): Promise<void> {
    const { signal, environment, connection } = this.#context;
    if (signal.aborted) return;
    const nowMs = environment.clock.monotonicMs();
    this.#goneSinceMs ??= nowMs;
    const failure = error === null ? null : explain(error, this.#attempted);
    const mayReturn =
      this.#hasWorked && !connection.isEmbedded && nowMs - this.#goneSinceMs < RECONNECT_WINDOW_MS;
    if (failure && (!isTransient(failure) || !mayReturn)) throw failure;
    if (!failure && !mayReturn)
      throw new AppError("unavailable", `${this.#attempted}: the server ended the stream`);
    await environment.clock.sleep(this.#backoff.nextDelayMs(), signal);
  }
}

function isTransient(failure: AppError): boolean {
  return failure.code === "unavailable";
}
