/**
 * One stream of one worker, from its hello to its end, free of the wire's own types: link-api.ts
 * puts it on the wire, the simulation on a network of its own.
 */

import { AppError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { ServerMessage, WorkerMessage } from "../../core/link.ts";
import type { Worker } from "../../core/worker.ts";
import { WorkerConnection, type ConnectionDependencies } from "./worker-connection.ts";
import { ONE_JOB_ONLY, type WorkerConnections } from "./worker-connections.ts";

export interface ServeDependencies extends ConnectionDependencies {
  connections: WorkerConnections;
}

export interface WorkerStream {
  worker: Worker;
  /** Null for a message that this version does not know: it is skipped. */
  incoming: AsyncIterator<WorkerMessage | null>;
  /** Aborts when the transport has lost the worker. */
  signal: AbortSignal;
}

/** What the worker shall be told, in order. Ends with the connection. */
export async function* serveWorker(
  stream: WorkerStream,
  deps: ServeDependencies,
): AsyncGenerator<ServerMessage> {
  const connection = await greet(stream, deps);
  try {
    await takeIn(connection, stream, deps);
    // Ends by itself: the transport ends the requests together with this response.
    void read(connection, stream.incoming, deps.log);
    for await (const message of connection.messages) yield message;
  } finally {
    deps.connections.remove(connection);
    deps.onRoom();
    deps.onIdle();
  }
}

/** Waits for the hello and answers it; nothing is assigned to the worker meanwhile. */
async function greet({ worker, incoming }: WorkerStream, deps: ServeDependencies): Promise<WorkerConnection> {
  const first = await incoming.next();
  const hello = first.done ? null : first.value;
  if (hello?.type !== "hello") {
    throw new AppError("invalid_argument", "worker stream: the first message must be hello");
  }
  if (deps.connections.isStopped) throw new AppError("unavailable", "worker stream: the server stops");
  // The older stream takes no more jobs from here on, so that none is assigned behind our back.
  deps.connections.get(worker.id)?.goaway("the worker has connected again");
  await deps.connections.assigned(worker.id);
  const info = { ...hello.worker, workerId: worker.id };
  const connection = new WorkerConnection({ ...worker, info }, deps);
  await connection.hello(hello);
  return connection;
}

/** From here on the worker counts, unless it has left again while it was greeted. */
async function takeIn(
  connection: WorkerConnection,
  { signal }: WorkerStream,
  deps: ServeDependencies,
): Promise<void> {
  const { workerId, info } = connection;
  const lastHeartbeatAtMs = deps.clock.nowMs();
  // Written down before its welcome may let it forget the job, so that no later stream gives it another.
  const hasHadItsJob = connection.takesOneJob && connection.assignedCount > 0;
  const state = hasHadItsJob ? "draining" : "ready";
  const message = hasHadItsJob ? ONE_JOB_ONLY : "";
  await deps.store.changeWorker({ workerId, state, message, info, lastHeartbeatAtMs });
  if (signal.aborted) throw new AppError("unavailable", `worker stream: worker ${workerId} has left again`);
  signal.addEventListener("abort", () => connection.close(), { once: true });
  connection.isHeldBack = true;
  deps.connections.add(connection);
  // Read after it counts, so that a drain, or the end of the worker, is seen here or finds the
  // connection. It finishes what it holds and leaves, also after a reconnect.
  const stored = await deps.store.getWorker(workerId);
  if (stored?.state === "terminated") {
    throw new AppError("unavailable", `worker stream: worker ${workerId} is gone`);
  }
  connection.isCordoned = stored?.cordoned ?? false;
  connection.isHeldBack = false;
  if (stored?.state === "broken" || stored?.state === "draining") connection.drain(stored.message);
  deps.log.info({ workerId, attempts: connection.session.attempts.size }, "worker connected");
  deps.onRoom();
  deps.onIdle();
}

async function read(
  connection: WorkerConnection,
  incoming: WorkerStream["incoming"],
  log: Logger,
): Promise<void> {
  try {
    for (;;) {
      const next = await incoming.next();
      if (next.done || connection.isClosed) break;
      const message = next.value;
      if (message === null) continue;
      if (message.type === "hello") throw new AppError("invalid_argument", "worker stream: a second hello");
      await connection.receive(message);
    }
  } catch (error) {
    if (!connection.isClosed) {
      log.info({ err: error, workerId: connection.workerId }, "worker stream ended");
    }
  } finally {
    connection.close();
  }
}
