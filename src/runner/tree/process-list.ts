/** The processes of this machine as /proc shows them (proc(5)). */

import { readdirSync, readFileSync } from "node:fs";
import { readOrEmpty } from "./cgroup-files.ts";

export interface ListedProcess {
  pid: number;
  stat: ProcStat;
}

/** Living processes that were started at or after a tick, this one excepted; zombies are dead already. */
export function listProcesses(notBeforeTick: number): ListedProcess[] {
  const listed: ListedProcess[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const stat = readProcess(pid);
    if (stat === null || stat.startTick < notBeforeTick || stat.state === "Z" || stat.state === "X") continue;
    listed.push({ pid, stat });
  }
  return listed;
}

/** Null if there is none. */
export function readProcess(pid: number): ProcStat | null {
  return parseProcStat(readOrEmpty(`/proc/${pid}/stat`));
}

export interface ProcStat {
  /** Of the program, at most 15 characters. */
  name: string;
  state: string;
  parent: number;
  group: number;
  session: number;
  cpuTicks: number;
  /** Ticks after the boot of the machine. */
  startTick: number;
}

/** The fields of /proc/<pid>/stat (proc_pid_stat(5)); the name in parentheses may hold anything. */
function parseProcStat(text: string): ProcStat | null {
  const nameEnd = text.lastIndexOf(")");
  const fields = text.slice(nameEnd + 2).split(" ");
  const number = (index: number) => Number(fields[index]);
  if (fields.length < 20) return null;
  return {
    name: text.slice(text.indexOf("(") + 1, nameEnd),
    state: fields[0] ?? "",
    parent: number(1),
    group: number(2),
    session: number(3),
    cpuTicks: number(11) + number(12) + number(13) + number(14),
    startTick: number(19),
  };
}

const TICKS_PER_SECOND = 100;

/** Now, as a start tick; a little early, for the two are rounded differently. */
export function currentTick(): number {
  return Math.floor(Number.parseFloat(readFileSync("/proc/uptime", "latin1")) * TICKS_PER_SECOND) - 2;
}

/** For people who must find out why they do not die: `1234 (dd, state D)`. */
export function describeProcesses(pids: readonly number[]): string {
  const shown = pids.slice(0, MAX_DESCRIBED).map((pid) => {
    const stat = readProcess(pid);
    return stat === null ? String(pid) : `${pid} (${stat.name}, state ${stat.state})`;
  });
  const more = pids.length - shown.length;
  return shown.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

const MAX_DESCRIBED = 10;
