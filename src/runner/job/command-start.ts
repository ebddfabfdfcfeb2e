/** Starts one command inside a process tree, and says in plain words why it could not. */

import { spawn, type ChildProcess } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { errorMessage, systemErrorCode } from "../../base/errors.ts";
import type { Cause } from "../../core/job.ts";
import type { ProcessTree } from "../tree/process-tree.ts";
import type { Environment } from "./job-environment.ts";

export interface CommandExit {
  exitCode: number | null;
  signal: string | null;
}

export type CommandStart =
  | { ok: true; pid: number; exited: Promise<CommandExit> }
  | { ok: false; cause: Cause; message: string };

export interface CommandOptions {
  argv: readonly string[];
  /** What the first word is called when it cannot be found. */
  kind: "command" | "interpreter";
  workingDirectory: string;
  environment: Environment;
  stdoutFd: number;
  stderrFd: number;
  tree: ProcessTree;
}

/** The fork itself happens before this function returns its promise: nothing can come between. */
export async function startCommand(options: CommandOptions): Promise<CommandStart> {
  const [file = "", ...args] = options.argv;
  if (file === "") return { ok: false, cause: "start_failed", message: `the ${options.kind} is empty` };
  let child: ChildProcess;
  try {
    // The lookup in PATH is that of execvp(3) with the PATH of the job, in the child.
    child = options.tree.enter(() =>
      spawn(file, args, {
        cwd: options.workingDirectory,
        env: options.environment,
        detached: true,
        stdio: ["ignore", options.stdoutFd, options.stderrFd],
      }),
    );
  } catch (error) {
    return await explainFailure(options, error);
  }
  const { pid } = child;
  if (pid !== undefined) return { ok: true, pid, exited: exitOf(child) };
  const error = await new Promise<unknown>((done) => child.once("error", done));
  return await explainFailure(options, error);
}

function exitOf(child: ChildProcess): Promise<CommandExit> {
  return new Promise((done) => {
    child.once("exit", (exitCode, signal) => done({ exitCode, signal }));
    child.on("error", () => {
      // Only a failed kill() through this object could come here, and nobody calls it.
    });
  });
}

/** Want of processes, memory or file descriptors is the worker's fault; another one may do. */
const WORKER_FAULTS = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "EIO"]);

/** Of a file that is there and may be executed. Node.js has no name for the number of ENOEXEC. */
const STRANGE_FAILURES: Readonly<Record<string, string>> = {
  ENOENT: "the interpreter in its first line, or its loader, is missing",
  "Unknown system error -8": "it is a program for another kind of machine (exec format error)",
};

async function explainFailure(options: CommandOptions, error: unknown): Promise<CommandStart> {
  const code = systemErrorCode(error) ?? "";
  const [file = ""] = options.argv;
  if (WORKER_FAULTS.has(code)) {
    return { ok: false, cause: "server_error", message: `the worker could not start ${file}: ${code}` };
  }
  const message =
    (await directoryProblem(options.workingDirectory)) ??
    (code === "E2BIG"
      ? `cannot start ${file}: arguments and environment are too long for this system`
      : null) ??
    (file.includes("/") ? await fileProblem(options, file) : await lookupProblem(options, file)) ??
    `cannot start ${file}: ${STRANGE_FAILURES[code] ?? errorMessage(error)}`;
  return { ok: false, cause: "start_failed", message };
}

async function directoryProblem(path: string): Promise<string | null> {
  try {
    const stats = await stat(path);
    if (!stats.isDirectory()) return `working directory is not a directory: ${path}`;
    await access(path, constants.X_OK);
    return null;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return `working directory not found: ${path}`;
    return `working directory cannot be entered: ${path} (${systemErrorCode(error) ?? errorMessage(error)})`;
  }
}

async function fileProblem(options: CommandOptions, file: string): Promise<string | null> {
  const path = isAbsolute(file) ? file : resolve(options.workingDirectory, file);
  switch (await whatIs(path)) {
    case "missing":
      return `${options.kind} not found: ${file}`;
    case "directory":
      return `${options.kind} is a directory: ${file}`;
    case "not_executable":
      return `${options.kind} is not executable: ${file}`;
    case "executable":
      return null;
  }
}

async function lookupProblem(options: CommandOptions, file: string): Promise<string | null> {
  const searched = options.environment["PATH"] ?? "";
  let problem = `${options.kind} not found: ${file} (looked in PATH=${searched})`;
  for (const directory of searched.split(delimiter)) {
    const path = join(isAbsolute(directory) ? directory : resolve(options.workingDirectory, directory), file);
    const found = await whatIs(path);
    if (found === "executable") return null;
    if (found === "directory") problem = `${options.kind} is a directory: ${path}`;
    if (found === "not_executable") problem = `${options.kind} is not executable: ${path}`;
  }
  return problem;
}

async function whatIs(path: string): Promise<"missing" | "directory" | "not_executable" | "executable"> {
  try {
    if ((await stat(path)).isDirectory()) return "directory";
  } catch {
    // Also a path through something that is no directory: there is no such file.
    return "missing";
  }
  try {
    await access(path, constants.X_OK);
    return "executable";
  } catch {
    // Access was refused.
    return "not_executable";
  }
}
