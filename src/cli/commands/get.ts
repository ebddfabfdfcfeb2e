/** `hodei get`: everything about a job. */

import { formatDurationMs } from "../../base/quantities.ts";
import { isFinal } from "../../core/job.ts";
import { formatRequirement } from "../../core/labels.ts";
import { workerFromWire } from "../../protocol/convert-worker.ts";
import { jobFromWire, type JobView } from "../../protocol/convert.ts";
import { formatToleration } from "../../spec/placement-texts.ts";
import { call } from "../call.ts";
import type { CliCommand, Colors } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState, formatAge, formatBytes, formatDuration, ranForMs } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, jsonOutput } from "../option-values.ts";
import { formatTable, printable } from "../table.ts";

export const getCommand: CliCommand = {
  configure(command) {
    command.argument("<job>", "id of the job, or its beginning").option("-o, --output <format>", "json");
  },
  async run({ options, operands }, context) {
    const isJson = jsonOutput(options);
    checkIds(operands, "job");
    const jobId = operands[0] ?? "";
    const connection = await context.connect("embedded_to_read");
    const { job } = await call(`get job ${jobId}`, () => connection.jobs.getJob({ jobId }));
    if (!job) throw new Error("the server sent no job");
    const view = jobFromWire(job);
    if (isJson) {
      await context.stdout.write(toJsonText(view));
      return EXIT.ok;
    }
    const nowMs = context.environment.clock.nowMs();
    const heardAtMs = view.state === "unreachable" ? await lastHeardAtMs(view, connection) : null;
    await context.stdout.write(describeJob(view, { colors: context.colors.stdout, nowMs, heardAtMs }));
    return EXIT.ok;
  },
};

/** Null if nobody knows any more. */
async function lastHeardAtMs({ workerId }: JobView, connection: Connection): Promise<number | null> {
  if (workerId === null) return null;
  const { worker } = await call(`get worker ${workerId}`, () =>
    connection.workers.getWorkerInfo({ workerId }),
  );
  return worker ? workerFromWire(worker).lastHeartbeatAtMs : null;
}

interface Seen {
  colors: Colors;
  nowMs: number;
  /** When the worker of an unreachable job was last heard. */
  heardAtMs: number | null;
}

