/**
 * Runs what a job consists of, one command after another in the same workspace.
 *
 * A job with a single command is a sequence of one without a section in the log. Processes that a
 * step leaves running, such as a database for the tests of the next one, live until the job ends.
 */

import { closeSync, openSync, writeFileSync } from "node:fs";
import { unlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Cause, CommandSpec, FinalJobState, JobDefinition, Step, StepResult } from "../core/job.ts";
import { SCRIPT_WRITE_FLAGS, type AttemptPaths } from "./job/attempt-directory.ts";
import { startCommand, type CommandExit, type CommandStart } from "./job/command-start.ts";
import type { Environment } from "./job/job-environment.ts";
import { planScript } from "./job/script-file.ts";
import type { AttemptLog } from "./log/attempt-log.ts";
import type { PausableTimer } from "./pausable-timer.ts";
import type { ProcessTree } from "./tree/process-tree.ts";

/** The attempt, as far as its commands have to do with it. */
export interface SequenceHost {
  readonly definition: JobDefinition;
  readonly paths: AttemptPaths;
  readonly tree: ProcessTree;
  readonly log: AttemptLog;
  readonly clock: Clock;
  environment(step: Environment): Environment;
  /** Whether the attempt is being ended from outside: nothing may be started any more. */
  isEnding(): boolean;
  /** What that makes of the step that runs. */
  endedOutcome(): "cancelled" | "timed_out" | "failed";
  isPaused(): boolean;
  /** Resolves when it is not paused any more. */
  resumed(): Promise<void>;
  /** A process runs. */
  started(atMs: number): void;
  /** Ends all processes of the attempt, with the grace of the job; a step took too long. */
  stopProcesses(): Promise<void>;
  timer(durationMs: number, run: () => void): PausableTimer;
}

/** How a job or step ended other than well by itself. */
export interface Failure {
  state: FinalJobState;
  cause: Cause;
  exitCode: number | null;
  signal: string | null;
  message: string;
}

export interface SequenceEnd {
  steps: StepResult[];
  /** Of the first failed step that counts. */
  failure: Failure | null;
  /** Of the last command that ended. */
  lastExit: CommandExit | null;
}

export async function runSequence(host: SequenceHost): Promise<SequenceEnd> {
  const { command, steps } = host.definition;
  const end: SequenceEnd = { steps: [], failure: null, lastExit: null };
  if (steps.length === 0) {
    if (command !== null) await runSingle(host, command, end);
    return end;
  }
  for (const [index, step] of steps.entries()) {
    if (host.isEnding() || !isWanted(step, end.failure !== null)) {
      end.steps.push(skipped(step));
      continue;
    }
    await runStep(host, { step, index, end });
  }
  return end;
}

function isWanted(step: Step, hasFailed: boolean): boolean {
  return step.condition === "always" || (step.condition === "failure") === hasFailed;
}

function skipped(step: Step): StepResult {
  return {
    name: step.name,
    outcome: "skipped",
    exitCode: null,
    signal: null,
    startedAtMs: null,
    finishedAtMs: null,
    message: "",
  };
}

async function runSingle(host: SequenceHost, command: CommandSpec, end: SequenceEnd): Promise<void> {
  const run = await runCommand(host, { command, index: 0, env: {}, workingDirectory: "", timeoutMs: null });
  end.lastExit = run.exit;
  end.failure = failureOf(run);
  if (!run.start.ok) host.log.system(`✖ ${run.start.message}`);
}

async function runStep(
  host: SequenceHost,
  at: { step: Step; index: number; end: SequenceEnd },
): Promise<void> {
  const { step, index, end } = at;
  const title = `step ${index + 1}/${host.definition.steps.length}: ${step.name}`;
  host.log.system(`▶ ${title}`);
  const startedAtMs = host.clock.nowMs();
  const run = await runCommand(host, { ...step, index });
  const failure = failureOf(run);
  end.lastExit = run.exit;
  const interrupted = host.isEnding() && !run.timedOut;
  const outcome = interrupted
    ? host.endedOutcome()
    : run.timedOut
      ? "timed_out"
      : failure
        ? "failed"
        : "succeeded";
  end.steps.push({
    name: step.name,
    outcome,
    exitCode: run.exit?.exitCode ?? null,
    signal: run.exit?.signal ?? null,
    startedAtMs,
    finishedAtMs: host.clock.nowMs(),
    message: failure?.message ?? "",
  });
  if (failure === null || interrupted) return;
  host.log.system(`✖ ${title}: ${failure.message}${step.continueOnError ? " (the job goes on)" : ""}`);
  if (!step.continueOnError) end.failure ??= { ...failure, message: `${title}: ${failure.message}` };
}

