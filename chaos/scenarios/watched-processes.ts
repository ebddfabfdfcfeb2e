/** Looks at the processes of jobs from outside of Hodei, by /proc alone. */

import { readFileSync, readdirSync } from "node:fs";
import { bootClock } from "../../src/base/boot-clock.ts";
import { systemClock } from "../../src/base/clock.ts";

/** Milliseconds after the boot of the machine: the clock that jobs read from /proc/uptime. */
export const bootNowMs = bootClock();

/** Living processes that carry the id of an attempt in the environment they were started with. */
export function processesOfAttempt(attemptId: string): number[] {
  const marker = `HODEI_ATTEMPT_ID=${attemptId}`;
  return listPids().filter((pid) => readProc(pid, "environ").split("\0").includes(marker));
}

/** How many living processes have exactly these words as their command line. */
export function countCommand(words: readonly string[]): number {
  const wanted = `${words.join("\0")}\0`;
  return listPids().filter((pid) => readProc(pid, "cmdline") === wanted).length;
}

/** CPU time of a process with all its threads so far, in milliseconds. */
export function cpuTimeMs(pid: number): number {
  let nanos = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    // The first number is the time on a CPU in nanoseconds (kernel: scheduler/sched-stats).
    nanos += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0]);
  }
  return nanos / 1e6;
}

export interface WatchedEnd {
  /** When none was left, on the clock of `bootNowMs`; null while there are some. */
  goneAtMs: number | null;
  stop(): void;
}

const LOOK_MS = 25;

/** Notes when the last process of an attempt was gone; it was, at the latest, by then. */
export function watchEnd(attemptId: string): WatchedEnd {
  const watched: WatchedEnd = { goneAtMs: null, stop: () => callOff() };
  let callOff = (): void => {};
  const look = (): void => {
    if (processesOfAttempt(attemptId).length === 0) watched.goneAtMs = bootNowMs();
    else callOff = systemClock.schedule(LOOK_MS, look);
  };
  look();
  return watched;
}

function listPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Empty for a process that has just ended, and for a zombie. */
function readProc(pid: number, name: "environ" | "cmdline"): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "latin1");
  } catch {
    // It ended between the two looks.
    return "";
  }
}
