/**
 * One agent serves a worker's directory. Two would take the runner and the stream from each other for
 * ever, and no job would get on.
 *
 * The agent itself leaves its identity there, before it starts a runner: whoever started it may have
 * died before it could, and must find it where it finds a runner.
 */

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../base/errors.ts";
import { eventually } from "../base/eventually.ts";
import { identifyProcess, isProcessAlive, type ProcessIdentity } from "../base/process-identity.ts";

/** How long an agent that is leaving may take: an upgrade starts the next one at once. */
const CLAIM_TIMEOUT_MS = 10_000;

/** @throws AppError `already_exists` if another agent serves the directory and stays. */
export async function claimDirectory(directory: string, timeoutMs = CLAIM_TIMEOUT_MS): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, "agent.pid");
  const other = await readIdentity(path);
  if (other && other.pid !== process.pid) {
    try {
      await eventually(() => !isProcessAlive(other), { timeoutMs, what: "the end of the other agent" });
    } catch (cause) {
      throw new AppError("already_exists", `serve ${directory}: agent ${other.pid} does so already`, {
        cause,
      });
    }
  }
  await writeFile(`${path}.new`, JSON.stringify(identifyProcess(process.pid)), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function readIdentity(path: string): Promise<ProcessIdentity | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as ProcessIdentity;
  } catch {
    // None was here before, or its word was cut short by a crash.
    return null;
  }
}
