/** What a storm came to, for people and for programs. */

import type { FaultRecord } from "./fault-injector.ts";
import type { StormResult } from "./storm.ts";
import { countViolations } from "./violation.ts";

export function stormText(result: StormResult): string {
  const rows = [["fault", "count", "recovery, median", "longest", "did not recover"]];
  const names = [...new Set(result.faults.map(({ name }) => name))].toSorted();
  for (const name of names) rows.push(faultRow(name, result.faults));
  const { checked } = result;
  const states = [...checked.states].map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", ");
  const retries = [...result.retries].map(([code, { count, message }]) => `  ${count} × ${code}: ${message}`);
  return [
    table(rows),
    "",
    `${result.faults.length} faults over ${result.jobs} jobs in ${minutes(result.durationMs)}; the last job ended ${seconds(result.settledMs)} after the last fault`,
    `jobs: ${states}; ${checked.attempts} attempts, ${checked.logLines} log lines compared`,
    `ends of the server on its own: ${result.unexpectedServerEnds}; calls that had to be repeated, with the last answer:`,
    ...retries,
    ...(result.leftOut.length > 0
      ? [`left out, for want of root, a namespace or iptables: ${result.leftOut.join("; ")}`]
      : []),
    countViolations(result.violations),
    ...result.violations.map(({ kind, text }) => `  ${kind}: ${text}`),
    ...(result.violations.length > 0 ? [`everything is kept in ${result.directory}`] : []),
  ].join("\n");
}

export function stormJson(result: StormResult): string {
  const { checked, retries, ...rest } = result;
  return JSON.stringify({
    ...rest,
    states: Object.fromEntries(checked.states),
    attempts: checked.attempts,
    logLines: checked.logLines,
    retries: Object.fromEntries(retries),
  });
}

function faultRow(name: string, records: readonly FaultRecord[]): string[] {
  const own = records.filter((record) => record.name === name);
  const recoveries = own.flatMap(({ recoveryMs }) => (recoveryMs === null ? [] : [recoveryMs]));
  const sorted = recoveries.toSorted((left, right) => left - right);
  const median = sorted[Math.floor(sorted.length / 2)];
  const longest = sorted.at(-1);
  return [
    name,
    String(own.length),
    median === undefined ? "–" : seconds(median),
    longest === undefined ? "–" : seconds(longest),
    String(own.length - recoveries.length),
  ];
}

function table(rows: readonly string[][]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((cells) => cells[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = rows;
  return [line(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...body.map(line)].join(
    "\n",
  );
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

function minutes(ms: number): string {
  return `${(ms / 60_000).toFixed(1)} min`;
}
