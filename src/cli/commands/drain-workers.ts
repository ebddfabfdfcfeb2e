/** `hodei workers drain`: workers finish what they run, take nothing new and leave. */

import { AppError } from "../../base/errors.ts";
import { formatDurationMs } from "../../base/quantities.ts";
import { workerFromWire, type WorkerView } from "../../protocol/convert-worker.ts";
import { call } from "../call.ts";
import type { CliCommand, CommandCall, CommandContext } from "../command.ts";
import type { Connection } from "../connection.ts";
import { EXIT } from "../exit-codes.ts";
import { colorState } from "../job-text.ts";
import { toJsonText } from "../json-views.ts";
import { checkIds, durationOption, flagOption, jsonOutput, textOption } from "../option-values.ts";
import { callPersistently, followContext, type FollowContext } from "../reconnect.ts";
import { reportError } from "../report-error.ts";
import { createSpinner, type Spinner } from "../spinner.ts";

const LOOK_INTERVAL_MS = 500;

export const drainWorkersCommand: CliCommand = {
  configure(command) {
    command
      .argument("<worker...>", "ids of workers, or their beginnings")
      .option("--reason <text>", "kept with the worker")
      .option("-w, --wait", "wait until the workers are gone")
      .option("--timeout <duration>", "how long to wait; without end by default")
      .option("-o, --output <format>", "json: an array of the workers")
      .addHelpText(
        "after",
        "\nA worker that drains takes no more jobs, finishes those that it runs, and leaves.\n\nExample:\n  hodei workers drain --wait --timeout 1h 0198f3a1",
      );
  },
  run: drainWorkers,
};

/** Goes on after a failure; the exit code is that of the first one. */
async function drainWorkers(given: CommandCall, context: CommandContext): Promise<number> {
  const { options, operands: workerIds } = given;
  checkIds(workerIds, "worker");
  const isJson = jsonOutput(options);
  const reason = textOption(options, "reason") ?? "";
  const timeoutMs = durationOption(options, "timeout", { option: "--timeout" }) ?? null;
  const connection = await context.connect("running_server");
  const drained: WorkerView[] = [];
  let exitCode: number = EXIT.ok;
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const report = reportError(error, context.environment.variables["HODEI_DEBUG"] === "1");
      await context.stderr.write(report.text);
      if (exitCode === EXIT.ok) exitCode = report.exitCode;
    }
  };
  // All are told before any is waited for: they drain at the same time.
  for (const workerId of workerIds) {
    await attempt(async () => void drained.push(await drain(connection, workerId, reason)));
  }
  if (flagOption(options, "wait")) {
    const end = await waitUntilGone(drained, timeoutMs, { connection, context });
    if (exitCode === EXIT.ok) exitCode = end;
  }
  const shown = isJson ? toJsonText(drained) : drained.map((worker) => workerLine(worker, context)).join("");
  await context.stdout.write(shown);
  return exitCode;
}

async function drain(connection: Connection, workerId: string, reason: string): Promise<WorkerView> {
  const { worker } = await call(`drain worker ${workerId}`, () =>
    connection.workers.drainWorker({ workerId, reason }),
  );
  if (!worker) throw new Error("the server sent no worker");
  return workerFromWire(worker);
}

function workerLine(worker: WorkerView, { colors }: CommandContext): string {
  const jobs = worker.state === "terminated" ? "" : `  ${jobsText(worker.attemptIds.length)}`;
  return `${worker.id}  ${colorState(worker.state, colors.stdout)}${jobs}\n`;
}

function jobsText(count: number): string {
  return count === 1 ? "1 job still runs" : `${count} jobs still run`;
}

/** Brings the views up to date, and says what they still wait for: on a terminal in one line. */
async function waitUntilGone(
  drained: WorkerView[],
  timeoutMs: number | null,
  { connection, context }: { connection: Connection; context: CommandContext },
): Promise<number> {
  const { clock } = context.environment;
  const sinceMs = clock.monotonicMs();
  const spinner = createSpinner(context, true);
  const follow = followContext(connection, context, { spinner });
  let said = "";
  try {
    for (;;) {
      for (const [index, worker] of drained.entries()) {
        if (worker.state !== "terminated") drained[index] = await look(follow, worker.id);
      }
      const waiting = drained.filter(({ state }) => state !== "terminated");
      if (waiting.length === 0) return EXIT.ok;
      const text = waitText(waiting);
      if (timeoutMs !== null && clock.monotonicMs() - sinceMs >= timeoutMs) {
        spinner.hide();
        await context.stderr.write(`hodei: not gone after ${formatDurationMs(timeoutMs)}: ${text}\n`);
        return EXIT.timedOut;
      }
      if (text !== said) await sayProgress(text, spinner, context);
      said = text;
      await clock.sleep(LOOK_INTERVAL_MS);
    }
  } finally {
    spinner.hide();
  }
}

async function sayProgress(
  text: string,
  spinner: Spinner,
  { environment, stderr }: CommandContext,
): Promise<void> {
  spinner.show(text);
  if (!environment.isTty.stderr) await stderr.write(`${text}\n`);
}

function waitText(waiting: readonly WorkerView[]): string {
  const jobs = waiting.reduce((sum, worker) => sum + worker.attemptIds.length, 0);
  const workers = waiting.length === 1 ? "1 worker drains" : `${waiting.length} workers drain`;
  return `${workers}, ${jobsText(jobs)}`;
}

async function look(follow: FollowContext, workerId: string): Promise<WorkerView> {
  const { worker } = await callPersistently(`get worker ${workerId}`, follow, () =>
    follow.connection.workers.getWorkerInfo({ workerId }),
  );
  if (!worker) throw new Error("the server sent no worker");
  return workerFromWire(worker);
}
