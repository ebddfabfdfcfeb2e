/** How many waiting jobs one plan is made for. */

import type { PlannedJob } from "../../core/plan.ts";

/** Jobs of one queue in one read. */
const PAGE_JOBS = 500;
/** Jobs of all queues in one read, unless there are so many queues that each one gives but a few. */
const READ_JOBS = 20_000;
const LEAST_PAGE_JOBS = 50;
/** More than there is room for, because some of them may fit nowhere. */
const SPARE_JOBS = 50;
/** Each kind of job is held against each worker: so many pairs take less than half a second. */
const MOST_PAIRS = 400_000;
const LEAST_KINDS = 50;

export interface Page<J> {
  jobs: J[];
  /** Queues that have more jobs, or may have. */
  queuesWithMore: Set<string>;
}

/** How many jobs of each of so many queues are read at once. */
export function mostPerQueue(queueCount: number): number {
  const share = Math.floor(READ_JOBS / Math.max(1, queueCount));
  return Math.min(PAGE_JOBS, Math.max(LEAST_PAGE_JOBS, share));
}

/** How many jobs of a queue are worth reading if there is room for so many. */
export function worthReading(room: number): number {
  return room === 0 ? 0 : room + SPARE_JOBS;
}

export function mostKinds(workerCount: number): number {
  return Math.max(LEAST_KINDS, Math.floor(MOST_PAIRS / Math.max(1, workerCount)));
}

/** What was read, `perQueue` of each queue at the most, or the first jobs of each queue of so many kinds. */
export function pageOf<J extends Pick<PlannedJob, "queue" | "placementKey">>(
  read: readonly J[],
  { perQueue, kinds }: { perQueue: number; kinds: number },
): Page<J> {
  const queues = new Map<string, J[]>();
  for (const job of read) {
    const jobs = queues.get(job.queue);
    if (jobs) jobs.push(job);
    else queues.set(job.queue, [job]);
  }
  const length = lengthOf([...queues.values()], kinds);
  const queuesWithMore = new Set<string>();
  for (const [name, jobs] of queues) {
    if (jobs.length >= perQueue || jobs.length > length) queuesWithMore.add(name);
  }
  return { jobs: [...queues.values()].flatMap((jobs) => jobs.slice(0, length)), queuesWithMore };
}

/** How many jobs of each queue there are before the next ones are of too many kinds; 1 at least. */
function lengthOf(queues: readonly (readonly Pick<PlannedJob, "placementKey">[])[], kinds: number): number {
  const longest = Math.max(0, ...queues.map((jobs) => jobs.length));
  const seen = new Set<string>();
  for (let index = 0; index < longest; index += 1) {
    for (const jobs of queues) {
      const job = jobs[index];
      if (job) seen.add(job.placementKey);
    }
    if (index > 0 && seen.size > kinds) return index;
  }
  return longest;
}
