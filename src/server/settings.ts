/** The settings of `hodei server` and `hodei dev`. */

import { LOG_LEVELS } from "../base/log.ts";
import { defineSettings, setting } from "../base/settings.ts";
import { dockerSettings } from "./docker-settings.ts";

export const serverSettings = defineSettings({
  dataDirectory: setting.path({
    env: "HODEI_DATA_DIR",
    flag: "--data-dir",
    default: null,
    defaultText: "/var/lib/hodei for root, else ~/.local/share/hodei",
    description: "Holds logs, blobs, the private PostgreSQL and the directories of local workers.",
  }),
  databaseUrl: setting.url({
    env: "HODEI_DATABASE_URL",
    flag: "--db",
    default: null,
    defaultText: "a private PostgreSQL in the data directory",
    protocols: ["postgres", "postgresql"],
    secret: true,
    description:
      "A PostgreSQL of your own, version 15 to 18; the environment keeps its password out of the process list.",
  }),
  host: setting.string({
    env: "HODEI_HOST",
    flag: "--host",
    default: "127.0.0.1",
    unit: "address",
    description: "The address to listen on. Any other than loopback is refused without --insecure.",
  }),
  httpPort: setting.integer({
    env: "HODEI_HTTP_PORT",
    flag: "--http-port",
    default: 8080,
    min: 0,
    max: 65_535,
    unit: "port",
    description: "Port for people and tools: Connect, JSON, gRPC-Web, health. 0 takes a free one.",
  }),
  grpcPort: setting.integer({
    env: "HODEI_GRPC_PORT",
    flag: "--grpc-port",
    default: 9090,
    min: 0,
    max: 65_535,
    unit: "port",
    description: "Port for workers and gRPC clients. 0 takes a free one.",
  }),
  insecure: setting.boolean({
    env: "HODEI_INSECURE",
    flag: "--insecure",
    default: false,
    description: "Allows plain text on an address that is not loopback.",
  }),
  maxWorkers: setting.integer({
    env: "HODEI_MAX_WORKERS",
    flag: "--max-workers",
    default: 1,
    min: 0,
    max: 1_000,
    description: "The most local workers at a time; 0 makes none.",
  }),
  workerJobs: setting.integer({
    env: "HODEI_LOCAL_WORKER_JOBS",
    flag: "--worker-jobs",
    default: null,
    defaultText: "twice the number of CPU cores, at least 4",
    min: 1,
    max: 1_024,
    description: "Jobs at the same time on one local worker.",
  }),
  workerIdleTimeout: setting.durationMs({
    env: "HODEI_WORKER_IDLE_TIMEOUT",
    flag: "--worker-idle-timeout",
    default: 60_000,
    description: "A local worker without a job for this long leaves.",
  }),
  ephemeralWorkers: setting.boolean({
    env: "HODEI_EPHEMERAL_WORKERS",
    flag: "--ephemeral-workers",
    default: false,
    description: "A local worker takes one job and leaves; sets --worker-jobs to 1.",
  }),
  ...dockerSettings,
  shutdownTimeout: setting.durationMs({
    env: "HODEI_SHUTDOWN_TIMEOUT",
    flag: "--shutdown-timeout",
    default: 20_000,
    min: 1_000,
    description:
      "After SIGTERM or SIGINT the server ends what is under way; after this long it leaves whatever hangs, with exit code 1.",
  }),
  logLevel: setting.choice({
    env: "HODEI_LOG_LEVEL",
    flag: "--log-level",
    choices: LOG_LEVELS,
    default: "info",
    description: "How much the server says on stderr.",
  }),
});
