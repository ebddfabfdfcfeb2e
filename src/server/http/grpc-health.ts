/** The standard gRPC health service (grpc/doc/health-checking.md), for the server as a whole. */

import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import { AppError } from "../../base/errors.ts";
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from "../../protocol/gen/grpc/health/v1/health_pb.ts";
import { readHealth, type HealthCheck } from "./health-report.ts";

/** How often a watch looks whether something has changed. */
const WATCH_PERIOD_MS = 2_000;

/**
 * Knows the empty name (the server as a whole) and the names of the services in the router; they
 * all share one state. `Check` of another name is `not_found`, `Watch` says SERVICE_UNKNOWN and
 * goes on, as the specification wants it.
 */
export function grpcHealthRoutes(router: ConnectRouter, deps: { health: HealthCheck; clock: Clock }): void {
  const known = new Set(["", Health.typeName, ...router.handlers.map(({ service }) => service.typeName)]);
  const statusOf = async (service: string): Promise<Status> => {
    if (!known.has(service)) return Status.SERVICE_UNKNOWN;
    const { ready } = await readHealth(deps.health);
    return ready ? Status.SERVING : Status.NOT_SERVING;
  };
  router.service(Health, {
    async check({ service }) {
      const status = await statusOf(service);
      if (status !== Status.SERVICE_UNKNOWN) return { status };
      throw new AppError("not_found", `check health: there is no service ${service}`);
    },
    async *watch({ service }, { signal }: HandlerContext) {
      let sent: Status | null = null;
      while (!signal.aborted) {
        const status = await statusOf(service);
        if (status !== sent) yield { status };
        sent = status;
        await deps.clock.sleep(WATCH_PERIOD_MS, signal);
      }
    },
  });
}
