/** Ends a worker that a person started: no provider can be asked to. */

import type { Clock } from "../../base/clock.ts";
import type { Worker } from "../../core/worker.ts";
import type { Store } from "../../storage/store.ts";
import type { WorkerConnections } from "./worker-connections.ts";

/** How long it may take to end its jobs and leave by itself. */
const LEAVE_MS = 20_000;
const LOOK_MS = 100;

/**
 * One that is connected ends its jobs, which are tried again elsewhere, and leaves. Of one that is not,
 * or does not get it done in time, only the session ends: what it may still run counts until its lease
 * is over.
 */
export async function removeStaticWorker(
  { worker, reason }: { worker: Worker; reason: string },
  { store, connections, clock }: { store: Store; connections: WorkerConnections; clock: Clock },
): Promise<void> {
  const connection = connections.get(worker.id);
  if (connection) {
    connection.drain(reason);
    await connections.assigned(worker.id);
    for (const attemptId of connection.session.attempts.keys()) connection.callOff(attemptId);
    const endMs = clock.monotonicMs() + LEAVE_MS;
    while (!connection.isClosed && connection.session.attempts.size > 0 && clock.monotonicMs() < endMs) {
      await clock.sleep(LOOK_MS);
    }
  }
  await store.changeWorker({ workerId: worker.id, state: "terminated", message: reason });
  await connections.dismiss(worker.id);
}
