/** The services of the API, put on a router. */

import type { ConnectRouter } from "@connectrpc/connect";
import { JobService } from "../protocol/gen/hodei/v1/jobs_pb.ts";
import { LogService } from "../protocol/gen/hodei/v1/logs_pb.ts";
import { PoolService } from "../protocol/gen/hodei/v1/pools_pb.ts";
import { SchedulerService } from "../protocol/gen/hodei/v1/scheduling_pb.ts";
import { ServerService } from "../protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService } from "../protocol/gen/hodei/v1/workers_pb.ts";
import { jobsApi } from "./api/jobs.ts";
import { logsApi } from "./api/logs.ts";
import { poolsApi } from "./api/pools.ts";
import { schedulingApi } from "./api/scheduling.ts";
import { serverApi } from "./api/server.ts";
import { Submissions } from "./api/submissions.ts";
import { workersApi } from "./api/workers.ts";
import type { Parts } from "./parts.ts";
import { createSchedulerView } from "./scheduling/scheduling-desk.ts";
import type { ServerOptions } from "./start-server.ts";
import { linkApi } from "./workers/link-api.ts";
import { removeStaticWorker } from "./workers/remove-static-worker.ts";

/** Called for each port; what the services share is made once. */
export function routesOf(options: ServerOptions, parts: Parts): (router: ConnectRouter) => void {
  const { clock, random, log } = options;
  const { store, logs, connections, pools, instanceId, workerPort, onIdle, onWanted } = parts;
  const shared = { ...parts, clock, random, log };
  const scheduler = createSchedulerView(shared);
  const onQueued = (): void => parts.hints.scheduling();
  const submissions = new Submissions({ store, clock, random, scheduler, onQueued });
  const workers = workersApi({
    store,
    clock,
    random,
    workerPort,
    connections,
    onDrained(workerId, reason) {
      connections.get(workerId)?.drain(reason);
      onIdle();
    },
    async onCordoned(workerId) {
      await connections.noteCordon(workerId, store);
      parts.onRoom();
    },
    removeWorker: (workerId, reason) => pools.removeWorker(workerId, reason),
    removeStatic: (worker, reason) => removeStaticWorker({ worker, reason }, { store, connections, clock }),
  });
  const startTimes = () => parts.startTimes.parts();
  return (router) => {
    router.service(
      JobService,
      jobsApi({ store, clock, logs, submissions, events: parts.jobs, onQueued, onWanted }),
    );
    router.service(LogService, logsApi({ store, logs, events: parts.jobs, clock }));
    router.service(WorkerService, { ...workers, ...linkApi(shared) });
    router.service(SchedulerService, schedulingApi({ store, clock, scheduler, submissions, startTimes }));
    router.service(PoolService, poolsApi({ pools }));
    router.service(ServerService, serverApi({ store, version: options.version, instanceId }));
  };
}
