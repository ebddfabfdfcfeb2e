/** Streams of the API that go on where they were when the connection breaks. */

import { isFinal } from "../core/job.ts";
import { jobFromWire, timeToWire, type JobView } from "../protocol/convert.ts";
import type { LogStream, ReadLogResponse } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { Reconnect, type FollowContext } from "./reconnect.ts";

/**
 * The job now and after each change, until it has ended. A state that was seen before the connection
 * broke is not told again. Ends quietly when `signal` aborts.
 */
export async function* watchJob(jobId: string, follow: FollowContext): AsyncGenerator<JobView> {
  const reconnect = new Reconnect(follow, {
    attempted: `watch job ${jobId}`,
    hint: `the job goes on without this command; see it with: hodei watch ${jobId}`,
  });
  const { connection, signal } = follow;
  let seenVersion = 0;
  for (;;) {
    try {
      for await (const { job } of connection.jobs.watchJob({ jobId }, { signal })) {
        reconnect.succeeded();
        if (!job) continue;
        const view = jobFromWire(job);
        const isKnown = view.version > 0 && view.version === seenVersion;
        seenVersion = view.version;
        if (!isKnown) yield view;
        if (isFinal(view.state)) return;
      }
      await reconnect.wait(null);
    } catch (error) {
      await reconnect.wait(error);
    }
    if (signal.aborted) return;
  }
}

export interface PresentLogRequest {
  jobId: string;
  attempt: number;
  streams: LogStream[];
  sinceMs: number | null;
  tailLines: number;
}

/** What is in the log of one attempt now. Ends quietly when `signal` aborts. */
export async function* readPresentLog(
  request: PresentLogRequest,
  follow: FollowContext,
): AsyncGenerator<ReadLogResponse> {
  const { jobId, attempt, streams, tailLines } = request;
  const reconnect = new Reconnect(follow, { attempted: `read log of job ${jobId}`, hint: "" });
  const { connection, signal } = follow;
  const since = timeToWire(request.sinceMs);
  let place = { attempt, offset: 0n, tailLines };
  while (!signal.aborted) {
    try {
      const wire = { jobId, streams, ...place, ...(since ? { since } : {}) };
      for await (const response of connection.logs.readLog(wire, { signal })) {
        reconnect.succeeded();
        if (response.attempt !== 0) {
          place = { attempt: response.attempt, offset: response.nextOffset, tailLines: 0 };
        }
        yield response;
      }
      return;
    } catch (error) {
      await reconnect.wait(error);
    }
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
  follow: FollowContext,
): AsyncGenerator<ReadLogResponse> {
  const { jobId, streams } = request;
  const reconnect = new Reconnect(follow, {
    attempted: `read log of job ${jobId}`,
    hint: `the job goes on without this command; see it with: hodei logs --follow ${jobId}`,
  });
  const { connection, signal } = follow;
  const since = timeToWire(request.sinceMs);
  // Offsets count within one attempt, so going on inside of one means asking for just that one.
  let place = { attempt: request.attempt, offset: request.offset };
  let readThrough = 0;
  for (;;) {
    const isResumed = !request.onlyAttempt && place.attempt !== 0;
    let isComplete = false;
    try {
      const wire = { jobId, streams, ...place, follow: true, ...(since ? { since } : {}) };
      for await (const response of connection.logs.readLog(wire, { signal })) {
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
    if (signal.aborted) return;
    if (isComplete) {
      // The attempt that was resumed has ended; there may be another one after it.
      readThrough = place.attempt;
      place = { attempt: 0, offset: 0n };
    }
  }
}
