/** The workers that are connected to this server now. */

import type { Service } from "../../base/service.ts";
import type { PlannedWorker } from "../../core/planner.ts";
import type { ControlAction, WorkerCapacity } from "../../core/worker.ts";
import type { WorkerConnection } from "./worker-connection.ts";

export class WorkerConnections implements Service {
  readonly #connections = new Map<string, WorkerConnection>();
  readonly #takesOneJob: (pool: string) => boolean;

  /** `takesOneJob` says whether workers of a pool leave after their first job. */
  constructor(takesOneJob: (pool: string) => boolean) {
    this.#takesOneJob = takesOneJob;
  }

  /** Takes in a connection in the place of an older one of the same worker. */
  add(connection: WorkerConnection): void {
    this.#connections.get(connection.workerId)?.close();
    this.#connections.set(connection.workerId, connection);
  }

  remove(connection: WorkerConnection): void {
    connection.close();
    if (this.#connections.get(connection.workerId) === connection) {
      this.#connections.delete(connection.workerId);
    }
  }

  get(workerId: string): WorkerConnection | null {
    return this.#connections.get(workerId) ?? null;
  }

  all(): WorkerConnection[] {
    return [...this.#connections.values()];
  }

  /** Workers that take jobs, with what is free on them. */
  schedulable(): PlannedWorker[] {
    return this.all()
      .filter((connection) => this.#takesJobs(connection))
      .map((connection) => ({
        id: connection.workerId,
        labels: connection.info.labels,
        free: freeCapacity(connection),
      }));
  }

  #takesJobs(connection: WorkerConnection): boolean {
    if (connection.isClosed || connection.session.draining) return false;
    return connection.assignedCount === 0 || !this.#takesOneJob(connection.pool);
  }

  /** False if the worker is not connected here or does not hold the attempt. */
  control(target: { workerId: string; attemptId: string }, action: ControlAction): boolean {
    return this.get(target.workerId)?.control(target.attemptId, action) ?? false;
  }

  /** Sends every worker away, to connect again elsewhere or when this server is back. */
  stop(): Promise<void> {
    for (const connection of this.all()) connection.goaway("the server stops");
    return Promise.resolve();
  }
}

/** An attempt whose result is in holds nothing any more: its processes are gone. */
function freeCapacity(connection: WorkerConnection): WorkerCapacity {
  const free = { ...connection.info.capacity };
  for (const attempt of connection.session.attempts.values()) {
    if (attempt.result) continue;
    const { resources } = attempt.definition;
    free.jobs -= 1;
    free.cpuMillis -= resources.cpuMillis;
    free.memoryBytes -= resources.memoryBytes;
    free.diskBytes -= resources.diskBytes;
    free.gpu -= resources.gpu;
  }
  return free;
}
