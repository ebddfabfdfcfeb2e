/** SchedulerService: which job goes to which worker, and why the others wait. */

import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../base/errors.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import {
  decisionToWire,
  poolVerdictToWire,
  queueConfigFromWire,
  queueConfigToWire,
  workerVerdictToWire,
} from "../../protocol/convert-scheduling.ts";
import { jobStateToWire, wholeNumber } from "../../protocol/convert.ts";
import * as pb from "../../protocol/gen/hodei/v1/scheduling_pb.ts";
import { queueNameProblem } from "../../spec/queue-name.ts";
import type { QueueBacklog } from "../../storage/store.ts";
import type { QueueState } from "../scheduling/scheduler-view.ts";
import { availableWorkers } from "./available-workers.ts";
import { DecisionFeed } from "./decision-feed.ts";
import { refuseProblems } from "./definition-problems.ts";
import { findJob, findWorker } from "./find-by-id.ts";
import {
  decisionOn,
  decisionWithoutQueueing,
  plannedJob,
  type JobDecisionDependencies,
} from "./job-decision.ts";
import type { Submissions } from "./submissions.ts";

export interface StartTimePart {
  name: string;
  count: number;
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
}

export interface SchedulingApiDependencies extends JobDecisionDependencies {
  submissions: Submissions;
  /** In the order in which the parts happen. */
  startTimes: () => readonly StartTimePart[];
}

/** How long ScheduleJob waits for the first decision. */
const FIRST_DECISION_MS = 2_000;

export function schedulingApi(
  deps: SchedulingApiDependencies,
): Required<ServiceImpl<typeof pb.SchedulerService>> {
  return {
    scheduleJob: (request, context) => scheduleJob(deps, request, context),
    assignJob: (request) => assignJob(deps, request),
    async getAvailableWorkers({ jobId }) {
      return { workers: await availableWorkers(deps, jobId) };
    },
    getSchedulingDecision: ({ jobId }) => getSchedulingDecision(deps, jobId),
    watchSchedulingDecisions: (request, context) => watchSchedulingDecisions(deps, request, context),
    getQueueStatus: ({ queue }) => getQueueStatus(deps, queue),
    configureScheduler: (request) => configureScheduler(deps, request),
    async getStartTimes() {
      return { parts: deps.startTimes().map(startTimeToWire) };
    },
  };
}

// ── One job ────────────────────────────────────────────────────────────────────────────────────

async function scheduleJob(
  deps: SchedulingApiDependencies,
  request: pb.ScheduleJobRequest,
  { signal }: HandlerContext,
): Promise<{ jobId: string; decision: pb.SchedulingDecision }> {
  const { submissions, clock } = deps;
  if (!request.job) throw new AppError("invalid_argument", "job: value is required");
  if (request.dryRun) {
    const { definition } = submissions.newJob(
      request.job,
      { id: "", nowMs: clock.nowMs() },
      "job.definition",
    );
    return { jobId: "", decision: decisionToWire(decisionWithoutQueueing(deps, definition)) };
  }
  const jobId = await submissions.add(request.job, "job.definition");
  const decision = await firstDecision(deps, jobId, signal);
  return { jobId, decision: decisionToWire(decision) };
}

/** Of a job that an earlier call with its idempotency key made, what became of it. */
async function firstDecision(
  deps: SchedulingApiDependencies,
  jobId: string,
  signal: AbortSignal,
): Promise<SchedulingDecision> {
  const { scheduler, store, clock } = deps;
  const job = await findJob(store, jobId);
  if (job.state !== "pending") return (await decisionOn(deps, job)).decision;
  // Asked and subscribed in one turn: no decision can be made in between.
  const made = scheduler.latestDecision(jobId);
  if (made) return made;
  const feed = new DecisionFeed(scheduler, { queue: "", jobId });
  const over = new AbortController();
  const callOff = clock.schedule(FIRST_DECISION_MS, () => over.abort());
  signal.addEventListener("abort", () => over.abort(), { once: true, signal: over.signal });
  try {
    const [first] = (await feed.next(over.signal)).decisions;
    return first ?? (await decisionOn(deps, await findJob(store, jobId))).decision;
  } finally {
    callOff();
    over.abort();
    feed.close();
  }
}

async function assignJob(
  deps: SchedulingApiDependencies,
  request: pb.AssignJobRequest,
): Promise<{ attemptId: string }> {
  const job = await findJob(deps.store, request.jobId);
  const worker = await findWorker(deps.store, request.workerId);
  const attempted = `assign job ${job.id} to worker ${worker.name} (${worker.id})`;
  const refuse = (why: string): never => {
    throw new AppError("failed_precondition", `${attempted}: ${why}`);
  };
  if (job.state !== "pending")
    return refuse(`the job is ${job.state}, and only a waiting one can be assigned`);
  const assigned = await deps.scheduler.assignByHand(plannedJob(job), worker);
  return "refusal" in assigned ? refuse(assigned.refusal) : assigned;
}

