/** Workers in words. */

import { formatTaint } from "../core/labels.ts";
import type { WorkerView } from "../protocol/convert-worker.ts";
import type { Colors, CommandContext } from "./command.ts";
import { colorState, formatAge, formatBytes } from "./job-text.ts";
import { shortIds } from "./short-ids.ts";
import { formatTable, printable } from "./table.ts";

interface Column {
  head: string;
  /** Only of the wide table. */
  isWide?: boolean;
  cell(worker: WorkerView, seen: { nowMs: number; colors: Colors }): string;
}

const COLUMNS: readonly Column[] = [
  { head: "NAME", cell: (worker) => worker.name },
  { head: "STATE", cell: (worker, { colors }) => stateText(worker, colors) },
  { head: "POOL", cell: (worker) => worker.pool },
  { head: "PROVIDER", cell: (worker) => worker.provider },
  {
    head: "JOBS",
    cell: (worker) => (worker.info ? `${worker.attemptIds.length}/${worker.info.capacity.jobs}` : ""),
  },
  { head: "LOAD", cell: ({ usage }) => (usage ? (usage.loadMillis / 1000).toFixed(2) : "") },
  { head: "LABELS", cell: ({ info }) => labelsText(info?.labels ?? {}, ["pool", "provider"]) },
  { head: "TAINTS", cell: ({ info }) => (info?.taints ?? []).map(formatTaint).join(" ") },
  { head: "VERSION", cell: ({ info }) => info?.version ?? "" },
  { head: "AGE", cell: (worker, { nowMs }) => formatAge(nowMs - worker.createdAtMs) },
  { head: "CAPACITY", isWide: true, cell: ({ info }) => (info ? capacityText(info.capacity) : "") },
  { head: "USAGE", isWide: true, cell: ({ usage }) => (usage ? usageText(usage) : "") },
  { head: "HOST", isWide: true, cell: hostText },
  { head: "SEEN", isWide: true, cell: (worker, { nowMs }) => seenText(worker, nowMs) },
  { head: "MESSAGE", cell: (worker) => worker.message.replaceAll("\n", " ") },
];

export function workerTable(
  workers: readonly WorkerView[],
  isWide: boolean,
  { environment, colors }: CommandContext,
): string {
  const ids = workers.map((worker) => worker.id);
  const shown = environment.isTty.stdout ? shortIds(ids) : ids;
  const seen = { nowMs: environment.clock.nowMs(), colors: colors.stdout };
  const columns = COLUMNS.filter((column) => isWide || column.isWide !== true);
  const rows = workers.map((worker, index) => [
    shown[index] ?? worker.id,
    ...columns.map((column) => column.cell(worker, seen)),
  ]);
  return formatTable(["ID", ...columns.map(({ head }) => head)], rows);
}

export function describeWorker(worker: WorkerView, { colors, environment }: CommandContext): string {
  const { info, usage } = worker;
  const lines: [string, string][] = [
    ["id", worker.id],
    ["name", worker.name],
    ["state", stateText(worker, colors.stdout)],
    ["reason", worker.message],
    ["pool", worker.pool],
    ["provider", worker.provider],
    ["version", info?.version ?? ""],
    ["host", hostText(worker)],
    ["capacity", info && info.capacity.cpuMillis > 0 ? capacityText(info.capacity) : ""],
    ["usage", usage ? usageText(usage) : ""],
    ["can", info?.capabilities.join(" ") ?? ""],
    ["labels", labelsText(info?.labels ?? {}, [])],
    ["taints", (info?.taints ?? []).map(formatTaint).join(" ")],
    ["created", timeText(worker.createdAtMs)],
    ["made", timeText(worker.madeAtMs)],
    ["session", worker.registeredAtMs === null ? "none yet" : `since ${timeText(worker.registeredAtMs)}`],
    ["seen", seenText(worker, environment.clock.nowMs())],
    ["attempts", worker.attemptIds.join(" ")],
  ];
  const shown = lines.filter(([, value]) => value !== "");
  return `${shown.map(([name, value]) => `${colors.stdout.dim(name.padEnd(9))} ${printable(value)}`).join("\n")}\n`;
}

function stateText({ state, cordoned }: WorkerView, colors: Colors): string {
  const word = colorState(state, colors);
  return cordoned && state !== "terminated" ? `${word}, ${colors.yellow("cordoned")}` : word;
}

function labelsText(labels: Readonly<Record<string, string>>, hidden: readonly string[]): string {
  return Object.entries(labels)
    .filter(([key]) => !hidden.includes(key))
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

function capacityText(capacity: NonNullable<WorkerView["info"]>["capacity"]): string {
  const gpu = capacity.gpu > 0 ? `, ${capacity.gpu} GPU` : "";
  return `${capacity.jobs} jobs, ${capacity.cpuMillis / 1000} CPU, ${formatBytes(capacity.memoryBytes)}, ${formatBytes(capacity.diskBytes)} disk${gpu}`;
}

function usageText(usage: NonNullable<WorkerView["usage"]>): string {
  return `${usage.cpuMillis / 1000} CPU, ${formatBytes(usage.memoryBytes)}, ${formatBytes(usage.diskFreeBytes)} disk free, load ${(usage.loadMillis / 1000).toFixed(2)}`;
}

function hostText({ info }: WorkerView): string {
  return info ? [info.hostname, info.ipAddress].filter(Boolean).join(" ") : "";
}

function seenText({ lastHeartbeatAtMs }: WorkerView, nowMs: number): string {
  return lastHeartbeatAtMs === null ? "" : `${formatAge(nowMs - lastHeartbeatAtMs)} ago`;
}

function timeText(timeMs: number | null): string {
  return timeMs === null ? "" : new Date(timeMs).toISOString();
}
