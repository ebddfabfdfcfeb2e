/** A control plane without processes, for the tests of loops: memory store, turned clock, fake workers. */

import { silentLogger } from "../../base/log.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { systemRandom, uuidV7 } from "../../base/random.ts";
import type { JobInput } from "../../core/job-input.ts";
import type { Attempt, Job, JobDefinition } from "../../core/job.ts";
import type { Taint } from "../../core/labels.ts";
import type { ServerMessage } from "../../core/link.ts";
import type { PlannedPool } from "../../core/plan.ts";
import { sampleDefinition, sampleWorker } from "../../core/session-fixtures.ts";
import type { WorkerCapacity } from "../../core/worker.ts";
import { createMemoryStore } from "../../storage/memory/memory-store.ts";
import { WorkerConnection, type ConnectionLogs } from "../workers/worker-connection.ts";
import { WorkerConnections } from "../workers/worker-connections.ts";

/** What was said to a worker. */
export interface Said {
  connection: WorkerConnection;
  messages: ServerMessage[];
}

export function makeControlPlane(options: { takesOneJob?: boolean } = {}) {
  const clock = new ManualClock();
  const store = createMemoryStore({ random: systemRandom });
  const connections = new WorkerConnections(() => null);
  const changed: Job[] = [];
  const onJobChanged = (job: Job): void => void changed.push(job);
  const common = {
    store,
    connections,
    clock,
    random: systemRandom,
    log: silentLogger,
    onJobChanged,
    onRoom() {},
    onIdle() {},
  };
  const newId = (): string => uuidV7(clock, systemRandom);
  const addWorker = async (pool = "local"): Promise<string> => {
    const id = newId();
    await store.insertWorker({ id, name: id, provider: "test", pool, nowMs: clock.nowMs(), token: null });
    await store.changeWorker({ workerId: id, state: "ready", lastHeartbeatAtMs: clock.nowMs() });
    return id;
  };

  /** A stream of the worker, without a network. */
  const connect = (
    workerId: string,
    worker: { pool?: string; capacity?: Partial<WorkerCapacity>; taints?: Taint[] } = {},
  ): Said => {
    const capacity = { ...sampleWorker.capacity, ...worker.capacity };
    const taints = worker.taints ?? [];
    const info = { ...sampleWorker, workerId, capacity, taints, labels: { os: "linux" } };
    const { takesOneJob = false } = options;
    const stored = { id: workerId, pool: worker.pool ?? "local", provider: "test", takesOneJob };
    const connection = new WorkerConnection({ ...stored, info }, { ...common, heartbeats, logs });
    connections.add(connection);
    const messages: ServerMessage[] = [];
    void (async () => {
      for await (const message of connection.messages) messages.push(message);
    })();
    return { connection, messages };
  };

  const queue = async (changes: Partial<JobDefinition> = {}): Promise<string> => {
    const id = newId();
    const job = { id, definition: { ...sampleDefinition, ...changes }, idempotencyKey: null };
    await store.insertJobs([{ ...job, nowMs: clock.nowMs() }]);
    return id;
  };
  const apply = async (jobId: string, input: JobInput): Promise<void> => {
    const applied = await store.applyInput({ jobId, input, nowMs: clock.nowMs() });
    if (!applied.ok) throw new Error(`${input.type} was refused: ${applied.refusal}`);
  };
  const job = async (jobId: string): Promise<Job> => (await store.getJob(jobId)) as Job;
  const attempts = (jobId: string): Promise<Attempt[]> => store.listAttempts(jobId);
  /** A job that this worker was given, and has started. */
  const running = async (workerId: string, changes: Partial<JobDefinition> = {}) => {
    const jobId = await queue(changes);
    const attemptId = newId();
    await apply(jobId, { type: "assign", attemptId, workerId });
    await apply(jobId, { type: "start", attemptId, startedAtMs: clock.nowMs() });
    return { jobId, attemptId };
  };
  return { ...common, clock, changed, newId, addWorker, connect, queue, apply, job, attempts, running };
}

const heartbeats = { add(): void {} };

/** Takes all log, and keeps none. */
const logs: ConnectionLogs = {
  append: async () => ({ ok: true, length: 0 }),
  length: async () => 0,
  wake() {},
  finish: async (attemptId) => ({ attemptId, logBytes: 0, blobKey: null, digest: null }),
};

/** A pool that can make workers of two jobs each. */
export function samplePool(changes: Partial<PlannedPool> = {}): PlannedPool {
  return {
    name: "local",
    labels: { os: "linux" },
    taints: [],
    capabilities: null,
    capacity: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, gpu: 0, jobs: 2 },
    room: 5,
    arriving: 0,
    maxWorkers: 5,
    rank: 0,
    problem: null,
    permanentProblem: null,
    ...changes,
  };
}
