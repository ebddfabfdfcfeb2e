/** The first process of PostgreSQL: found by its pid file, asked whether it answers, and ended. */

import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { Client } from "pg";
import type { Clock } from "../../base/clock.ts";
import { systemErrorCode } from "../../base/errors.ts";

/** The number in the name of the socket; nothing listens on a TCP port. */
export const SOCKET_PORT = 5432;

/** Who owns everything in the database. It has no password: only its account reaches the socket. */
export const SUPERUSER = "hodei";

/** `postmaster.pid`, by line: pid, data directory, start time, port, socket directory, address, key, status. */
export interface PidFile {
  pid: number;
  socketDirectory: string;
  isReady: boolean;
}

/** Null if there is none, or none yet that is complete enough to name a process. */
export function readPidFile(data: string): PidFile | null {
  let text: string;
  try {
    text = readFileSync(join(data, "postmaster.pid"), "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
  const lines = text.split("\n").map((line) => line.trim());
  const pid = Number.parseInt(lines[0] ?? "", 10);
  if (!Number.isSafeInteger(pid) || pid <= 0) return null;
  return { pid, socketDirectory: lines[4] ?? "", isReady: lines[7] === "ready" };
}

/**
 * Whether `pid` is a PostgreSQL that works in `data` (a real path). After a reboot the pid of an old
 * file may be anybody's; a postmaster is told by its working directory, where that can be seen.
 */
export function isPostmaster(pid: number, data: string): boolean {
  if (!isProcessAlive(pid)) return false;
  if (process.platform !== "linux") return true;
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === data;
  } catch (error) {
    // Root without CAP_SYS_PTRACE, as in most containers, may not look into other users' processes.
    return systemErrorCode(error) === "EACCES" && isCommandOn(pid, data);
  }
}

/** Of all processes of PostgreSQL only the first keeps its command line: the others show what they do. */
function isCommandOn(pid: number, data: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`\0-D\0${data}\0`);
  } catch {
    // Ended meanwhile.
    return false;
  }
}

/** A zombie has ended: only its parent has not looked yet, and in a container may never do. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return systemErrorCode(error) === "EPERM";
  }
  return processStat(pid)?.state !== "Z";
}

/** Names this process for others: `<pid>-<start>`, so that a later one with the same pid is told apart. */
export function ownMark(): string {
  return `${process.pid}-${processStat(process.pid)?.startTicks ?? ""}`;
}

/** Whether the process that made a name which begins with its mark is still alive. */
export function isMarkAlive(name: string): boolean {
  const [pid = "", startTicks = ""] = name.split("-");
  return isProcessAlive(Number(pid)) && (processStat(Number(pid))?.startTicks ?? "") === startTicks;
}

/** See proc_pid_stat(5): the name in parentheses may itself hold any character. */
function processStat(pid: number): { state: string; startTicks: string } | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "", startTicks: fields[19] ?? "" };
  } catch {
    // No /proc on this system, or the process has ended.
    return null;
  }
}

const PROBE_TIMEOUT_MS = 5_000;

/** The version of the PostgreSQL that answers on the socket. Rejects if none does. */
export async function askVersion(socketDirectory: string): Promise<string> {
  const client = new Client({
    host: socketDirectory,
    port: SOCKET_PORT,
    user: SUPERUSER,
    database: "postgres",
    connectionTimeoutMillis: PROBE_TIMEOUT_MS,
    query_timeout: PROBE_TIMEOUT_MS,
  });
  // A connection that breaks also fails the query below; unheard, the event would end the process.
  client.on("error", () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ version: string }>(
      "SELECT current_setting('server_version') AS version",
    );
    return rows[0]?.version ?? "";
  } finally {
    await client.end().catch(() => {
      // It was never connected or is broken: there is nothing to end.
    });
  }
}

const POLL_MS = 5;

interface EndStep {
  signal: NodeJS.Signals;
  waitMs: number;
}

/**
 * Clients are disconnected and everything is written (SIGINT), which on a slow disk takes long; then
 * as in `AT_ONCE`.
 */
const IN_ORDER: readonly EndStep[] = [
  { signal: "SIGINT", waitMs: 30_000 },
  { signal: "SIGQUIT", waitMs: 5_000 },
  { signal: "SIGKILL", waitMs: 5_000 },
];

/** Costs a recovery at the next start, but loses nothing. A postmaster that hangs heeds only SIGKILL. */
export const AT_ONCE: readonly EndStep[] = [
  { signal: "SIGQUIT", waitMs: 1_000 },
  { signal: "SIGKILL", waitMs: 1_000 },
];

/** Ends PostgreSQL; false if it is still there after all steps. */
export async function endPostmaster(
  pid: number,
  options: { data: string; clock: Clock; steps?: readonly EndStep[] },
): Promise<boolean> {
  const { data, clock, steps = IN_ORDER } = options;
  for (const { signal, waitMs } of steps) {
    if (!isPostmaster(pid, data)) return true;
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (systemErrorCode(error) !== "ESRCH") throw error;
    }
    const endMs = clock.monotonicMs() + waitMs;
    while (isPostmaster(pid, data) && clock.monotonicMs() < endMs) await clock.sleep(POLL_MS);
  }
  return !isPostmaster(pid, data);
}
