/**
 * `npm run bench`: runs the rows one after another and prints one table. Arguments choose rows by
 * a part of their name.
 */

import { errorMessage } from "../src/base/errors.ts";
import type { BenchRow, Measured } from "./bench-row.ts";
import { durationMs } from "./bench-row.ts";
import { dockerWorker } from "./hodei/docker.ts";
import { ephemeralWorker, firstRun, laterRun } from "./hodei/first-run.ts";
import {
  batchedQueueJobs,
  noOpJobs,
  startLatencyMedian,
  startLatencyTail,
  unaryQueueJob,
} from "./hodei/jobs.ts";
import { logBytes } from "./hodei/logs.ts";
import { plannerRound } from "./hodei/planner.ts";
import { idleWorkersCpu, idleWorkersMemory, reconnect } from "./hodei/workers.ts";
import { fileAppend } from "./raw-limits/append.ts";
import { connectEcho } from "./raw-limits/echo.ts";
import { groupedInserts, singleInserts } from "./raw-limits/postgres.ts";
import { spawnLatency, spawnRate } from "./raw-limits/spawn.ts";
import { connectStream } from "./raw-limits/stream.ts";

const rows: readonly BenchRow[] = [
  startLatencyMedian,
  startLatencyTail,
  noOpJobs,
  unaryQueueJob,
  batchedQueueJobs,
  logBytes,
  firstRun,
  laterRun,
  ephemeralWorker,
  dockerWorker,
  plannerRound,
  idleWorkersMemory,
  idleWorkersCpu,
  reconnect,
  spawnLatency,
  spawnRate,
  connectEcho,
  connectStream,
  fileAppend,
  groupedInserts,
  singleInserts,
];

process.exitCode = await main(process.argv.slice(2));

async function main(wanted: readonly string[]): Promise<number> {
  const chosen = rows.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
  if (chosen.length === 0) {
    console.error(
      `no row matches ${wanted.join(" ")}; there are: ${rows.map(({ name }) => name).join("; ")}`,
    );
    return 2;
  }
  const lines = [["what", "measured", "raw limit in the same run", "ratio", "target"]];
  let failures = 0;
  const totalMs = await durationMs(async () => {
    for (const row of chosen) {
      console.error(`… ${row.name}`);
      try {
        lines.push(tableLine(row, await row.run()));
      } catch (error) {
        failures += 1;
        lines.push([row.name, `failed: ${errorMessage(error)}`, row.rawName, "", row.target]);
      }
    }
  });
  console.log(printTable(lines));
  console.log(`\n${chosen.length} rows in ${(totalMs / 1_000).toFixed(0)} s`);
  return failures === 0 ? 0 : 1;
}

function tableLine(row: BenchRow, { value, raw, unit }: Measured): string[] {
  const rawText = raw === null ? row.rawName : `${amount(raw, unit)} (${row.rawName})`;
  const ratio = value === null || raw === null ? "" : (value / raw).toFixed(2);
  return [row.name, value === null ? "–" : amount(value, unit), rawText, ratio, row.target];
}

function amount(value: number, unit: string): string {
  const digits = Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0;
  return `${value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits })} ${unit}`;
}

function printTable(lines: readonly string[][]): string {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((cells) => cells[column]?.length ?? 0)),
  );
  const printed = lines.map((cells) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join(" | ")
      .trimEnd(),
  );
  printed.splice(1, 0, widths.map((width) => "-".repeat(width)).join("-|-"));
  return printed.join("\n");
}
