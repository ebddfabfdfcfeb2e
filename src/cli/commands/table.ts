/** The commands that are clients of the API. */

import type { CliCommand } from "../command.ts";

export interface CommandEntry {
  name: string;
  description: string;
  load(): Promise<CliCommand>;
}

export const CLI_COMMANDS: readonly CommandEntry[] = [
  {
    name: "run",
    description: "run one job: show its log, end with its exit code",
    load: async () => (await import("./run.ts")).runCommand,
  },
  {
    name: "submit",
    description: "queue jobs and print their ids",
    load: async () => (await import("./submit.ts")).submitCommand,
  },
  {
    name: "logs",
    description: "show the log of a job",
    load: async () => (await import("./logs.ts")).logsCommand,
  },
  { name: "get", description: "show a job", load: async () => (await import("./get.ts")).getCommand },
  {
    name: "list",
    description: "list jobs, newest first",
    load: async () => (await import("./list.ts")).listCommand,
  },
  {
    name: "cancel",
    description: "cancel jobs",
    load: async () => (await import("./cancel.ts")).cancelCommand,
  },
  {
    name: "pause",
    description: "freeze running jobs",
    load: async () => (await import("./pause.ts")).pauseCommand,
  },
  {
    name: "resume",
    description: "let paused jobs go on",
    load: async () => (await import("./resume.ts")).resumeCommand,
  },
  {
    name: "retry",
    description: "run jobs that ended once more",
    load: async () => (await import("./retry.ts")).retryCommand,
  },
  {
    name: "watch",
    description: "show the changes of a job until it ends",
    load: async () => (await import("./watch.ts")).watchCommand,
  },
  {
    name: "events",
    description: "show the history of a job",
    load: async () => (await import("./events.ts")).eventsCommand,
  },
  {
    name: "timeline",
    description: "show how long each part of a job's way took",
    load: async () => (await import("./timeline.ts")).timelineCommand,
  },
  {
    name: "explain",
    description: "say why a job waits, and what would have to change",
    load: async () => (await import("./explain.ts")).explainCommand,
  },
  {
    name: "assign",
    description: "give a waiting job to a worker",
    load: async () => (await import("./assign.ts")).assignCommand,
  },
  {
    name: "queue",
    description: "show the queues, or set weights and limits",
    load: async () => (await import("./queue.ts")).queueCommand,
  },
  {
    name: "decisions",
    description: "follow what the scheduler decides",
    load: async () => (await import("./decisions.ts")).decisionsCommand,
  },
  {
    name: "pools",
    description: "list pools; make, change or delete them",
    load: async () => (await import("./pools.ts")).poolsCommand,
  },
  {
    name: "providers",
    description: "list what makes workers, or check its health",
    load: async () => (await import("./providers.ts")).providersCommand,
  },
  {
    name: "workers",
    description: "list workers; cordon, drain or remove them; make tokens for new ones",
    load: async () => (await import("./workers.ts")).workersCommand,
  },
  {
    name: "doctor",
    description: "look for what is wrong, and say what to do",
    load: async () => (await import("./doctor.ts")).doctorCommand,
  },
  {
    name: "version",
    description: "print the versions of client and server",
    load: async () => (await import("./version.ts")).versionCommand,
  },
  {
    name: "schema",
    description: "print the JSON Schema of job files",
    load: async () => (await import("./schema.ts")).schemaCommand,
  },
  {
    name: "completion",
    description: "print a completion script for a shell",
    load: async () => (await import("./completion.ts")).completionCommand,
  },
  {
    name: "help",
    description: "explain a command, or exit-codes",
    load: async () => (await import("./help.ts")).helpCommand,
  },
];
