/** A scheduler that decides what a test tells it, over the store of the test. */

import { systemClock } from "../../base/clock.ts";
import { uuidV7, systemRandom } from "../../base/random.ts";
import type { PlannedJob, PlannedPool, PlannedWorker } from "../../core/plan.ts";
import { defaultQueue, type QueueConfig } from "../../core/pool.ts";
import type { SchedulingDecision } from "../../core/scheduling-decision.ts";
import type { Worker } from "../../core/worker.ts";
import type { Store } from "../../storage/store.ts";
import { whyNotByHand } from "../scheduling/assign-by-hand.ts";
import type { HandAssignment, SchedulerView } from "../scheduling/scheduler-view.ts";

export class FakeScheduler implements SchedulerView {
  readonly #store: Store;
  readonly listeners = new Set<(decision: SchedulingDecision) => void>();
  readonly latest = new Map<string, SchedulingDecision>();
  readonly configs = new Map<string, QueueConfig>();
  readonly concurrency = new Map<string, number>();
  workers: PlannedWorker[] = [];
  pools: PlannedPool[] = [];
  /** How often a snapshot was asked for. */
  snapshots = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  decide(decision: Partial<SchedulingDecision> & Pick<SchedulingDecision, "jobId" | "kind">): void {
    const atMs = systemClock.nowMs();
    const whole = { queue: "default", reason: "because", atMs, workerId: null, pool: null, ...decision };
    this.latest.set(decision.jobId, whole);
    for (const listener of [...this.listeners]) listener(whole);
  }

  snapshot(queues: Iterable<string>) {
    this.snapshots += 1;
    const { workers, pools, concurrency } = this;
    const planned = [...queues].map((name) => ({ ...this.#config(name), running: 0, pass: 0 }));
    return { workers, pools, queues: planned, concurrency, assignments: 0 };
  }

  queues(also: readonly string[]) {
    const names = [...new Set([...this.configs.keys(), ...also])].toSorted();
    return names.map((name) => ({
      config: this.#config(name),
      isConfigured: this.configs.has(name),
      running: 0,
      starts: 0,
    }));
  }

  async configureQueues(change: { set: readonly QueueConfig[]; reset: readonly string[] }): Promise<void> {
    for (const config of change.set) this.configs.set(config.name, config);
    for (const name of change.reset) this.configs.delete(name);
  }

  latestDecision(jobId: string): SchedulingDecision | null {
    return this.latest.get(jobId) ?? null;
  }

  onDecision(listener: (decision: SchedulingDecision) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async assignByHand(job: PlannedJob, worker: Pick<Worker, "id" | "state">): Promise<HandAssignment> {
    const refusal = whyNotByHand(job, worker, this.snapshot([job.queue]));
    if (refusal !== null) return { refusal };
    const attemptId = uuidV7(systemClock, systemRandom);
    const input = { type: "assign", attemptId, workerId: worker.id } as const;
    const applied = await this.#store.applyInput({ jobId: job.id, input, nowMs: systemClock.nowMs() });
    return applied.ok ? { attemptId } : { refusal: "the job takes none any more" };
  }

  #config(name: string): QueueConfig {
    return this.configs.get(name) ?? defaultQueue(name);
  }
}