interface CommandPlan {
  command: CommandSpec;
  index: number;
  env: Environment;
  workingDirectory: string;
  timeoutMs: number | null;
}

interface CommandRun {
  start: CommandStart;
  exit: CommandExit | null;
  timedOut: boolean;
  timeoutMs: number | null;
}

async function runCommand(host: SequenceHost, plan: CommandPlan): Promise<CommandRun> {
  const { command, timeoutMs } = plan;
  const scriptPath = command.kind !== "script" ? null : scriptPathOf(host.paths, plan.index);
  const argv = await makeArguments(command, host.paths, scriptPath);
  const run: CommandRun = { start: NOT_STARTED, exit: null, timedOut: false, timeoutMs };
  // No waiting between this check and the fork: a frozen tree must not be entered.
  while (host.isPaused()) await host.resumed();
  if (host.isEnding()) return run;
  run.start = await startCommand({
    argv,
    kind: command.kind === "script" ? "interpreter" : "command",
    workingDirectory: resolve(
      host.paths.workspace,
      plan.workingDirectory || host.definition.workingDirectory,
    ),
    environment: host.environment(plan.env),
    stdoutFd: host.log.stdoutFd,
    stderrFd: host.log.stderrFd,
    tree: host.tree,
  });
  if (run.start.ok) await superviseCommand(host, run, run.start);
  // A process that a step left behind may still read its script; a single one goes with the job.
  if (scriptPath !== null && host.definition.steps.length > 0) removeInBackground(scriptPath);
  return run;
}

const NOT_STARTED: CommandStart = {
  ok: false,
  cause: "cancelled",
  message: "not started: the job was ended before",
};

async function superviseCommand(
  host: SequenceHost,
  run: CommandRun,
  start: Extract<CommandStart, { ok: true }>,
): Promise<void> {
  host.started(host.clock.nowMs());
  let stopped = Promise.resolve();
  const onTimeout = () => {
    run.timedOut = true;
    stopped = host.stopProcesses();
  };
  const timer = run.timeoutMs === null ? null : host.timer(run.timeoutMs, onTimeout);
  run.exit = await start.exited;
  timer?.cancel();
  await stopped;
  host.log.drain();
}

function scriptPathOf(paths: AttemptPaths, index: number): string {
  return index === 0 ? paths.script : join(paths.root, `script-${index + 1}`);
}

async function makeArguments(
  command: CommandSpec,
  paths: AttemptPaths,
  scriptPath: string | null,
): Promise<string[]> {
  if (command.kind === "shell" || scriptPath === null) {
    return command.kind === "shell" ? [command.cmd, ...command.args] : [];
  }
  const { interpreter, text } = planScript(command);
  await writeScript(scriptPath, text, scriptPath === paths.script ? SCRIPT_WRITE_FLAGS : "w");
  return interpreter.length === 0 ? [] : [...interpreter, scriptPath];
}

async function writeScript(path: string, text: string, flags: number | string): Promise<void> {
  if (text.length > SMALL_SCRIPT_LENGTH) {
    await writeFile(path, text, { mode: SCRIPT_MODE, flag: flags });
    return;
  }
  const fd = openSync(path, flags, SCRIPT_MODE);
  try {
    writeFileSync(fd, text);
  } finally {
    closeSync(fd);
  }
}

const SCRIPT_MODE = 0o700;
/** Up to here the three rounds of an asynchronous write cost more than the write itself. */
const SMALL_SCRIPT_LENGTH = 16 * 1024;

function removeInBackground(path: string): void {
  unlink(path).catch(() => {
    // The job may have removed it; else it goes with the directory of the attempt.
  });
}

function failureOf(run: CommandRun): Failure | null {
  const exitCode = run.exit?.exitCode ?? null;
  const signal = run.exit?.signal ?? null;
  const fail = (cause: Cause, message: string): Failure => ({
    state: "failed",
    cause,
    exitCode,
    signal,
    message,
  });
  if (!run.start.ok) return fail(run.start.cause, run.start.message);
  if (run.timedOut) {
    return { ...fail("timeout", `timed out after ${(run.timeoutMs ?? 0) / 1000} s`), state: "timed_out" };
  }
  if (signal !== null) return fail("signal", `killed by ${signal}`);
  return exitCode === 0 ? null : fail("exit_code", `exit code ${exitCode}`);
}
