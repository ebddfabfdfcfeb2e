/** `hodei workers`: the workers, or one of them, or the drain of some. */

import { AppError } from "../../base/errors.ts";
import { workerFromWire, type WorkerView } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState, formatAge, formatBytes } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, flagOption, invalidOption, jsonOutput } from "../option-values.ts";
import { shortIds } from "../short-ids.ts";
import { formatTable, printable } from "../table.ts";
import { drainWorkers } from "./drain-workers.ts";

export const workersCommand: CliCommand = {
  configure(command) {
    command
      .argument("[worker...]", "id of a worker, or its beginning; all workers without it")
      .usage("[options] [WORKER]\n       hodei workers drain [options] WORKER…")
      .option("-a, --all", "also workers that are gone")
      .option("--reason <text>", "of drain: kept with the worker")
      .option("-w, --wait", "of drain: wait until the workers are gone")
      .option("--timeout <duration>", "of drain: how long to wait; without end by default")
      .option("-o, --output <format>", "json")
      .addHelpText(
        "after",
        "\nA worker that drains takes no more jobs, finishes those that it runs, and leaves.",
      );
  },
  async run(given, context) {
    if (given.operands[0] === "drain") return await drainWorkers(given, context);
    checkShowOptions(given);
    const isJson = jsonOutput(given.options);
    checkIds(given.operands, "worker");
    const connection = await context.connect("running_server");
    return given.operands.length > 0
      ? await showWorker(given, isJson, { context, connection })
      : await listWorkers(given, isJson, { context, connection });
  },
};

function checkShowOptions({ operands, options }: CommandCall): void {
  for (const name of ["reason", "wait", "timeout"]) {
    if (options[name] !== undefined) throw invalidOption(`--${name}`, "is an option of hodei workers drain");
  }
  if (operands.length > 1) throw new AppError("invalid_argument", "workers shows one worker at a time");
}

interface Parts {
  context: CommandContext;
  connection: Connection;
}

async function showWorker(
  given: CommandCall,
  isJson: boolean,
  { context, connection }: Parts,
): Promise<number> {
  const workerId = given.operands[0] ?? "";
  const { worker } = await call(`get worker ${workerId}`, () =>
    connection.workers.getWorkerInfo({ workerId }),
  );
  if (!worker) throw new Error("the server sent no worker");
  const view = workerFromWire(worker);
  await context.stdout.write(isJson ? toJsonText(view) : describeWorker(view, context));
  return EXIT.ok;
}

async function listWorkers(
  given: CommandCall,
  isJson: boolean,
  { context, connection }: Parts,
): Promise<number> {
  const includeTerminated = flagOption(given.options, "all");
  const workers: WorkerView[] = [];
  let pageToken = "";
  do {
    const page = await call("list workers", () =>
      connection.workers.listWorkers({ includeTerminated, pageSize: 1000, pageToken }),
    );
    workers.push(...page.workers.map(workerFromWire));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  if (isJson) {
    await context.stdout.write(toJsonText(workers));
  } else if (workers.length === 0) {
    context.stderr.writeNow("no workers\n");
  } else {
    await context.stdout.write(workerTable(workers, context));
  }
  return EXIT.ok;
}

function workerTable(workers: readonly WorkerView[], { environment, colors }: CommandContext): string {
  const ids = workers.map((worker) => worker.id);
  const shown = environment.isTty.stdout ? shortIds(ids) : ids;
  const nowMs = environment.clock.nowMs();
  const rows = workers.map((worker, index) => [
    shown[index] ?? worker.id,
    worker.name,
    colorState(worker.state, colors.stdout),
    worker.pool,
    worker.provider,
    worker.info ? `${worker.attemptIds.length}/${worker.info.capacity.jobs}` : "",
    formatAge(nowMs - worker.createdAtMs),
    worker.message.replaceAll("\n", " "),
  ]);
  return formatTable(["ID", "NAME", "STATE", "POOL", "PROVIDER", "JOBS", "AGE", "MESSAGE"], rows);
}

function describeWorker(worker: WorkerView, { colors, environment }: CommandContext): string {
  const { info, usage } = worker;
  const lines: [string, string][] = [
    ["id", worker.id],
    ["name", worker.name],
    ["state", colorState(worker.state, colors.stdout)],
    ["reason", worker.message],
    ["pool", worker.pool],
    ["provider", worker.provider],
    ["version", info?.version ?? ""],
    ["host", info ? [info.hostname, info.ipAddress].filter(Boolean).join(" ") : ""],
    ["capacity", info ? capacityText(info.capacity) : ""],
    [
      "usage",
      usage
        ? `${usage.cpuMillis / 1000} CPU, ${formatBytes(usage.memoryBytes)}, ${formatBytes(usage.diskFreeBytes)} disk free, load ${(usage.loadMillis / 1000).toFixed(2)}`
        : "",
    ],
    ["can", info?.capabilities.join(" ") ?? ""],
    [
      "labels",
      Object.entries(info?.labels ?? {})
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
    ],
    ["taints", (info?.taints ?? []).map((taint) => `${taint.key}=${taint.value}:${taint.effect}`).join(" ")],
    ["created", new Date(worker.createdAtMs).toISOString()],
    [
      "seen",
      worker.lastHeartbeatAtMs === null
        ? ""
        : `${formatAge(environment.clock.nowMs() - worker.lastHeartbeatAtMs)} ago`,
    ],
    ["attempts", worker.attemptIds.join(" ")],
  ];
  const shown = lines.filter(([, value]) => value !== "");
  return `${shown.map(([name, value]) => `${colors.stdout.dim(name.padEnd(9))} ${printable(value)}`).join("\n")}\n`;
}

function capacityText(capacity: NonNullable<WorkerView["info"]>["capacity"]): string {
  const gpu = capacity.gpu > 0 ? `, ${capacity.gpu} GPU` : "";
  return `${capacity.jobs} jobs, ${capacity.cpuMillis / 1000} CPU, ${formatBytes(capacity.memoryBytes)}, ${formatBytes(capacity.diskBytes)} disk${gpu}`;
}
