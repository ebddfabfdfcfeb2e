/** Clients of the public API of a server that runs in a place. */

import { readFile } from "node:fs/promises";
import { createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { apiTokenPath } from "../src/base/data-directory.ts";
import { JobService, type Job } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { PoolService } from "../src/protocol/gen/hodei/v1/pools_pb.ts";
import { SchedulerService } from "../src/protocol/gen/hodei/v1/scheduling_pb.ts";
import { WorkerService } from "../src/protocol/gen/hodei/v1/workers_pb.ts";
import type { Place } from "./program.ts";

export interface ApiClient {
  jobs: Client<typeof JobService>;
  scheduler: Client<typeof SchedulerService>;
  pools: Client<typeof PoolService>;
  workers: Client<typeof WorkerService>;
}

export async function apiClient(place: Place): Promise<ApiClient> {
  const { url } = await place.server();
  const token = (await readFile(apiTokenPath(place.dataDirectory), "utf8")).trim();
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return {
    jobs: createClient(JobService, transport),
    scheduler: createClient(SchedulerService, transport),
    pools: createClient(PoolService, transport),
    workers: createClient(WorkerService, transport),
  };
}

/** Every job that the server knows. */
export async function allJobs({ jobs }: ApiClient): Promise<Job[]> {
  const found: Job[] = [];
  let pageToken = "";
  do {
    const page = await jobs.listJobs({ pageSize: 1_000, pageToken });
    found.push(...page.jobs);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return found;
}
