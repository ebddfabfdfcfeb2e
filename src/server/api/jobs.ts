/** JobService: submit, look at, cancel and retry jobs. */

import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import { isFinal, type Job } from "../../core/job.ts";
import {
  causeFromWire,
  eventToWire,
  jobStateFromWire,
  jobToWire,
  timeFromWire,
} from "../../protocol/convert.ts";
import type * as pb from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import type { AppliedInput, JobFilter, NewJob, Store } from "../../storage/store.ts";
import type { JobBus } from "../job-bus.ts";
import { findJob, notFound } from "./find-by-id.ts";
import { FollowedJob } from "./followed-job.ts";
import type { LogReader } from "./logs.ts";
import { pageFromWire, pageTokenToWire } from "./page-token.ts";
import type { Submissions } from "./submissions.ts";
import { jobTimeline } from "./timeline.ts";

export interface JobsApiDependencies {
  store: Store;
  clock: Clock;
  events: JobBus;
  logs: Pick<LogReader, "read">;
  submissions: Submissions;
  /** Told after it is stored that a job waits again. */
  onQueued: (jobs: NewJob[]) => void;
  /** Told after a wish for a job is stored: that it ends, is paused or goes on. */
  onWanted: (job: Job) => void;
}

type JobsApi = Required<ServiceImpl<typeof pb.JobService>>;

export function jobsApi(deps: JobsApiDependencies): JobsApi {
  const { store, clock } = deps;
  return {
    async queueJob(request) {
      return { jobId: await deps.submissions.add(request) };
    },

    async queueJobs({ jobs }) {
      return { jobIds: await deps.submissions.addAll(jobs) };
    },

    async getJob({ jobId }) {
      const job = await findJob(store, jobId);
      return { job: await withAttempts(store, job) };
    },

    async listJobs(request) {
      const page = await store.listJobs(filterFromWire(request), pageFromWire(request));
      const attempts = await store.latestAttempts(page.items.map(({ id }) => id));
      return {
        jobs: page.items.map((job) => {
          const attempt = attempts.get(job.id);
          return jobToWire(job, attempt ? [attempt] : []);
        }),
        nextPageToken: pageTokenToWire(page.nextCursor),
      };
    },

    async cancelJob({ jobId, reason }) {
      const { id } = await findJob(store, jobId);
      const applied = await store.applyInput({
        jobId: id,
        input: { type: "cancel", reason },
        nowMs: clock.nowMs(),
      });
      const job = cancelledJob(id, applied);
      deps.events.publish(job);
      deps.onWanted(job);
      return { job: await withAttempts(store, job) };
    },

    async pauseJob({ jobId }) {
      return { job: await want(deps, jobId, "pause") };
    },

    async resumeJob({ jobId }) {
      return { job: await want(deps, jobId, "resume") };
    },

    async retryJob({ jobId, force }) {
      const { id } = await findJob(store, jobId);
      const nowMs = clock.nowMs();
      const applied = await store.applyInput({ jobId: id, input: { type: "retry", force }, nowMs });
      const job = retriedJob(id, applied);
      deps.events.publish(job);
      deps.onQueued([{ id, definition: job.definition, idempotencyKey: null, nowMs }]);
      return { job: await withAttempts(store, job) };
    },

    getJobEvents: (request) => getJobEvents(deps, request),
    async getJobTimeline({ jobId }, { signal }) {
      return { attempts: await jobTimeline(deps, await findJob(store, jobId), signal) };
    },
    watchJob: (request, context) => watchJob(deps, request.jobId, context),
  };
}

async function getJobEvents(
  { store }: JobsApiDependencies,
  { jobId, afterSequence }: pb.GetJobEventsRequest,
): Promise<{ events: pb.JobEvent[] }> {
  const { id } = await findJob(store, jobId);
  // A sequence beyond the safe integers is beyond every event, too.
  const after = Math.min(Number(afterSequence), Number.MAX_SAFE_INTEGER);
  const events = await store.listEvents(id, after);
  return { events: events.map(eventToWire) };
}

async function withAttempts(store: Store, job: Job): Promise<pb.Job> {
  return jobToWire(job, await store.listAttempts(job.id));
}

function filterFromWire(request: pb.ListJobsRequest): JobFilter {
  const createdAfterMs = timeFromWire(request.createdAfter);
  const createdBeforeMs = timeFromWire(request.createdBefore);
  const causes = request.causes.map(causeFromWire).filter((cause) => cause !== null);
  return {
    ...(request.states.length > 0 ? { states: request.states.map(jobStateFromWire) } : {}),
    ...(causes.length > 0 ? { causes } : {}),
    ...(request.queue ? { queue: request.queue } : {}),
    ...(request.name ? { name: request.name } : {}),
    ...(Object.keys(request.labels).length > 0 ? { labels: request.labels } : {}),
    ...(createdAfterMs === null ? {} : { createdAfterMs }),
    ...(createdBeforeMs === null ? {} : { createdBeforeMs }),
  };
}

/** A cancel of a job that is being cancelled is no mistake: it asks for what happens already. */
function cancelledJob(id: string, applied: AppliedInput): Job {
  if (applied.ok) return applied.job;
  if (applied.job === null) return notFound("job", id);
  if (!isFinal(applied.job.state)) return applied.job;
  throw new AppError(
    "failed_precondition",
    `cancel job ${id}: it has ended already and is ${applied.job.state}`,
  );
}

async function want(
  deps: JobsApiDependencies,
  idOrPrefix: string,
  wish: "pause" | "resume",
): Promise<pb.Job> {
  const { store, clock } = deps;
  const { id } = await findJob(store, idOrPrefix);
  const applied = await store.applyInput({
    jobId: id,
    input: { type: `request_${wish}` },
    nowMs: clock.nowMs(),
  });
  if (!applied.ok) return applied.job === null ? notFound("job", id) : refuseWish(applied.job, wish);
  deps.events.publish(applied.job);
  deps.onWanted(applied.job);
  return withAttempts(store, applied.job);
}

function refuseWish({ id, state }: Job, wish: "pause" | "resume"): never {
  const why = wish === "pause" ? "only a running job can be paused" : "only a paused job can be resumed";
  throw new AppError("failed_precondition", `${wish} job ${id}: it is ${state}, and ${why}`);
}

function retriedJob(id: string, applied: AppliedInput): Job {
  if (applied.ok) return applied.job;
  if (applied.job === null) return notFound("job", id);
  const { state } = applied.job;
  if (applied.refusal === "succeeded") {
    throw new AppError(
      "failed_precondition",
      `retry job ${id}: it has succeeded; set \`force\` to run it again`,
    );
  }
  throw new AppError(
    "failed_precondition",
    `retry job ${id}: it is ${state}, and only a job that has ended can be retried`,
  );
}

async function* watchJob(
  deps: JobsApiDependencies,
  idOrPrefix: string,
  context: HandlerContext,
): AsyncGenerator<{ job: pb.Job }> {
  const { id } = await findJob(deps.store, idOrPrefix);
  const followed = (await FollowedJob.open(deps, { jobId: id })) ?? notFound("job", id);
  try {
    while (!context.signal.aborted) {
      const { job } = followed;
      yield { job: await withAttempts(deps.store, job) };
      if (isFinal(job.state)) return;
      await followed.newerThan(job.version, context.signal);
    }
  } finally {
    followed.close();
  }
}
