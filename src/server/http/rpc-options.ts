/** What the HTTP and the gRPC port have in common. */

import type { ConnectRouter, ConnectRouterOptions, Interceptor } from "@connectrpc/connect";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { RpcGuard } from "../auth/rpc-guard.ts";
import type { MetricsPage } from "../metrics/metrics-page.ts";
import type { HealthCheck } from "./health-report.ts";

export interface RpcServerOptions {
  host: string;
  /** 0 chooses a free one. */
  port: number;
  routes: (router: ConnectRouter) => void;
  /** The first one is the outermost. */
  interceptors: Interceptor[];
  auth: RpcGuard;
  log: Logger;
  clock: Clock;
  health: HealthCheck;
  /** What `/metrics` of the HTTP port shows to whoever has the token; without it there is no such page. */
  metrics?: () => Promise<MetricsPage>;
  /** How long a stop lets calls end by themselves; `DRAIN_MS` if not set. */
  drainMs?: number;
}

/** Also the size of one message on a stream. A QueueJobs of 10,000 jobs of 6 KiB fits. */
const MAX_REQUEST_BYTES = 64 * 1024 * 1024;
/** A job may have a summary and outputs of some size, and a page has 1,000 jobs. */
const MAX_RESPONSE_BYTES = 256 * 1024 * 1024;
/**
 * Answers are never compressed, though compressed requests are taken: a follower of a fast log would
 * cost the server more in gzip than everything else together, and most callers are near. For those
 * far away, a proxy in front can compress.
 */
const COMPRESS_MIN_BYTES = MAX_RESPONSE_BYTES;
/** A stop waits this long for calls to end; then it cuts connections. */
export const DRAIN_MS = 5_000;

/** An unknown JSON field is a typing mistake that would otherwise silently do nothing. */
export function routerOptions(options: RpcServerOptions, shutdownSignal: AbortSignal): ConnectRouterOptions {
  return {
    interceptors: options.interceptors,
    readMaxBytes: MAX_REQUEST_BYTES,
    writeMaxBytes: MAX_RESPONSE_BYTES,
    compressMinBytes: COMPRESS_MIN_BYTES,
    jsonOptions: { ignoreUnknownFields: false },
    shutdownSignal,
  };
}

/** A second stop waits for the first one. */
export function stopOnce(stop: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | null = null;
  return () => (done ??= stop());
}
