/**
 * Names a process so that it can be found again by another one, also after a reboot: a process id
 * alone may belong to a stranger by then, so the kernel's start time goes with it.
 */

import { readFileSync } from "node:fs";
import { systemErrorCode } from "./errors.ts";

export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot (proc(5), stat field 22); null where there is no /proc. */
  startTicks: string | null;
}

export function identifyProcess(pid: number): ProcessIdentity {
  return { pid, startTicks: readStat(pid)?.startTicks ?? null };
}

/** True while this very process runs. A zombie counts as gone: it runs nothing. */
export function isProcessAlive(identity: ProcessIdentity): boolean {
  const stat = readStat(identity.pid);
  if (stat)
    return stat.state !== "Z" && (identity.startTicks === null || stat.startTicks === identity.startTicks);
  if (identity.startTicks !== null) return false;
  return canSignal(identity.pid);
}

/** Sends a signal to this very process; false if it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isProcessAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ESRCH") return false;
    throw error;
  }
}

function readStat(pid: number): { state: string; startTicks: string } | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    // Gone, or no /proc on this system: the caller tells the two apart by `startTicks`.
    return null;
  }
  // The command name stands in brackets and may hold spaces and brackets itself.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", startTicks: fields[19] ?? "" };
}

/** True if there is such a process, or with a negative number such a group, whoever owns it. */
export function canSignal(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemErrorCode(error) === "EPERM";
  }
}