async function getSchedulingDecision(
  deps: SchedulingApiDependencies,
  idOrPrefix: string,
): Promise<pb.GetSchedulingDecisionResponse> {
  const job = await findJob(deps.store, idOrPrefix);
  const isWaiting = job.state === "pending";
  const ahead = isWaiting ? await deps.store.countAhead(job) : 0;
  const { decision, explanation } = await decisionOn(deps, job);
  return create(pb.GetSchedulingDecisionResponseSchema, {
    decision: decisionToWire(decision),
    jobId: job.id,
    jobName: job.definition.name,
    state: jobStateToWire(job.state),
    ahead: wholeNumber(ahead),
    heldBy: explanation?.heldBy ?? "",
    workers: explanation?.workers.map(workerVerdictToWire) ?? [],
    pools: explanation?.pools.map(poolVerdictToWire) ?? [],
    ...(isWaiting && job.notBeforeMs > deps.clock.nowMs()
      ? { notBefore: timestampFromMs(job.notBeforeMs) }
      : {}),
  });
}

async function* watchSchedulingDecisions(
  { scheduler, store }: SchedulingApiDependencies,
  request: pb.WatchSchedulingDecisionsRequest,
  { signal }: HandlerContext,
): AsyncGenerator<pb.WatchSchedulingDecisionsResponse> {
  const { queue } = request;
  if (queue !== "") refuseProblems(queueNameProblems("queue", queue));
  // Of a job that is not there no decision would ever come.
  const jobId = request.jobId === "" ? "" : (await findJob(store, request.jobId)).id;
  const feed = new DecisionFeed(scheduler, { queue, jobId });
  try {
    while (!signal.aborted) {
      const { lost, decisions } = await feed.next(signal);
      for (const [index, decision] of decisions.entries()) {
        yield create(pb.WatchSchedulingDecisionsResponseSchema, {
          decision: decisionToWire(decision),
          lost: wholeNumber(index === 0 ? lost : 0),
        });
      }
    }
  } finally {
    feed.close();
  }
}

// ── Queues ─────────────────────────────────────────────────────────────────────────────────────

async function getQueueStatus(
  { scheduler, store, clock }: SchedulingApiDependencies,
  only: string,
): Promise<{ queues: pb.QueueStatus[] }> {
  if (only !== "") refuseProblems(queueNameProblems("queue", only));
  const backlogs = new Map((await store.listBacklogs()).map((backlog) => [backlog.queue, backlog]));
  const names = only === "" ? [...backlogs.keys()] : [only];
  const states = scheduler.queues(names).filter(({ config }) => only === "" || config.name === only);
  const nowMs = clock.nowMs();
  return {
    queues: states.map((state) => queueStatusToWire(state, backlogs.get(state.config.name), nowMs)),
  };
}

function queueStatusToWire(
  { config, running, starts }: QueueState,
  backlog: QueueBacklog | undefined,
  nowMs: number,
): pb.QueueStatus {
  const waitMs = backlog ? Math.max(0, nowMs - backlog.oldestPendingSinceMs) : null;
  return create(pb.QueueStatusSchema, {
    config: queueConfigToWire(config),
    pending: wholeNumber(backlog?.pending ?? 0),
    running: wholeNumber(running),
    ...(waitMs === null ? {} : { oldestWait: durationFromMs(waitMs) }),
    starts: wholeNumber(starts),
  });
}

async function configureScheduler(
  { scheduler, submissions }: SchedulingApiDependencies,
  request: pb.ConfigureSchedulerRequest,
): Promise<{ queues: pb.QueueConfig[] }> {
  refuseProblems(queueProblems(request));
  await scheduler.configureQueues({
    set: request.queues.map(queueConfigFromWire),
    reset: [...new Set(request.resetQueues)],
  });
  submissions.queuesChanged();
  const configured = scheduler.queues([]).filter(({ isConfigured }) => isConfigured);
  return { queues: configured.map(({ config }) => queueConfigToWire(config)) };
}

function queueProblems({ queues, resetQueues }: pb.ConfigureSchedulerRequest): string[] {
  const names = new Set<string>();
  const problems: string[] = [];
  for (const [index, { name }] of queues.entries()) {
    if (names.has(name)) problems.push(`queues[${index}].name: ${name} is configured twice`);
    names.add(name);
  }
  for (const [index, name] of resetQueues.entries()) {
    problems.push(...queueNameProblems(`reset_queues[${index}]`, name));
    if (names.has(name)) problems.push(`reset_queues[${index}]: ${name} is configured in the same request`);
  }
  return problems;
}

/** A queue with such a name can never be, so whoever asks for it has mistyped it. */
function queueNameProblems(path: string, name: string): string[] {
  const problem = queueNameProblem(name);
  return problem === null ? [] : [`${path}: ${problem}`];
}

function startTimeToWire(part: StartTimePart): pb.StartTimePart {
  return create(pb.StartTimePartSchema, {
    name: part.name,
    count: wholeNumber(part.count),
    p50: durationFromMs(Math.round(part.p50Ms)),
    p95: durationFromMs(Math.round(part.p95Ms)),
    p99: durationFromMs(Math.round(part.p99Ms)),
  });
}
