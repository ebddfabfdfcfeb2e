/** The settings of `hodei agent`. */

import { LOG_LEVELS } from "../base/log.ts";
import { defineSettings, setting } from "../base/settings.ts";

export const agentSettings = defineSettings({
  server: setting.origin({
    env: "HODEI_SERVER",
    flag: "--server",
    default: "http://127.0.0.1:9090",
    unit: "url",
    description: "Where to dial: the worker port of a server.",
  }),
  tokenFile: setting.path({
    env: "HODEI_TOKEN_FILE",
    flag: "--token-file",
    default: null,
    description: "File with the one-time token; it is removed once the token is used.",
  }),
  token: setting.string({
    env: "HODEI_TOKEN",
    flag: null,
    default: null,
    secret: true,
    description:
      "The one-time token itself; a file is better, because other processes can see an environment.",
  }),
  workerId: setting.string({
    env: "HODEI_WORKER_ID",
    flag: null,
    default: "",
    defaultText: "given by the server",
    description: "The id of the worker, if its provider chose one.",
  }),
  name: setting.string({
    env: "HODEI_WORKER_NAME",
    flag: "--name",
    default: null,
    defaultText: "the host name",
    description: "Shown to people.",
  }),
  directory: setting.path({
    env: "HODEI_WORKER_DIR",
    flag: "--directory",
    default: "./hodei-worker",
    description: "Holds the session, the spool and the workspaces of jobs.",
  }),
  jobs: setting.integer({
    env: "HODEI_WORKER_JOBS",
    flag: "--jobs",
    default: 1,
    min: 1,
    max: 1024,
    description: "Jobs at the same time.",
  }),
  cpuMillis: setting.integer({
    env: "HODEI_WORKER_CPU_MILLIS",
    flag: "--cpu-millis",
    default: null,
    defaultText: "all cores",
    min: 1,
    description: "Thousandths of a CPU core that jobs may claim.",
  }),
  memory: setting.bytes({
    env: "HODEI_WORKER_MEMORY",
    flag: "--memory",
    default: null,
    defaultText: "all memory",
    min: 1,
    description: "Memory that jobs may claim.",
  }),
  disk: setting.bytes({
    env: "HODEI_WORKER_DISK",
    flag: "--disk",
    default: null,
    defaultText: "what is free at the start",
    min: 0,
    description: "Disk that jobs may claim.",
  }),
  gpu: setting.integer({
    env: "HODEI_WORKER_GPU",
    flag: "--gpu",
    default: 0,
    min: 0,
    max: 1_024,
    description: "GPUs that jobs may claim. Which one a job gets is up to it.",
  }),
  labels: setting.string({
    env: "HODEI_WORKER_LABELS",
    flag: "--labels",
    default: "",
    unit: "k=v,...",
    description: "Labels for selectors, besides os, arch and hostname.",
  }),
  taints: setting.string({
    env: "HODEI_WORKER_TAINTS",
    flag: "--taints",
    default: "",
    unit: "k=v:Effect,...",
    description:
      "Keep jobs away that do not tolerate them; the effect is NoSchedule, PreferNoSchedule or NoExecute.",
  }),
  offlineExit: setting.durationMs({
    env: "HODEI_WORKER_OFFLINE_EXIT",
    flag: "--offline-exit",
    default: null,
    defaultText: "never",
    description: "Leave when no server could be reached for this long and no job is held.",
  }),
  drainTimeout: setting.durationMs({
    env: "HODEI_WORKER_DRAIN_TIMEOUT",
    flag: "--drain-timeout",
    default: 30_000,
    description:
      "After SIGTERM or SIGINT the agent takes no more jobs; those that still run after this long are ended, and tried again elsewhere.",
  }),
  logLevel: setting.choice({
    env: "HODEI_LOG_LEVEL",
    flag: "--log-level",
    choices: LOG_LEVELS,
    default: "info",
    description: "How much the agent says on stderr.",
  }),
});