function describeJob(job: JobView, seen: Seen): string {
  const { colors, nowMs } = seen;
  const { definition } = job;
  const ranMs = ranForMs(job, nowMs);
  const lines: [string, string][] = [
    ["id", job.id],
    ["name", definition.name],
    ["state", colorState(job.state, colors)],
    [isFinal(job.state) ? "result" : "reason", outcomeText(job)],
    ["lease", job.state === "unreachable" ? leaseText(job, seen) : ""],
    ["wanted", wantedText(job)],
    ["progress", job.progress ? `${Math.round(job.progress.percent)} % ${job.progress.message}` : ""],
    ["queue", `${definition.queue}${definition.priority === 0 ? "" : `, priority ${definition.priority}`}`],
    ["labels", pairs(definition.labels)],
    ["selector", selectorText(definition)],
    ["tolerates", definition.tolerations.map(formatToleration).join(" ")],
    ["needs", definition.capabilities.join(" ")],
    ["at a time", concurrencyText(definition)],
    ["runs", definition.command ? commandText(definition.command) : `${definition.steps.length} steps`],
    ["timeout", formatDurationMs(definition.timeoutMs)],
    ["created", timeText(job.createdAtMs)],
    ["started", timeText(job.startedAtMs)],
    ["finished", timeText(job.finishedAtMs)],
    ["duration", ranMs === null ? "" : formatDuration(ranMs)],
    ["worker", job.workerId ?? ""],
  ];
  const shown = lines
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${colors.dim(name.padEnd(9))} ${printable(value)}`);
  return [`${shown.join("\n")}\n`, ...attemptTexts(job, colors), ...resultTexts(job, colors)].join("\n");
}

/** Without what the next part says as well: "exit code" of "exit code 3". */
function outcomeText(job: JobView): string {
  const parts = [job.cause?.replaceAll("_", " ") ?? "", exitText(job), job.message];
  return parts
    .filter((part, index) => !parts.slice(index + 1).some((later) => later.includes(part)))
    .filter((part) => part !== "")
    .join(", ");
}

/** What an unreachable job waits for. */
function leaseText({ definition }: JobView, { nowMs, heardAtMs }: Seen): string {
  const heard = heardAtMs === null ? "" : `last word of the worker ${formatAge(nowMs - heardAtMs)} ago; `;
  if (definition.onWorkerLost === "wait") return `${heard}waits until the worker is back or known to be gone`;
  const endsAtMs = (heardAtMs ?? nowMs) + definition.leaseMs;
  const when = endsAtMs > nowMs ? `within ${formatDuration(endsAtMs - nowMs)}` : "now";
  const then = definition.onWorkerLost === "fail" ? "the job fails" : "a new attempt is made, if one is left";
  return `${heard}goes on if it comes back ${when}, else ${then}`;
}

function wantedText({ state, pauseWanted }: JobView): string {
  if (isFinal(state)) return "";
  if (pauseWanted && state !== "paused") return "a pause; the worker has not done it yet";
  return state === "paused" && !pauseWanted ? "to go on; the worker has not done it yet" : "";
}

function exitText(job: Pick<JobView, "exitCode" | "signal">): string {
  if (job.signal !== null) return job.signal;
  return job.exitCode === null ? "" : `exit code ${job.exitCode}`;
}

function pairs(map: Record<string, string>): string {
  return Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

function selectorText({ selector, selectorExpressions }: JobView["definition"]): string {
  const equal = Object.entries(selector).map(([key, value]) => `${key}=${value}`);
  return [...equal, ...selectorExpressions.map(formatRequirement)].join(",");
}

function concurrencyText({ concurrency }: JobView["definition"]): string {
  return concurrency === null ? "" : `${concurrency.limit} with the key ${concurrency.key}`;
}

function commandText(command: NonNullable<JobView["definition"]["command"]>): string {
  if (command.kind === "script") return `a script of ${command.interpreter}`;
  const words = [command.cmd, ...command.args].map((word) =>
    /^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word),
  );
  const text = words.join(" ");
  return text.length > 200 ? `${text.slice(0, 199)}…` : text;
}

function timeText(timeMs: number | null): string {
  return timeMs === null ? "" : new Date(timeMs).toISOString();
}

function attemptTexts(job: JobView, colors: Colors): string[] {
  if (job.attempts.length === 0) return [];
  const rows = job.attempts.map((attempt) => [
    String(attempt.number),
    colorState(attempt.state, colors),
    attempt.cause ?? "",
    exitText(attempt),
    attempt.startedAtMs !== null && attempt.finishedAtMs !== null
      ? formatDuration(attempt.finishedAtMs - attempt.startedAtMs)
      : "",
    attempt.usage && attempt.usage.peakMemoryBytes > 0 ? formatBytes(attempt.usage.peakMemoryBytes) : "",
    attempt.usage ? `${(attempt.usage.cpuMicros / 1e6).toFixed(2)} s` : "",
    formatBytes(attempt.logBytes),
    attempt.workerId,
    attempt.message.replaceAll("\n", " "),
  ]);
  const head = ["ATTEMPT", "STATE", "CAUSE", "END", "DURATION", "MEMORY", "CPU", "LOG", "WORKER", "MESSAGE"];
  const texts = [formatTable(head, rows)];
  const last = job.attempts.at(-1);
  if (!last || last.steps.length === 0) return texts;
  const steps = last.steps.map((step, index) => [
    String(index + 1),
    step.name,
    colorState(step.outcome, colors),
    exitText(step),
    step.startedAtMs !== null && step.finishedAtMs !== null
      ? formatDuration(step.finishedAtMs - step.startedAtMs)
      : "",
    step.message,
  ]);
  texts.push(formatTable(["STEP", "NAME", "OUTCOME", "END", "DURATION", "MESSAGE"], steps));
  return texts;
}

function resultTexts(job: JobView, colors: Colors): string[] {
  const texts: string[] = [];
  const outputs = Object.entries(job.outputs);
  if (outputs.length > 0) {
    texts.push(
      `${colors.dim("outputs")}\n${outputs.map(([key, value]) => `  ${printable(key)}=${value.split("\n").map(printable).join("\n    ")}\n`).join("")}`,
    );
  }
  if (job.summary !== "") {
    texts.push(
      `${colors.dim("summary")}\n${job.summary
        .trimEnd()
        .split("\n")
        .map((line) => `${`  ${printable(line)}`.trimEnd()}\n`)
        .join("")}`,
    );
  }
  return texts;
}
